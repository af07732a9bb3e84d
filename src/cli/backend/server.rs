//! One thread of a dummy backend: its runtime, its accept loops, and a connection from its first
//! request to its last.
//!
//! io_uring where a plain ring can be made, epoll otherwise. An answer leaves in one write, head
//! and content together.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use monoio::io::{AsyncWriteRent, AsyncWriteRentExt, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use rand::SeedableRng;
use rand::rngs::SysRng;
use rand_xorshift::XorShiftRng;

use super::super::{Failure, print};
use super::Conduct;
use super::answers::{After, Answer, Body};
use super::misbehaviour::Verdict;
use super::request::{Head, Refusal, Requests};

/// How long accepting rests after the kernel refused it (EMFILE, ENFILE), so that it does not spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A block of content without meaning, lines of 64 bytes.
static FILLER: [u8; 64 * 1024] = filler();

/// What the connections of one address share on this thread.
struct Here {
    /// The address and a line feed: what the answer says.
    name: Vec<u8>,
    conduct: Arc<Conduct>,
    rng: RefCell<XorShiftRng>,
    date: RefCell<Date>,
}

/// Serves `listeners` until the process ends, or ends it where no runtime can be made.
pub(super) fn serve(listeners: Vec<TcpListener>, conduct: Arc<Conduct>) {
    let ring = RuntimeBuilder::<IoUringDriver>::new()
        .enable_timer()
        .build();
    let outcome = match ring {
        Ok(mut runtime) => runtime.block_on(accept_all(listeners, conduct)),
        Err(_) => RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()
            .and_then(|mut runtime| runtime.block_on(accept_all(listeners, conduct))),
    };
    if let Err(error) = outcome {
        // The exit code is the process's, not this thread's.
        let _ = Failure::from_error(&error).report();
        std::process::exit(1);
    }
}

async fn accept_all(listeners: Vec<TcpListener>, conduct: Arc<Conduct>) -> io::Result<()> {
    let mut loops = Vec::new();
    for listener in listeners {
        // A ring waits on a blocking socket and gets EAGAIN from another; epoll the other way
        // round.
        listener.set_nonblocking(monoio::utils::is_legacy())?;
        let here = Rc::new(Here::new(listener.local_addr()?, Arc::clone(&conduct))?);
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loops.push(monoio::spawn(accept(listener, here)));
    }
    for accepting in loops {
        accepting.await;
    }
    Ok(())
}

async fn accept(listener: monoio::net::TcpListener, here: Rc<Here>) {
    loop {
        match listener.accept().await {
            // Nobody joins a connection: it ends with its client or with the process.
            Ok((stream, _)) => {
                drop(monoio::spawn(contained(converse(stream, Rc::clone(&here)))));
            }
            Err(_) => monoio::time::sleep(ACCEPT_REST).await,
        }
    }
}

/// Ends `conversation` quietly where it panics: its connection closes, the others go on.
async fn contained(conversation: impl Future<Output = ()>) {
    let mut conversation = pin!(conversation);
    poll_fn(|context| {
        let poll = AssertUnwindSafe(|| conversation.as_mut().poll(context));
        catch_unwind(poll).unwrap_or(Poll::Ready(()))
    })
    .await;
}

/// Answers one request after the other.
async fn converse(stream: TcpStream, here: Rc<Here>) {
    let (read, mut write) = stream.into_split();
    let mut requests = Requests::new(read);
    let mut out = Vec::with_capacity(512);
    let mut served = 0;
    loop {
        let (head, body) = match receive(&mut requests, &mut write).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return refuse(&here, refusal, requests, write).await,
        };
        served += 1;
        let now = Timestamp::now();
        let verdict = here.conduct.misbehaviour.judge(&mut *here.rng.borrow_mut());
        let answer = match verdict {
            Verdict::Skip => return here.log(&head, "no answer"),
            Verdict::AnswerWith(status) => Answer::named(status, &here.name),
            Verdict::Answer => Answer::to(&head, body, &here.name, now),
        };
        let after = after(&head, &answer);
        if let Some(delay) = here.conduct.misbehaviour.delay_first_byte {
            monoio::time::sleep(delay).await;
        }
        out.clear();
        here.date.borrow_mut().with(now, |date| {
            answer.write_head(&mut out, date, after, head.is_http_1_1());
        });
        here.log(&head, answer.status);
        match send(&here, &head, answer.content(head.method()), out, &mut write).await {
            Ok(buffer) => out = buffer,
            Err(_) => return,
        }
        if after == After::Closes || here.conduct.misbehaviour.closes_after(served) {
            // The client has gone where this fails, and the connection ends in either case.
            let _ = write.shutdown().await;
            return;
        }
    }
}

/// A request and its whole body; none at the end of the connection.
async fn receive(
    requests: &mut Requests,
    write: &mut OwnedWriteHalf<TcpStream>,
) -> Result<Option<(Head, Vec<u8>)>, Refusal> {
    let Some(mut head) = requests.next().await? else {
        return Ok(None);
    };
    if head.expects_continue() {
        let (outcome, _) = write.write_all("HTTP/1.1 100 Continue\r\n\r\n").await;
        outcome.map_err(|_| Refusal::Gone)?;
    }
    let body = requests.body(&mut head).await?;
    Ok(Some((head, body)))
}

/// Says why, and closes so that the client can read it.
async fn refuse(
    here: &Here,
    refusal: Refusal,
    requests: Requests,
    mut write: OwnedWriteHalf<TcpStream>,
) {
    let Some(answer) = Answer::refusing(refusal) else {
        return;
    };
    let mut out = Vec::with_capacity(256);
    here.date.borrow_mut().with(Timestamp::now(), |date| {
        answer.write_head(&mut out, date, After::Closes, true);
    });
    if let Body::Bytes(text) = &answer.body {
        out.extend_from_slice(text);
    }
    let (outcome, _) = write.write_all(out).await;
    if outcome.is_ok() && write.shutdown().await.is_ok() {
        requests.discard().await;
    }
}

fn after(head: &Head, answer: &Answer<'_>) -> After {
    // Content of unknown length ends with the connection where there are no chunks (RFC 9112
    // section 6.3 rule 8).
    let until_close = matches!(answer.body, Body::ChunkedFiller(_)) && !head.is_http_1_1();
    match (head.keeps_alive() && !until_close, head.is_http_1_1()) {
        (true, true) => After::Lives,
        (true, false) => After::LivesAsAsked,
        (false, _) => After::Closes,
    }
}

/// Sends the head that `out` holds and `content` after it; gives the buffer back.
async fn send(
    here: &Here,
    head: &Head,
    content: Option<&Body<'_>>,
    mut out: Vec<u8>,
    write: &mut OwnedWriteHalf<TcpStream>,
) -> io::Result<Vec<u8>> {
    if let Some(delay) = here.conduct.misbehaviour.delay_body {
        out = write_out(write, out).await?;
        monoio::time::sleep(delay).await;
    }
    match content {
        None => {}
        Some(Body::Bytes(bytes)) => out.extend_from_slice(bytes),
        Some(Body::Filler(bytes)) => return send_filler(write, out, *bytes).await,
        Some(Body::ChunkedFiller(bytes)) if head.is_http_1_1() => {
            return send_chunks(write, out, *bytes).await;
        }
        Some(Body::ChunkedFiller(bytes)) => return send_filler(write, out, *bytes).await,
    }
    write_out(write, out).await
}

async fn send_filler(
    write: &mut OwnedWriteHalf<TcpStream>,
    out: Vec<u8>,
    mut left: u64,
) -> io::Result<Vec<u8>> {
    let out = write_out(write, out).await?;
    while 0 < left {
        let block = block_of(left);
        left -= block.len() as u64;
        let (outcome, _) = write.write_all(block).await;
        outcome?;
    }
    Ok(out)
}

async fn send_chunks(
    write: &mut OwnedWriteHalf<TcpStream>,
    mut out: Vec<u8>,
    mut left: u64,
) -> io::Result<Vec<u8>> {
    while 0 < left {
        let block = block_of(left);
        left -= block.len() as u64;
        out.extend_from_slice(format!("{:x}\r\n", block.len()).as_bytes());
        out.extend_from_slice(block);
        out.extend_from_slice(b"\r\n");
        out = write_out(write, out).await?;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    write_out(write, out).await
}

/// Writes all of `out` and gives it back empty.
async fn write_out(write: &mut OwnedWriteHalf<TcpStream>, out: Vec<u8>) -> io::Result<Vec<u8>> {
    if out.is_empty() {
        return Ok(out);
    }
    let (outcome, mut out) = write.write_all(out).await;
    outcome?;
    out.clear();
    Ok(out)
}

fn block_of(left: u64) -> &'static [u8] {
    let length = usize::try_from(left).map_or(FILLER.len(), |left| left.min(FILLER.len()));
    &FILLER[..length]
}

const fn filler() -> [u8; 64 * 1024] {
    let mut block = [b'r'; 64 * 1024];
    let mut end = 63;
    while end < block.len() {
        block[end] = b'\n';
        end += 64;
    }
    block
}

impl Here {
    fn new(address: SocketAddr, conduct: Arc<Conduct>) -> io::Result<Self> {
        let rng = XorShiftRng::try_from_rng(&mut SysRng).map_err(io::Error::other)?;
        Ok(Self {
            name: format!("{address}\n").into_bytes(),
            conduct,
            rng: RefCell::new(rng),
            date: RefCell::default(),
        })
    }

    fn log(&self, head: &Head, outcome: impl std::fmt::Display) {
        if self.conduct.log_requests {
            let name = String::from_utf8_lossy(&self.name);
            let line = format!(
                "{} {} {} {outcome}\n",
                name.trim_end(),
                head.method(),
                head.target()
            );
            // Where standard output is gone, there is nobody to say it to.
            let _ = print(&line);
        }
    }
}

/// The value of `Date`, made once a second.
#[derive(Default)]
struct Date {
    second: i64,
    text: String,
}

impl Date {
    fn with(&mut self, now: Timestamp, write: impl FnOnce(&str)) {
        if self.text.is_empty() || self.second != now.as_second() {
            self.second = now.as_second();
            self.text = DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&now)
                .expect("the years of a clock have four digits");
        }
        write(&self.text);
    }
}
