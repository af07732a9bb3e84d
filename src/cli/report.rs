//! `ringmain report`: asks a running instance, over its admin API, where the time went.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::config::{self, AdminAddress};
use crate::fd;
use crate::tally::Phase;
use crate::tally::report::Format;

use super::{Failure, print};

/// How long a connect may take; then each wait for a part of the answer, which comes within a
/// second.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);

/// `ringmain report`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  ringmain report\n  \
    ringmain report --admin 127.0.0.1:9901 --service my-service --format json\n  \
    ringmain report --service my-service --phase own --format hgrm > own.hgrm\n  \
    ringmain report --admin unix:/run/ringmain.sock\n\n\
    Formats:\n  text   tables for people\n  json   the same for programs, in microseconds\n  \
    hgrm   one distribution, for the plotters of HdrHistogram\n  \
    hlog   every histogram, tagged, for its HistogramLogProcessor (-outputValueUnitRatio 10)")]
pub(super) struct Args {
    /// Where the admin API answers: IP:PORT or unix:/path [default: the configuration's, else
    /// 127.0.0.1:9901].
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The configuration that says where, as in ringmain run.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// Since when: all is since the start.
    #[arg(long, value_name = "W", default_value = "all")]
    window: String,
    /// How it is written.
    #[arg(long, value_name = "F", default_value = "text")]
    #[arg(value_parser = Format::ALL.map(Format::label))]
    format: String,
    /// Only this service.
    #[arg(long, value_name = "S")]
    service: Option<String>,
    /// Only this phase.
    #[arg(long, value_name = "P", value_parser = Phase::ALL.map(Phase::label))]
    phase: Option<String>,
    /// Only this endpoint, by its address.
    #[arg(long, value_name = "ADDR")]
    endpoint: Option<String>,
}

/// Prints the answer, or says why there is none.
pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let address = address(args)?;
    let answer = ask(&address, &target(args)).map_err(|error| unanswered(&address, &error))?;
    match answer.status {
        _ if !answer.is_ours => Err(foreign(&address)),
        200 => print(&answer.body).map(|()| ExitCode::SUCCESS),
        400 => Err(Failure::of_usage(answer.body)),
        status => Err(Failure::at_run_time(format!(
            "{address} answers {status}: {}",
            answer.body.trim_end()
        ))),
    }
}

/// What was typed, else what the configuration says, else the default.
fn address(args: &Args) -> Result<AdminAddress, Failure> {
    if let Some(typed) = &args.admin {
        let address = typed.strip_prefix("http://").unwrap_or(typed);
        let address = address.trim_end_matches('/');
        let address = match address.strip_prefix("localhost:") {
            Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            None => address.to_owned(),
        };
        let parsed = address.parse().map_err(|error| format!("--admin: {error}"));
        return parsed.map_err(Failure::of_usage).and_then(reachable);
    }
    let environment = |name: &str| env::var(name).ok();
    let path = config::find(args.config.as_deref(), environment);
    if args.config.is_none() && environment("RINGMAIN_CONFIG").is_none() && !path.exists() {
        return Ok(AdminAddress::default());
    }
    let config = config::load(&path).map_err(|errors| {
        Failure::of_configuration(&errors).because(
            "the configuration says where to ask, and it cannot be read",
            "ringmain report --admin 127.0.0.1:9901",
        )
    })?;
    reachable(config.admin().address.clone())
}

/// An address that says where to go.
fn reachable(address: AdminAddress) -> Result<AdminAddress, Failure> {
    let (what, cause) = match &address {
        AdminAddress::Off => (
            "there is no admin API to ask",
            "its address is \"\", so it is switched off",
        ),
        AdminAddress::Tcp(address) if address.port() == 0 => (
            "port 0 does not say where to ask",
            "the kernel chose the port when ringmain started; its log has it",
        ),
        _ => return Ok(address),
    };
    let advice = "ringmain report --admin 127.0.0.1:9901    (kill -USR1 PID works without it)";
    Err(Failure::of_usage(what).because(cause, advice))
}

/// The path and the query.
fn target(args: &Args) -> String {
    let window = Some(&args.window);
    let format = Some(&args.format);
    let parameters = [
        ("window", window),
        ("format", format),
        ("service", args.service.as_ref()),
        ("phase", args.phase.as_ref()),
        ("endpoint", args.endpoint.as_ref()),
    ];
    let given = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", percent_encoded(value?))));
    let given: Vec<_> = given.collect();
    format!("/report?{}", given.join("&"))
}

/// RFC 3986 section 2.1: everything but the unreserved.
fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

struct Answer {
    status: u16,
    /// True exactly when a ringmain has signed it.
    is_ours: bool,
    body: String,
}

fn ask(address: &AdminAddress, target: &str) -> io::Result<Answer> {
    match address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, CONNECT)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            converse(stream, &address.to_string(), target)
        }
        AdminAddress::Unix(path) => {
            let stream = fd::connect_at(path, CONNECT)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            converse(stream, "localhost", target)
        }
        AdminAddress::Off => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// One request and its answer.
fn converse(mut stream: impl Read + Write, host: &str, target: &str) -> io::Result<Answer> {
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut part)?;
        bytes.extend(&part[..read]);
        if let Some(answer) = parse(&bytes) {
            return Ok(answer);
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The answer in `bytes`, once it is whole. The admin API's have a Content-Length.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let mut status_line = lines.next()?.split(' ');
    status_line.next()?.strip_prefix("HTTP/1.")?;
    let status = status_line.next()?.parse().ok()?;
    let field = |wanted: &str| {
        let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(value.trim())
    };
    let length: usize = field("content-length")?.parse().ok()?;
    if body.len() < length {
        return None;
    }
    Some(Answer {
        status,
        is_ours: field("server") == Some("ringmain"),
        body: String::from_utf8_lossy(&body[..length]).into_owned(),
    })
}

fn unanswered(address: &AdminAddress, error: &io::Error) -> Failure {
    let failure = Failure::at_run_time(format!("{address}: {error}"));
    // What the kernel says of a wait that is over depends on the call.
    let in_vain = Failure::at_run_time(format!("{address}: no answer in time"));
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => failure.because(
            "no ringmain runs, or its admin API answers elsewhere; its log says where",
            "ringmain report --admin ADDR    (without an admin API: kill -USR1 PID)",
        ),
        io::ErrorKind::PermissionDenied => failure.because(
            "the socket belongs to the user that ringmain runs as",
            "sudo ringmain report",
        ),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => in_vain.because(
            "the process is stopped, or what listens there is no ringmain",
            "ss -ltnp    (to see what it is)",
        ),
        io::ErrorKind::UnexpectedEof => foreign(address),
        _ => failure,
    }
}

fn foreign(address: &AdminAddress) -> Failure {
    Failure::at_run_time(format!("{address}: what answers there is no ringmain")).because(
        "another program has that address, or it is one of ringmain's listeners",
        "ss -ltnp    (to see which program), then ringmain report --admin ADDR",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(admin: &str) -> Args {
        Args {
            admin: Some(admin.to_owned()),
            config: None,
            window: "all".to_owned(),
            format: "text".to_owned(),
            service: None,
            phase: None,
            endpoint: None,
        }
    }

    #[test]
    fn an_address_may_be_typed_as_people_do() {
        for (typed, expected) in [
            ("127.0.0.1:9901", Some("127.0.0.1:9901")),
            ("http://127.0.0.1:9901/", Some("127.0.0.1:9901")),
            ("localhost:99", Some("127.0.0.1:99")),
            ("[::1]:9901", Some("[::1]:9901")),
            ("unix:/run/ringmain.sock", Some("unix:/run/ringmain.sock")),
            ("", None),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            ("unix:ringmain.sock", None),
        ] {
            let found = address(&args(typed))
                .ok()
                .map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{typed}");
        }
    }

    #[test]
    fn a_target_keeps_what_was_typed() {
        let mut args = args("");
        args.endpoint = Some("[::1]:9090".to_owned());
        args.service = Some("a&b=c".to_owned());
        let expected =
            "/report?window=all&format=text&service=a%26b%3Dc&endpoint=%5B%3A%3A1%5D%3A9090";
        assert_eq!(target(&args), expected);
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let parsed = |text: &str| {
            let answer = parse(text.as_bytes());
            answer.map(|answer| (answer.status, answer.is_ours, answer.body))
        };
        let whole = "HTTP/1.1 200 OK\r\nServer: ringmain\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(parsed(whole), Some((200, true, "abc".to_owned())));
        for cut in 0..whole.len() {
            assert_eq!(parsed(&whole[..cut]), None, "{cut}");
        }
        for none in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\n\r\nabc", ""] {
            assert_eq!(parsed(none), None, "{none}");
        }
        let foreign = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parsed(foreign), Some((404, false, String::new())));
    }
}
