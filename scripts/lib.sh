# shellcheck shell=bash
# What scripts/bench and scripts/flamegraph share: checked options, tools, a place to work and its end, the origin, a ringmain
# under load.
#
# Sourced, not run, after `from=$PWD`: relative paths of a command line are where the person stands, not where the repository
# is. Whoever sources it sets proxy_core and load_core before anything is started.
# shellcheck disable=SC2034,SC2154 # some variables are theirs, and some of ours are for them

# Tools of the administrator, and what cargo has installed.
PATH=$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-}/.cargo}/bin

# ---- what was asked for ----------------------------------------------------------------------------------------------

# refuse WHY: a command line that makes no sense.
refuse() {
    echo "$1" >&2
    usage >&2
    exit 2
}

# whole OPTION VALUE LEAST: nine digits are more than anything here can use, and fewer than what overflows.
whole() {
    if ! [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || (($2 < $3)); then
        refuse "$1 $2: allowed are whole numbers from $3"
    fi
}

# absolute PATH: it is in $path.
absolute() {
    case $1 in
        /*) path=$1 ;;
        *) path=$from/$1 ;;
    esac
}

# executable OPTION PATH: makes it absolute, in $path.
executable() {
    absolute "$2"
    [[ -f $path && -x $path ]] || refuse "$1 $2: not a program"
}

# ---- what must be there ----------------------------------------------------------------------------------------------

# need TOOL...: ends with what to type if one is missing.
need() {
    local tool packages="" crates="" services="" hints=""
    for tool; do
        command -v "$tool" > /dev/null && continue
        case $tool in
            taskset) packages+=" util-linux" ;;
            perf) packages+=" linux-perf" ;;
            nginx | haproxy) packages+=" $tool" services+=" $tool" ;;
            oha) crates+=" oha" hints+="  or leave the tail out: --rate 0"$'\n' ;;
            inferno-*) [[ $crates == *inferno* ]] || crates+=" inferno" ;;
            *) packages+=" $tool" ;;
        esac
    done
    [[ $packages$crates ]] || return 0
    {
        echo "missing:$packages$crates; type:"
        if [[ $packages ]]; then echo "  sudo apt-get install --no-install-recommends$packages"; fi
        if [[ $services ]]; then echo "  sudo systemctl disable --now$services    (if they start as services)"; fi
        if [[ $crates ]]; then echo "  cargo install --locked$crates"; fi
        printf '%s' "$hints"
    } >&2
    exit 1
}

need_two_cores() {
    if ((proxy_core >= $(nproc) || load_core >= $(nproc))) || ((proxy_core == load_core)); then
        echo "two cores are needed, one for the proxy and one for the load; there are $(nproc)" >&2
        exit 1
    fi
}

# As many descriptors as may be had; how many is in $descriptors.
raise_descriptors() {
    ulimit -n "$(ulimit -Hn)"
    descriptors=$(ulimit -n)
    if [[ $descriptors == unlimited ]] || ((descriptors > 60000)); then descriptors=60000; fi
}

# ---- a place to work, and its end ------------------------------------------------------------------------------------

work=$(mktemp -d)
cleanup() {
    # Nothing interrupts this: everything that runs ends when it is told to.
    trap '' INT TERM HUP
    local pid
    # The shell's own table, in which nobody is missing and nobody stands who has ended and whose number is another's by now.
    for pid in $(jobs -p); do kill "$pid" 2> /dev/null || true; done
    wait
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# start CORE COMMAND...: runs it there; its pid is in $pid.
start() {
    local core=$1
    shift
    taskset -c "$core" "$@" 2>> "$work/log" >> "$work/log" &
    pid=$!
}

# load FILE COMMAND...: runs it on the load's core to its end, what it prints into FILE. Beside this shell and not in front of
# it: bash hears a signal only when what is in front of it has ended.
load() {
    local file=$1 result=0
    shift
    taskset -c "$load_core" "$@" > "$file" 2> "$work/load.err" &
    wait "$!" || result=$?
    if ((result != 0)); then
        echo "$1 ended with $result:" >&2
        cat "$file" "$work/load.err" >&2
        exit 1
    fi
}

# wrk_load PROXY CONNECTIONS SECONDS: as many small requests as it answers; what wrk says is in $work/wrk.
wrk_load() {
    load "$work/wrk" wrk --threads 1 --connections "$2" --duration "$3s" --timeout 10s --latency \
        -H "Host: bench.test" "http://127.0.0.1:${port[$1]}/"
}

# pause SECONDS
pause() { read -r -t "$1" <> <(:) || true; }

# A port below those that the kernel gives away, and on which nobody listens; it is in $free.
taken=""
free_port() {
    local low port
    read -r low _ < /proc/sys/net/ipv4/ip_local_port_range
    while :; do
        port=$((low - 1 - RANDOM % 8000))
        [[ " $taken " == *" $port "* ]] && continue
        (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null && continue
        taken+=" $port"
        free=$port
        return
    done
}

# wait_for PORT NAME: until it answers a request with 200.
wait_for() {
    local tries=0
    until curl -s -o /dev/null --fail --max-time 1 -H "Host: bench.test" "http://127.0.0.1:$1/"; do
        tries=$((tries + 1))
        if ((tries > 100)); then
            echo "$2 does not answer:" >&2
            cat "$work/log" >&2
            exit 1
        fi
        pause 0.05
    done
}

# Says what is under way, where a person looks on.
note() {
    if [[ -t 2 ]]; then printf '\r\e[K%s' "$*" >&2; fi
}

# ---- the origin: 128 bytes from nginx, on the load's core ------------------------------------------------------------

# nginx_conf NAME: what the configurations of the origin and of the contestant have in common.
nginx_conf() {
    local kind
    cat <<TEXT
daemon off; pid $work/$1.pid; error_log $work/$1.err; worker_processes 1; worker_rlimit_nofile $descriptors;
events { worker_connections $((descriptors / 2)); }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; server_tokens off;
    $(for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/$1-$kind;"; done)
    include $work/$1.http;
}
TEXT
}

# Its port is in $origin_port.
start_origin() {
    local body
    free_port
    origin_port=$free
    body=$(printf 'x%.0s' {1..128})
    nginx_conf origin > "$work/origin.conf"
    cat > "$work/origin.http" <<TEXT
server {
    listen 127.0.0.1:$origin_port backlog=4096;
    default_type text/plain;
    location / { return 200 "$body"; }
}
TEXT
    start "$load_core" nginx -e "$work/origin.err" -c "$work/origin.conf"
    wait_for "$origin_port" "the origin"
}

# ---- a ringmain: one shard before the origin -------------------------------------------------------------------------

# Of each proxy: where it listens, the process to measure, what it calls itself; what a ringmain says of its ring.
declare -A port pids name_of driver

# start_ringmain NAME BINARY: NAME is its place in the tables above.
start_ringmain() {
    local name=$1 binary=$2 tries=0
    cat > "$work/$name.toml" <<TEXT
[runtime]
shards = 1
pin = "off"
via = "bench"
[admin]
address = ""
[[listener]]
name = "web"
address = "127.0.0.1:0"
[listener.timeouts]
keep_alive = "1h"
[[service]]
name = "bench"
domains = ["bench.test"]
backends = ["127.0.0.1:$origin_port"]
[service.pool]
idle_max = 1024
TEXT
    : > "$work/$name.log"
    taskset -c "$proxy_core" "$binary" run --config "$work/$name.toml" 2> "$work/$name.log" >> "$work/log" &
    pids[$name]=$!
    until grep -q ' ready ' "$work/$name.log"; do
        tries=$((tries + 1))
        if ((tries > 100)) || ! kill -0 "${pids[$name]}" 2> /dev/null; then
            echo "$name ($binary) does not get ready:" >&2
            cat "$work/$name.log" >&2
            exit 1
        fi
        pause 0.05
    done
    port[$name]=$(sed -n 's/.*listening.*address="\?127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/$name.log")
    wait_for "${port[$name]}" "$name"
    # "ringmain 0.1.0" and, beside it, "ringmain-against 0.1.0".
    name_of[$name]="$name $("$binary" --version | awk '{ print $2 }')"
    driver[$name]=$(sed -n 's/.* ready .*\(driver=.*\)/\1/p' "$work/$name.log")
}
