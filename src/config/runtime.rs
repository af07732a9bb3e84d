//! What holds for the whole process: `[runtime]`, `[admin]`, `[log]`, `[dns]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::file::Table;
use super::value::text;
use super::{DAY, HOUR, MILLISECOND, SECOND, words};

/// `[runtime]`: threads, their CPUs, and how the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// How many shards; 0 is one per CPU that the process may use.
    pub shards: u32,
    /// Whether each shard is bound to one CPU.
    pub pin: Pin,
    /// What waits for the kernel.
    pub driver: Driver,
    /// How long listeners go on accepting when the process is to end.
    pub drain_delay: Duration,
    /// How long running exchanges may take to finish after that.
    pub drain_timeout: Duration,
    /// Clients of the whole process; 0 is as many as RLIMIT_NOFILE allows.
    pub connections_max: u32,
    /// The name in Via; empty is one that is drawn at the start.
    pub via: String,
    /// Where the number of the process is written; `None` is nowhere.
    pub pid_file: Option<PathBuf>,
    /// Whether a change of the file is loaded by itself.
    pub watch: bool,
}

/// `[dns]`: how names of backends are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// How long an answer is kept at least.
    pub ttl_min: Duration,
    /// How long it is kept at most.
    pub ttl_max: Duration,
    /// Who is asked; empty is whom resolv.conf names.
    pub servers: Vec<SocketAddr>,
}

/// Whether each shard is bound to one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Where there is a CPU of the mask for every shard, and no CPU quota.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What waits for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where it works, epoll elsewhere.
    Auto,
    /// io_uring, or the start fails.
    IoUring,
    /// epoll.
    Epoll,
}

/// `[admin]`: where the admin API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: AdminAddress,
}

/// An address of the admin API: `""`, `IP:PORT` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// There is none.
    Off,
    /// TCP. Port 0 has the kernel choose one.
    Tcp(SocketAddr),
    /// A socket in the file system, by its absolute path.
    Unix(PathBuf),
}

/// Where the admin API answers when nothing else is said.
const ADMIN_ADDRESS: &str = "127.0.0.1:9901";

/// unix(7): a path and its zero byte fit 108 bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Default for AdminAddress {
    fn default() -> Self {
        ADMIN_ADDRESS.parse().expect("the default is an address")
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let path = text
            .strip_prefix("unix:")
            .filter(|path| path.starts_with('/'));
        let Some(path) = path.filter(|path| !path.contains('\0')) else {
            return Err(format!(
                "{text:?} is not an address; allowed: \"\", IP:PORT, as in \"127.0.0.1:9901\", or \
                 \"unix:/path\""
            ));
        };
        if SOCKET_PATH_BYTES_MAX < path.len() {
            return Err(format!(
                "{text:?} has a path of {} bytes; allowed: up to {SOCKET_PATH_BYTES_MAX}",
                path.len()
            ));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[log]`: the process log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or a filter such as `warn,ringmain=debug`.
    pub level: String,
    /// How a record is written.
    pub format: LogFormat,
    /// Where records go: `stderr`, `stdout`, or a file's path each; at least one.
    pub to: Vec<String>,
}

/// How a log record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line with `key=value`.
    Text,
    /// A JSON object a line.
    Json,
    /// A JSON object a line, with the names of the Elastic Common Schema.
    Ecs,
}

/// The formats by their words.
pub(super) const LOG_FORMATS: [(&str, LogFormat); 3] = [
    ("text", LogFormat::Text),
    ("json", LogFormat::Json),
    ("ecs", LogFormat::Ecs),
];

const PINS: [(&str, Pin); 3] = [("auto", Pin::Auto), ("on", Pin::On), ("off", Pin::Off)];

const DRIVERS: [(&str, Driver); 3] = [
    ("auto", Driver::Auto),
    ("io_uring", Driver::IoUring),
    ("epoll", Driver::Epoll),
];

pub(super) fn runtime(table: &mut Table<'_, '_>) -> Runtime {
    let pid_file = table.text("pid_file", "", words::file_path);
    Runtime {
        shards: table.integer("shards", "0", 0..=1_024),
        pin: table.choice("pin", "auto", &PINS),
        driver: table.choice("driver", "auto", &DRIVERS),
        drain_delay: table.duration("drain_delay", "0s", Duration::ZERO..=HOUR),
        drain_timeout: table.duration("drain_timeout", "30s", Duration::ZERO..=DAY),
        connections_max: table.integer("connections_max", "0", 0..=10_000_000),
        via: table.text("via", "", words::via),
        pid_file: (!pid_file.is_empty()).then(|| pid_file.into()),
        watch: table.flag("watch", true),
    }
}

pub(super) fn admin(table: &mut Table<'_, '_>) -> Admin {
    Admin {
        address: table.value(
            "address",
            &format!("{ADMIN_ADDRESS:?}"),
            text(str::parse::<AdminAddress>),
        ),
    }
}

pub(super) fn log(table: &mut Table<'_, '_>) -> LogConfig {
    table.table("access", access_log);
    let config = LogConfig {
        level: table.text("level", "info", words::log_filter),
        format: table.choice("format", "text", &LOG_FORMATS),
        to: table.list("to", r#"["stderr"]"#, text(words::log_target)),
    };
    if config.to.is_empty() {
        table.wrong(
            "to",
            "is empty; allowed: stderr, stdout, paths (level = \"off\" is silent)".into(),
        );
    }
    config
}

/// `[log.access]`: its feature is not built yet, so nothing of it is kept.
fn access_log(table: &mut Table<'_, '_>) {
    table.text("to", "off", words::log_target);
    table.choice("format", "text", &LOG_FORMATS);
    table.duration("duration_min", "0ms", Duration::ZERO..=HOUR);
    table.number("ratio", "1.0", 0.0..=1.0);
}

pub(super) fn dns(table: &mut Table<'_, '_>) -> Dns {
    let dns = Dns {
        ttl_min: table.duration("ttl_min", "1s", 100 * MILLISECOND..=DAY),
        ttl_max: table.duration("ttl_max", "5m", SECOND..=DAY),
        servers: table.list("servers", "[]", text(words::dns_server)),
    };
    if dns.ttl_max < dns.ttl_min {
        table.wrong("ttl_max", "is below ttl_min".into());
    }
    dns
}
