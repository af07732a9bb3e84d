//! The dummy backend as a process: what it answers over real sockets, and how it misbehaves when it
//! is asked to.

#[path = "support/signal.rs"]
mod signal;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use signal::signal;

/// A wait that only a broken backend reaches.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running `ringmain backend` on a free port, ended with the value.
struct Backend {
    process: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Backend {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(["backend", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env_remove("SKIP_SOME_REQUESTS")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = process.stdout.take().expect("standard output is piped");
        let mut output = BufReader::new(stdout);
        let line = line_of(&mut output);
        let address = line
            .strip_prefix("listening on http://")
            .expect("the line has an address");
        let address = address.parse().expect("the address is one");
        Self {
            process,
            output,
            address,
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the backend listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream
            .set_nodelay(true)
            .expect("Nagle's algorithm can be turned off");
        Client {
            stream: BufReader::new(stream),
        }
    }

    /// What one connection gets for `request`, up to the backend's close.
    #[track_caller]
    fn whole_answer(&self, request: &str) -> String {
        let mut client = self.connect();
        client.send(request);
        client.rest()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // A test that ended it already finds nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn line_of(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output
        .read_line(&mut line)
        .expect("the backend's output is text");
    line.trim_end().to_owned()
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    #[track_caller]
    fn send(&mut self, bytes: &str) {
        self.stream
            .get_mut()
            .write_all(bytes.as_bytes())
            .expect("the backend reads");
    }

    /// Everything up to the backend's close; a reset is a failure.
    #[track_caller]
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.stream
            .read_to_end(&mut rest)
            .expect("the backend closes in order");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// One head: its status and its fields in lower case.
    #[track_caller]
    fn head(&mut self) -> (u16, Vec<String>) {
        let status = line_of(&mut self.stream);
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.expect("an answer begins with a status line");
        let mut fields = Vec::new();
        loop {
            let line = line_of(&mut self.stream);
            if line.is_empty() {
                return (code, fields);
            }
            fields.push(line.to_ascii_lowercase());
        }
    }

    /// One answer with a `Content-Length`: its status and its content.
    #[track_caller]
    fn answer(&mut self) -> (u16, String) {
        let (status, fields) = self.head();
        let length = fields
            .iter()
            .find_map(|field| field.strip_prefix("content-length: "));
        let length = length.expect("the answer says its length");
        (
            status,
            self.content(length.parse().expect("a length is a number")),
        )
    }

    #[track_caller]
    fn content(&mut self, length: usize) -> String {
        let mut content = vec![0; length];
        self.stream
            .read_exact(&mut content)
            .expect("the content is as long as announced");
        String::from_utf8(content).expect("the content is text")
    }
}

#[test]
fn every_path_says_which_address_answered() {
    let backend = Backend::start(&[]);
    let name = format!("{}\n", backend.address);
    let mut client = backend.connect();
    for path in ["/", "/live", "/ready", "/any/thing?x=1"] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer(), (200, name.clone()), "{path}");
    }
}

#[test]
fn requests_in_one_segment_are_answered_in_order() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    client.send(
        "GET /bytes/3 HTTP/1.1\r\n\r\n\
         POST /reflect HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\
         GET / HTTP/1.1\r\n\r\n",
    );
    assert_eq!(client.answer(), (200, "rrr".to_owned()));
    assert_eq!(client.answer(), (200, "hi".to_owned()));
    assert_eq!(client.answer(), (200, format!("{}\n", backend.address)));
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    for byte in "POST /reflect HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".chars() {
        client.send(byte.encode_utf8(&mut [0; 4]));
    }
    assert_eq!(client.answer(), (200, "hi".to_owned()));
}

#[test]
fn reflect_gives_the_body_back_as_it_came() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    let json = "{\"hello\":\"ring\"}";
    for framing in [
        format!("Content-Length: {}\r\n\r\n{json}", json.len()),
        "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"hello\r\n9\r\n\":\"ring\"}\r\n0\r\n\r\n"
            .to_owned(),
    ] {
        client.send(&format!(
            "POST /reflect HTTP/1.1\r\nContent-Type: application/x\r\n{framing}"
        ));
        let (status, fields) = client.head();
        assert_eq!(status, 200);
        assert!(
            fields.contains(&"content-type: application/x".to_owned()),
            "{fields:?}"
        );
        assert_eq!(client.content(json.len()), json);
    }
}

#[test]
fn echo_tells_what_was_asked() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    client.send(
        "PUT /echo?a=b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: \"2\"\r\n\
         Content-Length: 3\r\n\r\na\tb",
    );
    let (status, content) = client.answer();
    assert_eq!(status, 200);
    let expected = concat!(
        r#"{"method":"PUT","path":"/echo?a=b","fields":[["host","h"],["x-a","1"],"#,
        r#"["x-a","\"2\""],["content-length","3"]],"body":"a\tb","timestamp":""#,
    );
    assert!(content.starts_with(expected), "{content}");
    assert!(content.ends_with("Z\"}\n"), "{content}");
}

#[test]
fn filler_comes_with_a_length_or_in_chunks() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    client.send("GET /bytes/200000 HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().1.len(), 200_000);
    client.send("GET /bytes/0 HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().1, "");
    client.send("GET /chunked/100000 HTTP/1.1\r\n\r\n");
    let (_, fields) = client.head();
    assert!(
        fields.contains(&"transfer-encoding: chunked".to_owned()),
        "{fields:?}"
    );
    let mut total = 0;
    loop {
        let size = usize::from_str_radix(&line_of(&mut client.stream), 16).expect("a chunk's size");
        assert_eq!(client.content(size).len(), size);
        assert_eq!(line_of(&mut client.stream), "");
        total += size;
        if size == 0 {
            break;
        }
    }
    assert_eq!(total, 100_000);
    client.send("GET /bytes/99999999999 HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().0, 400);
}

#[test]
fn an_answer_to_head_has_the_fields_and_no_content() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    client.send("HEAD /bytes/1000 HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\nConnection: close\r\n\r\n");
    let (status, fields) = client.head();
    assert_eq!(status, 200);
    assert!(
        fields.contains(&"content-length: 1000".to_owned()),
        "{fields:?}"
    );
    assert_eq!(client.head().0, 200);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_connection_closes_where_its_client_asks_or_is_old() {
    let backend = Backend::start(&[]);
    let name = format!("{}\n", backend.address);
    for request in [
        "GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    ] {
        let answer = backend.whole_answer(request);
        assert!(
            answer.contains("\r\nConnection: close\r\n"),
            "{request}: {answer}"
        );
        assert!(
            answer.ends_with(&format!("\r\n\r\n{name}")),
            "{request}: {answer}"
        );
    }
    let answer =
        backend.whole_answer("GET /chunked/100 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(
        !answer.contains("chunked") && !answer.contains("keep-alive"),
        "{answer}"
    );
    let mut client = backend.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let (_, fields) = client.head();
        assert!(
            fields.contains(&"connection: keep-alive".to_owned()),
            "{fields:?}"
        );
        assert_eq!(client.content(name.len()), name);
    }
}

#[test]
fn a_client_that_expects_100_is_told_to_go_on() {
    let backend = Backend::start(&[]);
    let mut client = backend.connect();
    client.send("POST /reflect HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.head(), (100, Vec::new()));
    client.send("hi");
    assert_eq!(client.answer(), (200, "hi".to_owned()));
}

#[test]
fn what_is_no_request_is_refused_with_a_reason() {
    let backend = Backend::start(&[]);
    let long = "x".repeat(64 * 1024);
    for (request, status) in [
        ("garbage\r\n\r\n".to_owned(), "400"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 67108865\r\n\r\n".to_owned(),
            "413",
        ),
        (format!("GET / HTTP/1.1\r\nX: {long}"), "431"),
        (format!("GET / HTTP/1.1\r\n{long}: x\r\n"), "431"),
    ] {
        let mut client = backend.connect();
        client.send(&request);
        let _ = client.stream.get_mut().shutdown(std::net::Shutdown::Write);
        let answer = client.rest();
        let shown = &request[..request.len().min(80)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown:?}: {answer}"
        );
    }
    assert!(
        backend
            .whole_answer("GET / HTTP/1.0\r\n\r\n")
            .starts_with("HTTP/1.1 200 ")
    );
}

#[test]
fn a_status_and_a_ratio_of_faults_are_as_asked() {
    let teapot = Backend::start(&["--status", "418"]);
    assert!(
        teapot
            .whole_answer("GET /live HTTP/1.0\r\n\r\n")
            .starts_with("HTTP/1.1 418 \r\n")
    );
    let empty = Backend::start(&["--status", "204"]);
    let answer = empty.whole_answer("GET / HTTP/1.0\r\n\r\n");
    assert!(
        !answer.contains("Content-Length") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let broken = Backend::start(&["--fail-ratio", "1"]);
    assert!(
        broken
            .whole_answer("GET / HTTP/1.0\r\n\r\n")
            .starts_with("HTTP/1.1 503 ")
    );
}

#[test]
fn skipping_closes_some_connections_without_an_answer() {
    let backend = Backend::start(&["--skip-some-requests"]);
    let answers: Vec<_> = (0..64)
        .map(|_| backend.whole_answer("GET / HTTP/1.0\r\n\r\n"))
        .collect();
    let skipped = answers.iter().filter(|answer| answer.is_empty()).count();
    // All or none of 64 fair coins: once in 2^63 runs.
    assert!(0 < skipped && skipped < 64, "{skipped}");
}

#[test]
fn a_connection_ends_after_so_many_requests_without_a_word() {
    let backend = Backend::start(&["--close-after", "2"]);
    let mut client = backend.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\n\r\n");
        let (status, fields) = client.head();
        assert_eq!(status, 200);
        assert!(
            !fields.iter().any(|field| field.starts_with("connection")),
            "{fields:?}"
        );
        client.content(backend.address.to_string().len() + 1);
    }
    assert_eq!(client.rest(), "");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the delay is one of real time")]
fn delays_come_before_the_head_and_before_the_content() {
    let delay = Duration::from_millis(80);
    for (flag, before_head) in [("--delay-first-byte", true), ("--delay-body", false)] {
        let backend = Backend::start(&[flag, "80ms"]);
        let mut client = backend.connect();
        let begun = Instant::now();
        client.send("GET /bytes/10 HTTP/1.1\r\n\r\n");
        client.head();
        let head_after = begun.elapsed();
        client.content(10);
        let content_after = begun.elapsed();
        assert!(delay <= content_after, "{flag}: {content_after:?}");
        if before_head {
            assert!(delay <= head_after, "{flag}: {head_after:?}");
        } else {
            assert!(
                head_after < content_after,
                "{flag}: {head_after:?} {content_after:?}"
            );
        }
    }
}

#[test]
fn requests_are_printed_where_asked() {
    let mut backend = Backend::start(&["--log-requests"]);
    backend.whole_answer("GET /a?b HTTP/1.0\r\n\r\n");
    let line = line_of(&mut backend.output);
    assert_eq!(line, format!("{} GET /a?b 200", backend.address));
}

#[test]
fn several_threads_serve_one_address() {
    let backend = Backend::start(&["--threads", "3"]);
    let name = format!("{}\n", backend.address);
    let mut clients: Vec<_> = (0..32).map(|_| backend.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer(), (200, name.clone()));
    }
}

#[test]
fn a_signal_ends_it_at_once_with_0() {
    for name in ["INT", "TERM"] {
        let mut backend = Backend::start(&[]);
        let _open = backend.connect();
        signal(backend.process.id(), name);
        let status = backend.process.wait().expect("the backend ends");
        assert_eq!(status.code(), Some(0), "{name}");
    }
}

#[test]
fn wrong_usage_is_2_and_an_address_in_use_is_1() {
    let backend = Backend::start(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken
        .local_addr()
        .map(|address| (address.to_string(), taken));
    let (address, _taken) = taken.expect("a bound socket has an address");
    drop(backend);
    for (arguments, code, said) in [
        (
            vec!["backend", "--config", "a", "--listen", "127.0.0.1:0"],
            2,
            "--config",
        ),
        (
            vec!["backend", "--config", "/no/such/file"],
            2,
            "/no/such/file",
        ),
        (vec!["backend", "--listen", "nowhere"], 2, "nowhere"),
        (
            vec!["backend", "--listen", address.as_str()],
            1,
            "another process listens there",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(&arguments)
            .output();
        let output = output.expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}
