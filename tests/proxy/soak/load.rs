//! Clients that ask without a pause, on connections that they keep or on a new one for each
//! request, and take nothing but the right answer.
//!
//! They share no code with the readers of other tests: what they accept is a 200 with the body that
//! its origin says, and of a connection that is not said to be closed they expect that it is open.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is told of each client at most.
const TOLD_MAX: usize = 5;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// It keeps one as long as it may.
    Keeps,
    /// It asks for one answer on each.
    Leaves,
}

/// What the clients of all threads share.
struct Common {
    address: SocketAddr,
    /// The hosts that are asked for in turn, each with the body that its answers have.
    hosts: Vec<(String, String)>,
    over: AtomicBool,
    answers: AtomicU64,
}

/// Clients at work.
pub(crate) struct Load {
    common: Arc<Common>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// So many clients of each habit ask at `address` for `hosts` in turn.
    pub(crate) fn begin(address: SocketAddr, hosts: &[(&str, &str)], each: usize) -> Self {
        let hosts = hosts.iter();
        let owned = |(host, body): &(&str, &str)| ((*host).to_owned(), (*body).to_owned());
        let common = Arc::new(Common {
            address,
            hosts: hosts.map(owned).collect(),
            over: AtomicBool::new(false),
            answers: AtomicU64::new(0),
        });
        let client = |habit| {
            let common = Arc::clone(&common);
            thread::spawn(move || common.ask(habit))
        };
        let habits = [Habit::Keeps, Habit::Leaves].into_iter();
        let clients = habits.flat_map(|habit| (0..each).map(move |_| habit));
        Self {
            clients: clients.map(client).collect(),
            common,
        }
    }

    /// How many answers there were until now.
    pub(crate) fn answers(&self) -> u64 {
        self.common.answers.load(Ordering::Relaxed)
    }

    /// Waits for so many answers more.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        let wanted = self.answers() + more;
        while self.answers() < wanted {
            let ended = self.clients.iter().any(JoinHandle::is_finished);
            assert!(!ended, "a client has given up");
            thread::yield_now();
        }
    }

    /// Ends it. Every answer was right, and there were some; says how many.
    #[track_caller]
    pub(crate) fn end(self) -> u64 {
        self.common.over.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = self
            .clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client does not panic"))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let answers = self.common.answers.load(Ordering::Relaxed);
        assert!(0 < answers, "nobody was answered");
        answers
    }
}

impl Common {
    /// Asks until it is over, and says what was wrong.
    fn ask(&self, habit: Habit) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut kept = None;
        let turns = self.hosts.iter().cycle();
        for (count, (host, body)) in turns.enumerate() {
            if self.over.load(Ordering::Relaxed) || TOLD_MAX <= wrong.len() {
                break;
            }
            let had = kept.is_some();
            match self.one(habit, kept.take(), host, body) {
                Ok(connection) => {
                    kept = connection;
                    self.answers.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let kind = if had { "kept" } else { "new" };
                    let place = format!("{habit:?}, request {count}, a {kind} connection");
                    wrong.push(format!("{place}, {host}: {error}"));
                }
            }
        }
        wrong
    }

    /// One request. Gives its connection back where the next one may go there.
    fn one(
        &self,
        habit: Habit,
        kept: Option<TcpStream>,
        host: &str,
        body: &str,
    ) -> io::Result<Option<TcpStream>> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let close = match habit {
            Habit::Keeps => "",
            Habit::Leaves => "Connection: close\r\n",
        };
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{close}\r\n");
        connection.write_all(request.as_bytes())?;
        let closes = answer(&mut connection, body)?;
        Ok((!closes).then_some(connection))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect(self.address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }
}

/// Reads a 200 with `body`; whether its connection is closed behind it.
fn answer(connection: &mut TcpStream, body: &str) -> io::Result<bool> {
    let mut read = Vec::new();
    let mut part = [0; 4096];
    let head = loop {
        let end = read.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end.filter(|end| end + 4 + body.len() <= read.len()) {
            break end;
        }
        match connection.read(&mut part)? {
            0 => {
                let text = String::from_utf8_lossy(&read);
                let message = format!("it ended after {text:?}");
                return Err(io::Error::other(message));
            }
            more => read.extend(&part[..more]),
        }
    };
    let text = String::from_utf8_lossy(&read);
    let fields = text[..head].to_ascii_lowercase();
    if !text.starts_with("HTTP/1.1 200 ") || &text[head + 4..] != body {
        return Err(io::Error::other(format!("answered {text:?}")));
    }
    Ok(fields.contains("\r\nconnection: close"))
}
