//! What the operator wrote, checked: a [`Config`] cannot exist invalid.
//!
//! `file.rs` alone reads TOML; each section's file holds its type and its keys with their defaults
//! and ranges, all of which `config.toml` at the repository's root shows. `unsupported.rs` lists
//! what is refused because its feature is not built yet.

mod errors;
mod file;
mod findings;
mod listener;
mod route;
mod runtime;
mod service;
mod unsupported;
mod value;
mod warnings;
mod words;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use errors::Finding;
use file::{Table, document};
use findings::Findings;

pub use errors::{ConfigError, ConfigErrors};
pub use findings::{KnownKey, nearest};
pub use listener::{Listener, ListenerLimits, ListenerTimeouts};
pub use route::Route;
pub use runtime::{Admin, AdminAddress, Dns, Driver, LogConfig, LogFormat, Pin, Runtime};
pub use service::{
    Backend, BackendAddress, Eject, Fanout, Fields, Limits, Pool, Probe, ProbeKind, Retry, Service,
    ServiceTimeouts,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The most bytes that a configuration file may have; 10,000 services with 20 backends each take
/// less.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where a configuration is looked for when neither the command line nor the environment names it.
const PLACES: [&str; 2] = ["config.toml", "/etc/ringmain/config.toml"];

/// A configuration that breaks no rule.
///
/// Only [`parse`], [`load`] and [`Config::single`] make one. What names refer to exists: `expect`
/// may rely on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    runtime: Runtime,
    admin: Admin,
    log: LogConfig,
    dns: Dns,
    listeners: Vec<Listener>,
    services: Vec<Service>,
    routes: Vec<Route>,
}

/// The configuration that `text` holds; errors call it `name`.
///
/// # Errors
/// Every one of the text, each with its place.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    let mut findings = Findings::new(text);
    let config = document(&mut findings, whole);
    let findings = findings.finish(keys);
    match config {
        Some(config) if findings.is_empty() => Ok(config),
        _ => Err(ConfigErrors::new(name, text, findings)),
    }
}

/// The configuration in the file at `path`.
///
/// # Errors
/// When the file cannot be read, is over [`FILE_BYTES_MAX`] or not UTF-8; else every error of its
/// text.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let text = read(path).map_err(|error| unreadable(path, &error))?;
    parse(&path.display().to_string(), &text)
}

/// What is said of a file that could not be read.
pub fn unreadable(path: &Path, error: &io::Error) -> ConfigErrors {
    let name = path.display().to_string();
    let message = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; name one with --config FILE or RINGMAIN_CONFIG=FILE, or do \
             without: ringmain run --listen 127.0.0.1:8080 --backend http://127.0.0.1:9090"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("this user may not read it; try: chmod a+r {name}")
        }
        _ => error.to_string(),
    };
    ConfigErrors::unreadable(&name, message)
}

/// The file to load: `explicit`, else what RINGMAIN_CONFIG names, else `./config.toml`, else
/// `/etc/ringmain/config.toml`.
///
/// The file need not exist: [`load`] says so. `environment` looks a variable up.
pub fn find(explicit: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(path) = explicit {
        return path.into();
    }
    if let Some(path) = environment("RINGMAIN_CONFIG").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let [here, system] = PLACES.map(PathBuf::from);
    if !here.exists() && system.exists() {
        system
    } else {
        here
    }
}

/// Every key that a configuration may hold, with its default.
pub fn keys() -> Vec<KnownKey> {
    // One of each repeated table, so that its keys are asked for; what is wrong with them does not
    // matter.
    const ONE_OF_EACH: &str = "[[listener]]\n[[service]]\nbackends = [{ }]\n[[route]]\n";
    let mut findings = Findings::that_note_keys(ONE_OF_EACH);
    document(&mut findings, whole).expect("it is TOML");
    findings.into_known()
}

fn whole(table: &mut Table<'_, '_>) -> Config {
    let config = Config {
        runtime: table.table("runtime", runtime::runtime),
        admin: table.table("admin", runtime::admin),
        log: table.table("log", runtime::log),
        dns: table.table("dns", runtime::dns),
        listeners: table.tables("listener", listener::listener),
        services: table.tables("service", service::service),
        routes: table.tables("route", route::route),
    };
    if config.listeners.is_empty() {
        table.wrong("listener", "is missing: at least one [[listener]]".into());
    }
    config
}

/// The text of the file at `path`.
///
/// # Errors
/// When the file cannot be read, is over [`FILE_BYTES_MAX`] or not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed shows that there are more.
    let read = File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if FILE_BYTES_MAX < read as u64 {
        return Err(io::Error::other(format!(
            "it is over the most, {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

impl Config {
    /// One listener and one service that takes all requests, as `ringmain run --listen ADDR
    /// --backend URL` asks for. A backend is `http://IP:PORT` or `IP:PORT`; `policy` as in
    /// `[[service]]`, `admin` as in `[admin] address`.
    ///
    /// # Errors
    /// As [`parse`] has them, in a text made of the arguments.
    pub fn single(
        listen: &str,
        backends: &[String],
        policy: Option<&str>,
        admin: Option<&str>,
    ) -> Result<Self, ConfigErrors> {
        let quote = |text: &str| toml::Value::from(text).to_string();
        let address = |url: &String| {
            let address = url.strip_prefix("http://").unwrap_or(url);
            quote(address.strip_suffix('/').unwrap_or(address))
        };
        let backends: Vec<String> = backends.iter().map(address).collect();
        let admin = admin.map_or_else(String::new, |admin| {
            format!("[admin]\naddress = {}\n\n", quote(admin))
        });
        let text = format!(
            "{admin}[[listener]]\nname = \"web\"\naddress = {}\nservice = \"service\"\n\n\
             [[service]]\nname = \"service\"\nbackends = [{}]\npolicy = {}\n",
            quote(listen),
            backends.join(", "),
            quote(policy.unwrap_or("random")),
        );
        parse("command line", &text)
    }

    /// This configuration, with LOG_LEVEL (or RUST_LOG), LOG_FORMAT and PROBE_INTERVAL (which is of
    /// every service that is probed) in place of what the file says. `environment` looks a variable
    /// up; empty ones count as absent.
    ///
    /// # Errors
    /// When a variable holds what its key does not take.
    pub fn with_environment(
        mut self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let find = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = environment(name).filter(|value| !value.is_empty())?;
                Some((*name, value))
            })
        };
        if let Some((name, level)) = find(&["LOG_LEVEL", "RUST_LOG"]) {
            self.log.level =
                words::log_filter(&level).map_err(|message| variable(name, &level, message))?;
        }
        if let Some((name, format)) = find(&["LOG_FORMAT"]) {
            let found = runtime::LOG_FORMATS
                .iter()
                .find(|(word, _)| *word == format);
            let Some((_, found)) = found else {
                let message = format!("{format:?} is not known; allowed: text, json, ecs");
                return Err(variable(name, &format, message));
            };
            self.log.format = *found;
        }
        if let Some((name, written)) = find(&["PROBE_INTERVAL"]) {
            let interval = service::probe_interval(&written)
                .map_err(|message| variable(name, &written, message))?;
            let probes = self.services.iter_mut();
            for probe in probes.filter_map(|service| service.probe.as_mut()) {
                probe.interval = interval;
            }
        }
        Ok(self)
    }

    /// This configuration with what a process keeps for its life, as `last` has it, whose process
    /// runs; and the keys of `[runtime]` that it would have otherwise.
    pub fn in_process_of(mut self, last: &Self) -> (Self, Vec<&'static str>) {
        let (own, kept) = (&mut self.runtime, &last.runtime);
        let others = [
            ("shards", own.shards != kept.shards),
            ("pin", own.pin != kept.pin),
            ("driver", own.driver != kept.driver),
            ("pid_file", own.pid_file != kept.pid_file),
        ];
        own.shards = kept.shards;
        own.pin = kept.pin;
        own.driver = kept.driver;
        own.pid_file.clone_from(&kept.pid_file);
        let others = others.into_iter().filter(|(_, differs)| *differs);
        (self, others.map(|(key, _)| key).collect())
    }

    /// `[runtime]`.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// `[admin]`.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// `[log]`.
    pub fn log(&self) -> &LogConfig {
        &self.log
    }

    /// `[dns]`.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Every `[[listener]]`, in the order of the file; at least one.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Every `[[service]]`, in the order of the file.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Every `[[route]]`, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// The error of the variable `name`, whose value is all there is to show.
fn variable(name: &str, value: &str, message: String) -> ConfigErrors {
    let text = format!("{name}={value}");
    let span = name.len() + 1..text.len();
    ConfigErrors::new(
        "environment",
        &text,
        vec![Finding {
            span,
            key: name.into(),
            message,
        }],
    )
}
