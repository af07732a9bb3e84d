# shellcheck shell=bash
# What scripts/bench, scripts/traffic and scripts/flamegraph share: checked options, tools, a place to work and its end, the
# origin, a ringmain under load, rounds of measurements and what they come to.
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

# nginx's part for TCP, a package of its own.
nginx_stream=/usr/lib/nginx/modules/ngx_stream_module.so

# need TOOL...: ends with what to type if one is missing.
need() {
    local tool packages="" crates="" services="" hints=""
    for tool; do
        [[ $tool == /* && -e $tool ]] && continue
        command -v "$tool" > /dev/null && continue
        case $tool in
            taskset) packages+=" util-linux" ;;
            perf) packages+=" linux-perf" ;;
            nginx | haproxy) packages+=" $tool" services+=" $tool" ;;
            "$nginx_stream") packages+=" libnginx-mod-stream" ;;
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
wrk_options=() wrk_path=/
wrk_load() {
    load "$work/wrk" wrk --threads 1 --connections "$2" --duration "$3s" --timeout 10s --latency \
        "${wrk_options[@]}" -H "Host: bench.test" "http://127.0.0.1:${port[$1]}$wrk_path"
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

# start_origin ADDRESS: it listens there, on a port that is in $origin_port.
start_origin() {
    free_port
    origin_port=$free
    origin_conf origin "$1:$origin_port"
    start "$load_core" nginx -e "$work/origin.err" -c "$work/origin.conf"
    wait_for "$origin_port" "the origin"
}

# origin_conf NAME ADDRESS: an nginx that answers there, with a mebibyte where that is asked for.
origin_conf() {
    local body
    head -c 1048576 /dev/zero > "$work/mebibyte"
    # Its worker may be another user, who has to get there.
    chmod a+rx "$work"
    body=$(printf 'x%.0s' {1..128})
    nginx_conf "$1" > "$work/$1.conf"
    cat > "$work/$1.http" <<TEXT
server {
    listen $2 backlog=4096;
    default_type text/plain;
    location / { return 200 "$body"; }
    location = /mebibyte { alias $work/mebibyte; sendfile on; }
}
TEXT
}

# ---- a ringmain: one shard -------------------------------------------------------------------------------------------

# Of each proxy: where it listens, the process to measure, what it calls itself; what a ringmain says of its ring.
declare -A port pids name_of driver

# start_ringmain NAME BINARY [KEYS]: NAME is its place in the tables above; KEYS are those of its service, the origin by itself.
# $listener_keys are those of its listener.
listener_keys=""
start_ringmain() {
    local name=$1 binary=$2 tries=0
    local keys=${3-backends = [\"127.0.0.1:$origin_port\"]}
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
$listener_keys
[listener.timeouts]
keep_alive = "1h"
[[service]]
name = "bench"
domains = ["bench.test"]
$keys
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

# ---- an nginx: one worker that does the same work --------------------------------------------------------------------

# start_nginx NAME SERVERS: NAME is its place in the tables above; SERVERS are the lines of its upstream.
start_nginx() {
    local name=$1
    free_port
    port[$name]=$free
    nginx_conf "$name" > "$work/$name.conf"
    cat > "$work/$name.http" <<TEXT
upstream origin { $2 keepalive 1024; keepalive_requests 1000000000; }
server {
    listen 127.0.0.1:${port[$name]} backlog=4096;
    server_name bench.test;
    location / {
        proxy_pass http://origin;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host \$http_host;
        proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto \$scheme;
        proxy_set_header X-Forwarded-Host \$http_host;
        proxy_set_header X-Request-Id \$request_id;
        proxy_set_header Via "1.1 bench";
        add_header Via "1.1 bench";
    }
}
TEXT
    start "$proxy_core" nginx -e "$work/$name.err" -c "$work/$name.conf"
    wait_for "${port[$name]}" "$name"
    # The master does nothing; its one worker does the work.
    local children
    children=$(< "/proc/$pid/task/$pid/children")
    pids[$name]=${children%% *}
    name_of[$name]=$(nginx -v 2>&1 | sed 's|.*nginx/|nginx |')
}

# ---- what a request costs --------------------------------------------------------------------------------------------

# proc(5): utime and stime are fields 14 and 15 of stat, in ticks; the name before them may hold blanks.
cpu_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12, $13 }'; }
tick_us=$((1000000 / $(getconf CLK_TCK)))

# measure_cost PROXY SECONDS, over $count connections: in $measured,
# "cpu_us user_us system_us requests_per_second p50_us p99_us errors".
measure_cost() {
    local before after
    before=$(cpu_ticks "${pids[$1]}")
    wrk_load "$1" "$count" "$2"
    after=$(cpu_ticks "${pids[$1]}")
    read_wrk "$before" "$after"
}

# read_wrk BEFORE AFTER: what wrk has said last, and the ticks that it took, as $measured.
read_wrk() {
    measured=$(awk -v before="$1" -v after="$2" -v tick="$tick_us" '
        function us(text) {
            if (text ~ /us$/) return text + 0
            if (text ~ /ms$/) return text * 1000
            return text * 1000000
        }
        $1 == "50%" { p50 = us($2) }
        $1 == "99%" { p99 = us($2) }
        $2 == "requests" && $3 == "in" { requests = $1 }
        $1 == "Requests/sec:" { rate = $2 }
        /Socket errors:/ { gsub(",", ""); errors += $4 + $6 + $8 + $10 }
        /Non-2xx or 3xx responses:/ { errors += $NF }
        END {
            split(before, b); split(after, a)
            if (requests == 0) { errors += 1; requests = 1 }
            user = (a[1] - b[1]) * tick / requests
            kernel = (a[2] - b[2]) * tick / requests
            printf "%.3f %.3f %.3f %.0f %.0f %.0f %d\n", user + kernel, user, kernel, rate, p50, p99, errors
        }' "$work/wrk")
}

# ---- rounds, and what they come to -----------------------------------------------------------------------------------

# Says a line of the result.
say() {
    note ""
    echo "$*"
    if [[ $output ]]; then echo "$*" >> "$output"; fi
}

total_errors=0

# series WHAT MEASURE NAME...: warms each of them up for a second, then measures them in interleaved rounds. Each measurement is
# a row "round name", six figures and the errors.
series() {
    local what=$1 measure=$2 round turn name names order
    shift 2
    names=("$@")
    : > "$work/rows"
    for name in "${names[@]}"; do
        note "$what: warming up $name"
        "$measure" "$name" 1
    done
    for ((round = 1; round <= rounds; round++)); do
        # Every other round goes the other way: whoever is measured later gains or loses by it as often as not.
        order=()
        for ((turn = 0; turn < ${#names[@]}; turn++)); do
            if ((round % 2)); then order+=("${names[turn]}"); else order=("${names[turn]}" "${order[@]}"); fi
        done
        for name in "${order[@]}"; do
            note "$what: round $round of $rounds, $name"
            "$measure" "$name" "$seconds"
            echo "$round $name $measured" >> "$work/rows"
        done
    done
}

# figures NAME COLUMN: one a round.
figures() { awk -v name="$1" -v column="$2" '$2 == name { print $column }' "$work/rows"; }

# median DECIMALS: of the numbers on standard input.
median() {
    sort -g | awk -v decimals="$1" '{ v[NR] = $1 }
        END { printf "%.*f\n", decimals, NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# ratios OURS THEIRS COLUMN: of the two in the same round, one a round.
ratios() {
    awk -v ours="$1" -v theirs="$2" -v column="$3" '
        $2 == ours { our[$1] = $column }
        $2 == theirs { their[$1] = $column; last = $1 }
        END {
            for (round = 1; round <= last; round++)
                if (their[round]) printf "%.3f\n", our[round] / their[round]
        }' "$work/rows"
}

# table TITLES FORMAT NAME...: the rows of each and their medians, then the errors, which count for the end of this script.
table() {
    local titles=$1 format=$2 name line medians column errors
    shift 2
    say ""
    say "| Proxy | Round | $titles | errors |"
    say "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name; do
        medians="median $name"
        for column in {3..8}; do medians+=" $(figures "$name" "$column" | median 3)"; done
        medians+=" $(figures "$name" 9 | awk '{ sum += $1 } END { print sum }')"
        while IFS= read -r line; do say "$line"; done < <(
            awk -v name="${name_of[$name]}" -v format="| %s | %s | $format | %d |\n" '
                $1 == "median" { name = "**" name "**" }
                { printf format, name, $1, $3, $4, $5, $6, $7, $8, $9 }' \
                <(awk -v name="$name" '$2 == name' "$work/rows" | sort -n) <(echo "$medians")
        )
    done
    errors=$(awk '{ sum += $9 } END { print sum + 0 }' "$work/rows")
    total_errors=$((total_errors + errors))
    say ""
    say "Errors over the series: $errors"
}

# ---- the tail --------------------------------------------------------------------------------------------------------

# At a fixed rate the number of connections is no load, but all of them are opened in the measured time. So more than are under
# way at once, and fewer than one in a thousand of the 20,000 requests that are usual, so that connects stay out of p99.9.
tail_connections=16

# measure_tail PROXY SECONDS: in $measured, "p50_us p90_us p99_us p99.9_us max_us requests_per_second errors". A number of
# requests and not a time: with a time oha gives up what is under way at its end, the slowest ones first of all.
measure_tail() {
    local requests=$((rate * $2))
    load "$work/oha" oha --no-tui --output-format json --latency-correction -q "$rate" -n "$requests" \
        -c "$tail_connections" -t 10s -H "Host: bench.test" "http://127.0.0.1:${port[$1]}/"
    # One key a line; a section is a key whose value goes on below it. Times are seconds.
    measured=$(awk -v requests="$requests" '
        { gsub(/[",:]/, " ") }
        $2 == "{" { section = $1; next }
        section == "summary" && $1 == "slowest" { max = $2 }
        section == "summary" && $1 == "requestsPerSec" { rate = $2 }
        section == "latencyPercentiles" { at[$1] = $2 }
        section == "statusCodeDistribution" && $1 ~ /^2/ { good += $2 }
        END {
            if (!("p99.9" in at)) exit 1
            printf "%.0f %.0f %.0f %.0f %.0f %.0f %d\n", at["p50"] * 1e6, at["p90"] * 1e6, at["p99"] * 1e6,
                at["p99.9"] * 1e6, max * 1e6, rate, requests - good
        }' "$work/oha") || {
        echo "oha says nothing of its percentiles:" >&2
        cat "$work/oha" >&2
        exit 1
    }
}
