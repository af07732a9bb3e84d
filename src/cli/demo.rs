//! `ringmain demo`: the proxy and three dummy backends in one process, to see it work before a file
//! is written.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args as ClapArgs;

use crate::boot;
use crate::config::{self, AdminAddress, Config};

use super::backend::{self, Conduct};
use super::{Failure, print, run};

/// How many backends the proxy chooses from.
const BACKENDS: usize = 3;

/// Where the proxy listens when nothing else is said and nobody else is there.
const PORT: u16 = 8080;

/// Where the admin API answers when nobody else is there.
const ADMIN_PORT: u16 = 9901;

/// `ringmain demo`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  ringmain demo --port 8000")]
pub(super) struct Args {
    /// The proxy's port on 127.0.0.1 [default: 8080, or a free one where that is taken].
    #[arg(long, value_name = "P")]
    port: Option<u16>,
}

/// Runs both until it is interrupted.
pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let backends = start_backends()?;
    let port = args.port.unwrap_or_else(|| free_port(PORT));
    let config = configure(port, free_port(ADMIN_PORT), &backends)?;
    let log = run::install_log(&config)?;
    let mut outcome = Ok(());
    let end = boot::run(&config, None, boot::Options::default(), &mut |addresses| {
        outcome = print(&introduction(addresses, &backends, args.port));
    });
    log.flush();
    outcome.and_then(|()| run::end_of(end))
}

/// Starts the backends, each on a free port and a thread of its own.
fn start_backends() -> Result<Vec<SocketAddr>, Failure> {
    let conduct = Arc::new(Conduct::quiet());
    let mut addresses = Vec::with_capacity(BACKENDS);
    for _ in 0..BACKENDS {
        let listeners = vec![backend::bind((Ipv4Addr::LOCALHOST, 0).into(), false)?];
        addresses.extend(backend::local_addresses(&listeners)?);
        backend::start(listeners, Arc::clone(&conduct))?;
    }
    Ok(addresses)
}

/// `port` on the loopback interface, or, where that is taken, 0 for any free one.
fn free_port(port: u16) -> u16 {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => port,
        Err(_) => 0,
    }
}

/// The built-in configuration; LOG_LEVEL and LOG_FORMAT hold here as everywhere.
fn configure(port: u16, admin: u16, backends: &[SocketAddr]) -> Result<Config, Failure> {
    config::parse("demo", &config_text(port, admin, backends))
        .and_then(|config| config.with_environment(|name| env::var(name).ok()))
        .map_err(|errors| Failure::of_configuration(&errors))
}

fn config_text(port: u16, admin: u16, backends: &[SocketAddr]) -> String {
    let backends: Vec<_> = backends
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    format!(
        "[log]\nlevel = \"warn\"\n\n\
         [admin]\naddress = \"127.0.0.1:{admin}\"\n\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:{port}\"\n\n\
         [[service]]\nname = \"demo\"\ndomains = [\"localhost\", \"127.0.0.1\"]\nbackends = [{}]\n",
        backends.join(", ")
    )
}

/// What there is, and what to type. `asked` is the port that was asked for.
fn introduction(
    addresses: &boot::Addresses,
    backends: &[SocketAddr],
    asked: Option<u16>,
) -> String {
    let (_, proxy) = &addresses.listeners[0];
    let elsewhere = match asked {
        None if proxy.port() != PORT => "   (8080 is taken)",
        _ => "",
    };
    let backends: Vec<_> = backends.iter().map(ToString::to_string).collect();
    let process = std::process::id();
    let report = match &addresses.admin {
        Some(AdminAddress::Tcp(admin)) if admin.port() == ADMIN_PORT => "ringmain report".into(),
        Some(admin) => format!("ringmain report --admin {admin}"),
        None => format!("kill -USR1 {process}"),
    };
    format!(
        "A proxy and {BACKENDS} dummy backends run in this process.\n\n  \
         proxy     http://{proxy}/{elsewhere}\n  \
         backends  {}\n\n\
         Type in another terminal:\n  \
         curl -i http://{proxy}/\n  \
         curl -i -d '{{\"hello\":\"ring\"}}' http://{proxy}/reflect\n  \
         {report}      # where the time went\n\n\
         Ctrl-C ends it.\n",
        backends.join("  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_valid() {
        let backends: Vec<SocketAddr> = ["127.0.0.1:1001", "127.0.0.1:1002"]
            .map(|text| text.parse().expect("valid"))
            .into();
        for port in [0, PORT] {
            let text = config_text(port, 0, &backends);
            let config = config::parse("demo", &text).unwrap_or_else(|errors| panic!("{errors}"));
            let written: Vec<_> = config.services()[0]
                .backends
                .iter()
                .filter_map(|backend| backend.address.socket())
                .collect();
            assert_eq!(written, backends);
        }
    }

    #[test]
    fn another_port_than_8080_is_explained_unless_it_was_asked_for() {
        let check = |port, asked, explained| {
            let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let addresses = boot::Addresses {
                listeners: vec![("web".to_owned(), proxy)],
                admin: Some(AdminAddress::Tcp((Ipv4Addr::LOCALHOST, port).into())),
            };
            let text = introduction(&addresses, &[], asked);
            assert!(
                text.contains(&format!("ringmain report --admin 127.0.0.1:{port} ")),
                "{text}"
            );
            assert_eq!(text.contains("8080 is taken"), explained, "{text}");
            assert!(
                text.contains(&format!("curl -i http://{proxy}/\n")),
                "{text}"
            );
        };
        check(PORT, None, false);
        check(43_121, None, true);
        check(43_121, Some(0), false);
    }
}
