//! The configurations of docs/examples, each run as it stands: its own addresses, its own ports.
//!
//! So that these are free, whatever runs on this machine, the test moves into a network of its own
//! (network_namespaces(7)), which has nothing but a loopback interface. That works as long as the
//! process has one thread, so this test has no harness. Where it is refused, the machine's own
//! loopback interface has to do.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test without a harness says itself what came of it"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use std::{fs, process};

/// How long any single wait may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long all of them may take.
const LAST: Duration = Duration::from_secs(120);

/// An example, by the name of its file, and what is to be seen of it.
type Case = (&'static str, fn(&Path));

const CASES: &[Case] = &[
    ("login-and-register.toml", login_and_register),
    ("database.toml", database),
    ("behind-a-load-balancer.toml", behind_a_load_balancer),
    ("names.toml", names),
];

fn main() -> ExitCode {
    // What test runners ask of a test binary.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = enter_own_network() {
        println!("no network of its own ({error}): the examples' ports have to be free");
    }
    watch();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut found: Vec<String> = fs::read_dir(&examples)
        .expect("the examples are there")
        .map(|entry| entry.expect("it can be read").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let mut known: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(
        found, known,
        "each example has a case, and each case an example"
    );
    // As with a harness, words are parts of names.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = wanted
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(*word));
    for (name, case) in CASES.iter().filter(|(name, _)| is_wanted(name)) {
        case(&examples.join(name));
        println!("example {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// Ends the test when it hangs.
fn watch() {
    let (alive, watched) = channel::<()>();
    // It lives as long as the process.
    std::mem::forget(alive);
    thread::spawn(move || {
        let _late = watched.recv_timeout(LAST);
        eprintln!("the examples take longer than {LAST:?}");
        process::exit(1);
    });
}

/// Accounts are looked up in turn and made everywhere.
fn login_and_register(file: &Path) {
    let _backends = backends(file, &["--status", "201"]);
    let _proxy = Process::ringmain(file);
    let web = address("127.0.0.1:8080");
    // Each shard goes by turns of its own, and connections come to all of them.
    let mut said: Vec<String> = (0..100).map(|_| ask(web, "GET", "/login", "").1).collect();
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), 3, "three of them have one: {said:?}");
    for path in ["/register", "/changePassword"] {
        let (head, body) = ask(web, "POST", path, "{\"name\":\"ada\"}");
        assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
        for backend in ["127.0.0.1:9090", "127.0.0.1:9091", "127.0.0.1:9092"] {
            let made = format!("{{\"backend\":\"{backend}\",\"status\":201,\"attempts\":1,");
            assert!(body.contains(&made), "{made} in {body}");
        }
    }
    let (head, _) = ask(web, "GET", "/register", "");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

/// A real one, its replica, and what happens when the first of them goes.
fn database(file: &Path) {
    let redis = |at: &str, more: &[&str]| {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind", at, "--port", "6379", "--save", "", "--dir", "/tmp",
        ]);
        command.args(more);
        Process::start(&mut command, "Ready to accept connections")
    };
    let ask = |words: &[&str]| {
        let mut command = Command::new("redis-cli");
        let output = command.args(["-h", "127.0.0.1"]).args(words).output();
        let Output { stdout, .. } = output.expect(MISSING);
        String::from_utf8_lossy(&stdout).trim().to_owned()
    };
    let primary = redis("127.0.0.11", &[]);
    let _replica = redis(
        "127.0.0.12",
        &[
            "--replicaof",
            "127.0.0.11",
            "6379",
            "--repl-diskless-sync-delay",
            "0",
        ],
    );
    let _proxy = Process::ringmain(file);
    assert_eq!(ask(&["set", "greeting", "hello"]), "OK");
    // Waits, there, until the replica has it.
    assert_eq!(ask(&["wait", "1", "5000"]), "1");
    drop(primary);
    assert_eq!(ask(&["get", "greeting"]), "hello");
}

/// The address of the header is the client's.
fn behind_a_load_balancer(file: &Path) {
    let _backends = backends(file, &[]);
    let _proxy = Process::ringmain(file);
    let web = address("127.0.0.1:8080");
    let mut client = connect(web);
    let request = "PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n\
                   GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).expect("it takes it");
    let (_, body) = answer(&mut client);
    assert!(body.contains("203.0.113.7"), "{body}");
    // Whoever does not say whose connection it is has none.
    let mut client = connect(web);
    let request = b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).expect("it takes it");
    let mut rest = Vec::new();
    let read = client.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{read:?} {rest:?}");
}

fn names(file: &Path) {
    // Nobody answers for its names here, which is no reason not to start.
    let _proxy = Process::ringmain(file);
    let (head, _) = ask(address("127.0.0.1:8080"), "GET", "/", "");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(head.contains("dns_error"), "{head}");
}

const MISSING: &str = "a real database is missing: apt-get install redis-server";

/// The dummy backends of the example in `file`.
fn backends(file: &Path, options: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    command
        .args(["backend", "--config"])
        .arg(file)
        .args(options);
    Process::start(&mut command, "listening on ")
}

/// A process that is killed when it is dropped.
struct Process(Child);

impl Process {
    /// `ringmain --config FILE`, once it serves.
    #[track_caller]
    fn ringmain(file: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        command.arg("--config").arg(file);
        Self::start(&mut command, "ready")
    }

    /// Returns when a line of its output has `sign` in it.
    #[track_caller]
    fn start(command: &mut Command, sign: &str) -> Self {
        let (reader, writer) = io::pipe().expect("there are descriptors");
        let errors = writer.try_clone().expect("there are descriptors");
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let process = Self(command.spawn().expect(MISSING));
        // Ours of the pipe's ends, without which it does not end with the process.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut lines = BufReader::new(reader).lines();
        let mut said = Vec::new();
        let found = lines.by_ref().map_while(Result::ok).any(|line| {
            said.push(line);
            said.last().is_some_and(|line| line.contains(sign))
        });
        assert!(found, "{sign:?} is in {said:#?}");
        // Read on, so that it can write on.
        thread::spawn(move || lines.for_each(drop));
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("it is an address")
}

#[track_caller]
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not 0");
    stream
}

/// Head and body of the answer to a request on a connection of its own.
#[track_caller]
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (String, String) {
    let mut client = connect(address);
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    client.write_all(request.as_bytes()).expect("it takes it");
    answer(&mut client)
}

#[track_caller]
fn answer(client: &mut TcpStream) -> (String, String) {
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it ends");
    let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    (head.to_owned(), body.to_owned())
}

/// Gives this process a network of its own, with its loopback interface up. As another user than
/// root it needs a user namespace for that, in which it stays who it is.
#[expect(unsafe_code, reason = "unshare(2) and ioctl(2) are functions of C")]
fn enter_own_network() -> io::Result<()> {
    let ids = || {
        // SAFETY: they touch no memory and cannot fail.
        unsafe { (libc::geteuid(), libc::getegid()) }
    };
    let unshare = |what| {
        // SAFETY: unshare(2) touches no memory; there is one thread.
        match unsafe { libc::unshare(what) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if unshare(libc::CLONE_NEWNET).is_err() {
        let (user, group) = ids();
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
        let own = PathBuf::from("/proc/self");
        fs::write(own.join("setgroups"), "deny")?;
        fs::write(own.join("uid_map"), format!("{user} {user} 1"))?;
        fs::write(own.join("gid_map"), format!("{group} {group} 1"))?;
    }
    // SAFETY: an `ifreq` of zeros is one.
    let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in interface.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    interface.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // netdevice(7): any socket will do.
    let socket =
        std::net::UdpSocket::bind("[::]:0").or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the kernel reads the request, which lives across the call.
    match unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const interface) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
