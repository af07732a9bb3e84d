//! One end of a TCP connection that speaks exact bytes and reads heads and bodies with a deadline.
//!
//! This reader is simple on purpose and shares no code with ringmain: it is the second opinion.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Type};

use super::DEADLINE;
use super::socket::Socket;

/// A connection and what was read from it beyond the last message.
pub(crate) struct Wire {
    stream: Socket<TcpStream>,
    unread: Vec<u8>,
}

/// A start line and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The start line without its end.
    pub(crate) start: String,
    /// Names and values in their order, as they came.
    pub(crate) fields: Vec<(String, String)>,
}

/// A head and its body, decoded.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    /// Connects as a client.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("a listener accepts"))
    }

    /// Connects as a client whose address is `from`.
    pub(crate) fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None);
        let socket = socket.expect("a descriptor is free");
        let bound = socket.bind(&SocketAddr::new(from, 0).into());
        bound.expect("it is an address of this machine");
        let connected = socket.connect(&address.into());
        connected.expect("a listener accepts");
        Self::new(socket.into())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        let wire = Self {
            stream: Socket::new(stream),
            unread: Vec::new(),
        };
        wire.set_deadline(DEADLINE);
        wire.stream.set_nodelay(true).expect("the socket is open");
        wire
    }

    /// Its own address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("the socket is connected")
    }

    /// How long a read or write may take from now on.
    pub(crate) fn set_deadline(&self, deadline: Duration) {
        let stream = &self.stream;
        stream
            .set_read_timeout(Some(deadline))
            .expect("the deadline is not zero");
        stream
            .set_write_timeout(Some(deadline))
            .expect("the deadline is not zero");
    }

    /// A second handle, so that one thread can write while another reads.
    pub(crate) fn split(&self) -> Self {
        let stream = self.stream.try_clone().expect("a descriptor is free");
        Self {
            stream: Socket::new(stream),
            unread: Vec::new(),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the other side takes the bytes");
    }

    /// Writes what the other side still takes; it may have closed.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Ends our direction (FIN) and keeps reading.
    pub(crate) fn finish_sending(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("the socket is connected");
    }

    /// Ends both directions, for every handle.
    pub(crate) fn cut(&mut self) {
        // The other side may have been first.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Closes with RST instead of FIN.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&*self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("the socket is open");
    }

    /// Makes the kernel keep at most about `bytes` that we have not read.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) {
        socket2::SockRef::from(&*self.stream)
            .set_recv_buffer_size(bytes)
            .expect("the socket is open");
    }

    /// Reads up to and including the empty line.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                let rest = self.unread.split_off(at + 4);
                let head = std::mem::replace(&mut self.unread, rest);
                return Head::parse(&head[..at]);
            }
            assert!(
                self.read_more(),
                "the connection ended inside a head: {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// Reads exactly `count` bytes.
    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(
                self.read_more(),
                "the connection ended {} bytes early, after {:?}",
                count - self.unread.len(),
                String::from_utf8_lossy(&self.unread[..self.unread.len().min(200)])
            );
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Reads one line, without its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line = self.take(at + 2);
                return String::from_utf8_lossy(&line[..at]).into_owned();
            }
            assert!(self.read_more(), "the connection ended inside a line");
        }
    }

    /// Reads everything up to the end of the connection; a reset counts as an end.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.unread)
    }

    /// The connection ends here, by RST: what was read must not be taken for all of it.
    #[track_caller]
    pub(crate) fn is_reset(&mut self) {
        assert_eq!(self.end(), Err(ErrorKind::ConnectionReset), "0 is a FIN");
        let unread = self.unread();
        assert!(unread.is_empty(), "{}", unread.escape_ascii());
    }

    /// Waits for the end behind what was read: 0 is a FIN, and 1 a byte, which is lost.
    pub(crate) fn end(&self) -> Result<usize, ErrorKind> {
        let end = self.stream.wait(|mut stream| stream.read(&mut [0]));
        end.map_err(|error| error.kind())
    }

    /// What has come and was not read, without waiting for more of it.
    pub(crate) fn unread(&mut self) -> &[u8] {
        let set = |nonblocking| {
            self.stream
                .set_nonblocking(nonblocking)
                .expect("the socket is open");
        };
        set(true);
        let mut bytes = [0; 1024];
        let more = self.stream.wait(|mut stream| stream.read(&mut bytes));
        set(false);
        self.unread.extend_from_slice(&bytes[..more.unwrap_or(0)]);
        &self.unread
    }

    /// Reads what there is and drops it; false at the end of the connection.
    #[track_caller]
    pub(crate) fn discard(&mut self) -> bool {
        self.unread.clear();
        self.read_more()
    }

    /// The connection ends here, by FIN or RST, and nothing more comes.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "expected the end, got {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// True exactly when nothing arrives for `span`; what arrives stays unread.
    #[track_caller]
    pub(crate) fn is_quiet_for(&self, span: Duration) -> bool {
        self.set_deadline(span);
        let mut byte = [0];
        let quiet = match self.stream.wait(|stream| stream.peek(&mut byte)) {
            Ok(_) => false,
            Err(error) => is_timeout(&error),
        };
        self.set_deadline(DEADLINE);
        quiet && self.unread.is_empty()
    }

    /// Waits for a byte; true exactly when the connection ended, or stayed silent past the
    /// deadline, instead.
    pub(crate) fn is_over(&self) -> bool {
        self.unread.is_empty()
            && !matches!(self.stream.wait(|stream| stream.peek(&mut [0])), Ok(1..))
    }

    /// Reads one request: its head and its body by its framing.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Message {
        let head = self.head();
        let body = match head.length() {
            Some(length) => self.take(length),
            None if head.is_chunked() => self.chunks(),
            None => Vec::new(),
        };
        Message { head, body }
    }

    /// Reads one answer to a request with `method` (RFC 9112 section 6.3).
    #[track_caller]
    pub(crate) fn answer_to(&mut self, method: &str) -> Message {
        let head = self.head();
        let status = head.status();
        let body = if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else if head.is_chunked() {
            self.chunks()
        } else {
            match head.length() {
                Some(length) => self.take(length),
                None => self.rest(),
            }
        };
        Message { head, body }
    }

    /// Reads one answer to a GET.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Message {
        self.answer_to("GET")
    }

    /// Sends a GET for `path` at `host` and reads the answer.
    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.answer()
    }

    /// Decodes a chunked body, its trailers dropped.
    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
            if size == 0 {
                while !self.line().is_empty() {}
                return body;
            }
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n", "a chunk ends with its line");
        }
    }

    /// False at the end of the connection.
    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match self.stream.wait(|mut stream| stream.read(&mut bytes)) {
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                0 < count
            }
            Err(error) => {
                assert!(
                    is_end(&error),
                    "nothing came within the deadline ({error}); unread so far: {:?}",
                    String::from_utf8_lossy(&self.unread)
                );
                false
            }
        }
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a field has a colon");
            (name.to_owned(), value.trim().to_owned())
        });
        Self {
            start,
            fields: fields.collect(),
        }
    }

    #[track_caller]
    pub(crate) fn status(&self) -> u16 {
        let status = self.start.split(' ').nth(1).unwrap_or_default();
        status.parse().expect("a status line has a status")
    }

    /// The values of every field with this name, joined as RFC 9110 section 5.3 allows; `None`
    /// without such a field.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        let values: Vec<&str> = self
            .fields
            .iter()
            .filter(same)
            .map(|field| field.1.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The error of an answer of ringmain's own; `None` for an answer of a backend.
    pub(crate) fn proxy_error(&self) -> Option<String> {
        let status = self.field("Proxy-Status")?;
        let error = status.strip_prefix("ringmain; error=")?;
        Some(error.to_owned())
    }

    fn length(&self) -> Option<usize> {
        self.field("Content-Length")?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.field("Transfer-Encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// True when an error is how the other side ended the connection.
fn is_end(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}
