//! The keys of each table with their values as text, to be compared one by one. A field of a
//! configuration that nobody lists here does not compile.

use std::time::Duration;

use crate::config::{
    Admin, Backend, Dns, Driver, Eject, Fanout, Fields, Limits, Listener, ListenerLimits,
    ListenerTimeouts, LogConfig, LogFormat, Pin, Pool, Probe, ProbeKind, Retry, Route, Runtime,
    Service, ServiceTimeouts,
};
use crate::plan::{HashKey, Protocol, Require};
use crate::units::{format_duration, format_size};

/// A key and its value.
#[derive(Debug)]
pub(super) struct Key {
    /// Its path within the table, as in `timeouts.connect`.
    pub(super) name: String,
    pub(super) value: String,
    /// True exactly when the value is nobody's to read.
    pub(super) hidden: bool,
}

/// What has keys.
pub(super) trait Keys {
    /// All of them, always in the same order, those that make it what it is left out.
    fn keys(&self) -> Vec<Key>;
}

/// A list of keys while it grows.
#[derive(Default)]
struct List {
    table: &'static str,
    keys: Vec<Key>,
}

impl List {
    /// The keys that follow are those of `table`.
    fn table(mut self, table: &'static str) -> Self {
        self.table = table;
        self
    }

    fn push(mut self, name: &str, value: String, hidden: bool) -> Self {
        let name = match self.table {
            "" => name.to_owned(),
            table if name.is_empty() => table.to_owned(),
            table => format!("{table}.{name}"),
        };
        self.keys.push(Key {
            name,
            value,
            hidden,
        });
        self
    }

    fn key(self, name: &str, value: impl ToString) -> Self {
        self.push(name, value.to_string(), false)
    }

    fn text(self, name: &str, value: &str) -> Self {
        self.push(name, format!("{value:?}"), false)
    }

    fn time(self, name: &str, value: Duration) -> Self {
        self.push(name, format_duration(value), false)
    }

    fn size(self, name: &str, value: u64) -> Self {
        self.push(name, format_size(value), false)
    }

    fn list<T: std::fmt::Debug>(self, name: &str, values: &[T]) -> Self {
        self.push(name, format!("{values:?}"), false)
    }

    fn hidden<T: std::fmt::Debug>(self, name: &str, values: &[T]) -> Self {
        self.push(name, format!("{values:?}"), true)
    }
}

/// The keys that a process keeps for its life.
pub(super) fn fixed(runtime: &Runtime) -> Vec<Key> {
    let pin = match runtime.pin {
        Pin::Auto => "auto",
        Pin::On => "on",
        Pin::Off => "off",
    };
    let driver = match runtime.driver {
        Driver::Auto => "auto",
        Driver::IoUring => "io_uring",
        Driver::Epoll => "epoll",
    };
    let pid_file = runtime.pid_file.as_ref();
    let pid_file = pid_file.map(|path| path.display().to_string());
    let list = List::default().key("shards", runtime.shards);
    let list = list.text("pin", pin).text("driver", driver);
    list.text("pid_file", &pid_file.unwrap_or_default()).keys
}

impl Keys for Runtime {
    fn keys(&self) -> Vec<Key> {
        let Self {
            shards: _,
            pin: _,
            driver: _,
            drain_delay,
            drain_timeout,
            connections_max,
            via,
            pid_file: _,
            watch,
        } = self;
        List::default()
            .time("drain_delay", *drain_delay)
            .time("drain_timeout", *drain_timeout)
            .key("connections_max", connections_max)
            .text("via", via)
            .key("watch", watch)
            .keys
    }
}

impl Keys for Admin {
    fn keys(&self) -> Vec<Key> {
        let Self { address } = self;
        List::default().key("address", address).keys
    }
}

impl Keys for LogConfig {
    fn keys(&self) -> Vec<Key> {
        let Self { level, format, to } = self;
        let format = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::Ecs => "ecs",
        };
        let list = List::default().text("level", level).text("format", format);
        list.list("to", to).keys
    }
}

impl Keys for Dns {
    fn keys(&self) -> Vec<Key> {
        let Self {
            ttl_min,
            ttl_max,
            servers,
        } = self;
        let list = List::default().time("ttl_min", *ttl_min);
        list.time("ttl_max", *ttl_max).list("servers", servers).keys
    }
}

impl Keys for Listener {
    fn keys(&self) -> Vec<Key> {
        let Self {
            name,
            address,
            protocol,
            proxy_protocol,
            service,
            service_parameter,
            limits:
                ListenerLimits {
                    connections_max,
                    head_bytes_max,
                    trailer_bytes_max,
                    fields_max,
                    body_bytes_max,
                },
            timeouts:
                ListenerTimeouts {
                    head,
                    body_idle,
                    keep_alive,
                    send_idle,
                },
        } = self;
        let protocol = match protocol {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
        };
        List::default()
            .text("name", name)
            .key("address", address)
            .text("protocol", protocol)
            .key("proxy_protocol", proxy_protocol)
            .text("service", service)
            .text("service_parameter", service_parameter)
            .table("limits")
            .key("connections_max", connections_max)
            .size("head_bytes_max", *head_bytes_max)
            .size("trailer_bytes_max", *trailer_bytes_max)
            .key("fields_max", fields_max)
            .size("body_bytes_max", *body_bytes_max)
            .table("timeouts")
            .time("head", *head)
            .time("body_idle", *body_idle)
            .time("keep_alive", *keep_alive)
            .time("send_idle", *send_idle)
            .keys
    }
}

impl Keys for Backend {
    fn keys(&self) -> Vec<Key> {
        let Self {
            address: _,
            weight,
            backup,
            drain,
        } = self;
        let list = List::default().key("weight", weight);
        list.key("backup", backup).key("drain", drain).keys
    }
}

impl Keys for Service {
    /// Without those of its backends.
    fn keys(&self) -> Vec<Key> {
        let Self {
            name: _,
            domains,
            policy,
            hash_key,
            backends: _,
            slow_start,
            fail_open,
            backend_field,
            timeouts,
            pool,
            retry,
            probe,
            eject,
            limits,
            fanout,
            send_proxy_protocol,
            fields,
        } = self;
        let hash_key = match hash_key {
            HashKey::Client => "client".to_owned(),
            HashKey::Path => "path".to_owned(),
            HashKey::Field(name) => format!("field:{name}"),
            HashKey::Cookie(name) => format!("cookie:{name}"),
        };
        let proxy_protocol = send_proxy_protocol.map_or("off", |version| version.label());
        let list = List::default()
            .list("domains", domains)
            .text("policy", policy.label)
            .text("hash_key", &hash_key)
            .time("slow_start", *slow_start)
            .key("fail_open", fail_open)
            .text("backend_field", backend_field)
            .text("send_proxy_protocol", proxy_protocol);
        let list = with_bounds(list, *timeouts, *pool);
        let list = with_retry(list, retry);
        let list = with_probe(list, probe.as_ref());
        let list = with_eject(list, *eject);
        let list = with_limits(list, *limits);
        let list = with_fanout(list, fanout.as_ref());
        with_fields(list, fields).keys
    }
}

fn with_bounds(list: List, timeouts: ServiceTimeouts, pool: Pool) -> List {
    let ServiceTimeouts {
        connect,
        response,
        send_idle,
        receive_idle,
        until_continued,
        tunnel_idle,
        total,
    } = timeouts;
    let Pool {
        idle_max,
        idle_min,
        idle,
        connections_max,
        queue,
    } = pool;
    list.table("timeouts")
        .time("connect", connect)
        .time("response", response)
        .time("send_idle", send_idle)
        .time("receive_idle", receive_idle)
        .time("continue", until_continued)
        .time("tunnel_idle", tunnel_idle)
        .time("total", total)
        .table("pool")
        .key("idle_max", idle_max)
        .key("idle_min", idle_min)
        .time("idle", idle)
        .key("connections_max", connections_max)
        .time("queue", queue)
}

fn with_retry(list: List, retry: &Retry) -> List {
    let Retry {
        attempts_max,
        statuses,
        attempt,
        backoff,
        budget,
        body_bytes_max,
    } = retry;
    list.table("retry")
        .key("attempts_max", attempts_max)
        .list("statuses", statuses)
        .time("attempt", *attempt)
        .time("backoff", *backoff)
        .key("budget", budget)
        .size("body_bytes_max", *body_bytes_max)
}

/// Where there is none, it has no keys beside that.
fn with_probe(list: List, probe: Option<&Probe>) -> List {
    let list = list.table("probe").key("", if_there(probe.is_some()));
    let Some(probe) = probe else { return list };
    let Probe {
        kind,
        path,
        command,
        ready_path,
        statuses,
        host,
        interval,
        interval_failing,
        timeout,
        healthy_after,
        unhealthy_after,
        wait_first,
    } = probe;
    let kind = match kind {
        ProbeKind::Http => "http",
        ProbeKind::Tcp => "tcp",
        ProbeKind::Exec => "exec",
    };
    list.text("kind", kind)
        .text("path", path)
        .hidden("command", command)
        .text("ready_path", ready_path)
        .list("statuses", statuses)
        .text("host", host)
        .time("interval", *interval)
        .time("interval_failing", *interval_failing)
        .time("timeout", *timeout)
        .key("healthy_after", healthy_after)
        .key("unhealthy_after", unhealthy_after)
        .key("wait_first", wait_first)
}

fn with_eject(list: List, eject: Eject) -> List {
    let Eject {
        consecutive_faults,
        duration,
        ratio_max,
        latency_factor,
    } = eject;
    list.table("eject")
        .key("consecutive_faults", consecutive_faults)
        .time("duration", duration)
        .key("ratio_max", ratio_max)
        .key("latency_factor", latency_factor)
}

fn with_limits(list: List, limits: Limits) -> List {
    let Limits {
        client_rate,
        client_burst,
        client_concurrent,
        rate,
        concurrent,
    } = limits;
    list.table("limits")
        .key("client_rate", client_rate)
        .key("client_burst", client_burst)
        .key("client_concurrent", client_concurrent)
        .key("rate", rate)
        .key("concurrent", concurrent)
}

fn with_fanout(list: List, fanout: Option<&Fanout>) -> List {
    let list = list.table("fanout").key("", if_there(fanout.is_some()));
    let Some(fanout) = fanout else { return list };
    let Fanout {
        require,
        status,
        attempts_max,
        backoff_max,
        jitter,
        body_bytes_max,
        legs_max,
        kept_bytes_max,
        detached,
    } = fanout;
    let require = match require {
        Require::All => "all",
        Require::Quorum => "quorum",
        Require::Any => "any",
    };
    list.text("require", require)
        .key("status", status)
        .key("attempts_max", attempts_max)
        .time("backoff_max", *backoff_max)
        .time("jitter", *jitter)
        .size("body_bytes_max", *body_bytes_max)
        .key("legs_max", legs_max)
        .size("kept_bytes_max", *kept_bytes_max)
        .key("detached", detached)
}

/// Names are for everybody to read, values may be passwords.
fn with_fields(list: List, fields: &Fields) -> List {
    let Fields {
        request_set,
        request_remove,
        response_set,
        response_remove,
    } = fields;
    list.table("fields")
        .hidden("request_set", request_set)
        .list("request_remove", request_remove)
        .hidden("response_set", response_set)
        .list("response_remove", response_remove)
}

impl Keys for Route {
    /// Where it leads.
    fn keys(&self) -> Vec<Key> {
        let list = List::default().text("service", &self.service);
        let weights = self.weights.iter();
        let weights = weights.map(|(name, weight)| format!("{name} {weight}"));
        let weights: Vec<String> = weights.collect();
        list.key("weights", format_args!("{{{}}}", weights.join(", ")))
            .keys
    }
}

/// What `route` matches, without the values of fields and parameters.
pub(super) fn route(route: &Route) -> String {
    let any = |text: &str, word: &str| if text.is_empty() { word } else { text }.to_owned();
    let mut words = vec![any(&route.domain, "*"), any(&route.path, "/*")];
    if !route.methods.is_empty() {
        words.push(route.methods.join(","));
    }
    for (kind, pairs) in [("field", &route.fields), ("parameter", &route.query)] {
        words.extend(pairs.iter().map(|(name, _)| format!("with {kind} {name}")));
    }
    words.join(" ")
}

const fn if_there(is_there: bool) -> &'static str {
    if is_there { "present" } else { "absent" }
}
