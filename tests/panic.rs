//! A panic inside an exchange: that connection closes without an answer, one fault is counted, and
//! nobody else notices.
//!
//! The proxy runs in this process, whose log panics where it is asked to: no input is known that
//! makes ringmain panic by itself. A binary of its own, for a process has one log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use ringmain::{boot, config};

/// Panics once at the line that says which endpoint an exchange has picked.
struct Panicking;

static ARMED: AtomicBool = AtomicBool::new(false);

impl Log for Panicking {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    #[expect(clippy::panic, reason = "it is what this test is about")]
    fn log(&self, record: &Record<'_>) {
        if record.args().as_str() == Some("picked") && ARMED.swap(false, Ordering::Relaxed) {
            panic!("the log was asked to panic");
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_costs_its_connection_and_nothing_else() {
    log::set_logger(&Panicking).expect("nobody else has set one");
    log::set_max_level(LevelFilter::Debug);
    for driver in ["io_uring", "epoll"] {
        check(driver);
    }
}

#[track_caller]
fn check(driver: &str) {
    let origin = origin();
    let text = format!(
        "[runtime]\nshards = 1\ndriver = \"{driver}\"\ndrain_timeout = \"0s\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nservice = \"a\"\n\
         [[service]]\nname = \"a\"\nbackends = [\"{origin}\"]\n"
    );
    let config = config::parse("test", &text).expect("the configuration is valid");
    let (tell, told) = mpsc::channel();
    let proxy = thread::spawn(move || {
        let ended = boot::run(&config, None, boot::Options::default(), &mut |bound| {
            let admin = bound.admin.as_ref().map(ToString::to_string);
            let addresses = (bound.listeners[0].1, admin.unwrap_or_default());
            tell.send(addresses).expect("the test waits for it");
        });
        ended.expect("the proxy starts");
    });
    let (address, admin) = told.recv().expect("the proxy gets ready");
    let admin: SocketAddr = admin.parse().expect("it is on TCP");
    let mut other = connect(address);
    assert!(ask(&mut other, "/").ends_with("hi"), "{driver}");
    ARMED.store(true, Ordering::Relaxed);
    let mut client = connect(address);
    assert_eq!(ask(&mut client, "/"), "", "{driver}: it is closed");
    assert!(ask(&mut other, "/").ends_with("hi"), "{driver}: it is kept");
    assert!(ask(&mut connect(address), "/").ends_with("hi"), "{driver}");
    let report = ask(&mut connect(admin), "/report?format=json").replace([' ', '\n'], "");
    let faults = format!("\"faults\":{{\"{}\":1}}", "proxy_internal_error");
    assert!(report.contains(&faults), "{driver}: {report}");
    ringmain_end();
    proxy.join().expect("the proxy ends");
}

#[expect(unsafe_code, reason = "kill(2) is a function of C")]
fn ringmain_end() {
    // SAFETY: a signal to this process, which the proxy's control has taken over.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).expect("it is not zero");
    stream
}

/// What comes for a GET, up to the end of its body or of the connection.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("somebody reads it");
    let (mut answer, mut part) = (String::new(), [0; 4096]);
    loop {
        // A reset is an end too.
        let count = stream.read(&mut part).unwrap_or_default();
        answer += &String::from_utf8_lossy(&part[..count]);
        if count == 0 || is_whole(&answer) {
            return answer;
        }
    }
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head.split_once("content-length: ");
    let length = length.and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    length.is_some_and(|length: usize| length <= body.len())
}

/// An origin that answers every request with `hi`.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("it connects");
            thread::spawn(move || {
                let mut request = [0; 4096];
                while matches!(connection.read(&mut request), Ok(1..)) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                    if connection.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
