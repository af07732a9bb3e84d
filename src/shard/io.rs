//! All of the shard's input and output: the only module that knows the runtime's streams.
//!
//! What monoio's edges ask of us is obeyed here (version 0.2.4): a read that will be continued is
//! never dropped (its bytes may be lost), deadlines cut the connection instead
//! ([`deadline`](super::deadline)); tasks are spawned through a catch, for the runtime does not;
//! listeners are awaited and then accepted from by hand.

mod ready;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{cell::Cell, cell::RefCell};

use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller, OwnedReadHalf,
    OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;

pub(crate) use ready::Ready;

use super::buffer::{Buffer, Sending};
use super::clock::Clock;
use super::deadline::{Late, Watch, Wheel};
use crate::fd::{self, Cut};
use crate::plan::ListenerId;
use crate::plan::Ticks;

/// A connection, to a client or to an endpoint, with a deadline for each direction.
#[derive(Debug)]
pub(crate) struct Stream {
    // The watches are declared, and so dropped, before the stream: an entry of the wheel dies
    // before its descriptor is closed.
    reading: Watch,
    writing: Watch,
    fd: RawFd,
    /// `None` exactly while the two directions are relayed at once.
    tcp: Option<TcpStream>,
}

/// The direction that we read, and its deadline.
#[derive(Debug)]
pub(crate) struct Incoming<'a, T> {
    io: &'a mut T,
    watch: &'a Watch,
    /// The other direction's deadline.
    other: &'a Watch,
}

/// The direction that we write, and its deadline.
#[derive(Debug)]
pub(crate) struct Outgoing<'a, T> {
    io: &'a mut T,
    watch: &'a Watch,
    fd: RawFd,
}

/// The read half of a connection whose two directions are relayed at once.
pub(crate) type ReadHalf = OwnedReadHalf<TcpStream>;
/// The write half.
pub(crate) type WriteHalf = OwnedWriteHalf<TcpStream>;

const WHOLE: &str = "a stream is whole except while its two directions are relayed at once";

impl Stream {
    /// Takes over an accepted connection.
    ///
    /// # Errors
    /// What the runtime says when it registers the descriptor (epoll only).
    pub(crate) fn from_accepted(tcp: std::net::TcpStream, wheel: &Rc<Wheel>) -> io::Result<Self> {
        Ok(Self::new(TcpStream::from_std(tcp)?, wheel))
    }

    /// Connects to `address` within `timeout`.
    ///
    /// # Errors
    /// What connect(2) says, or `TimedOut`.
    pub(crate) async fn connect(
        address: SocketAddr,
        timeout: Duration,
        wheel: &Rc<Wheel>,
    ) -> io::Result<Self> {
        // A connect is rare; here a timer may drop the future, which closes its socket.
        let connecting = monoio::time::timeout(timeout, TcpStream::connect_addr(address));
        // In a box, for it holds a timer: without that and a pause's, an exchange's state is 1.8 kB
        // instead of 2.4, which saves 5 % at 1,000 connections (bench/README.md).
        let connected = Box::pin(connecting).await;
        let tcp = connected.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        let stream = Self::new(tcp, wheel);
        fd::prepare_upstream(stream.fd)?;
        Ok(stream)
    }

    fn new(tcp: TcpStream, wheel: &Rc<Wheel>) -> Self {
        let fd = tcp.as_raw_fd();
        Self {
            reading: wheel.watch(fd),
            writing: wheel.watch(fd),
            fd,
            tcp: Some(tcp),
        }
    }

    /// It is a client of `listener`, or what its tunnel leads to: it is cut with that.
    pub(crate) fn belongs_to(&self, listener: ListenerId) {
        self.reading.belongs_to(listener);
        self.writing.belongs_to(listener);
    }

    /// The descriptor, for the calls of [`fd`].
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// The deadline of what we read.
    pub(crate) fn reading(&self) -> &Watch {
        &self.reading
    }

    /// The deadline of what we write.
    pub(crate) fn writing(&self) -> &Watch {
        &self.writing
    }

    /// Why the connection was cut, in whichever direction it was late; `None` when what ended it
    /// was the other side.
    pub(crate) fn cut_for(&self) -> Option<Late> {
        self.reading.expired().or_else(|| self.writing.expired())
    }

    /// Waits until something can be read: bytes, an end or an error. Holds no buffer meanwhile.
    ///
    /// # Errors
    /// What the poll says.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.tcp.as_ref().expect(WHOLE).readable(false).await
    }

    /// The direction that we read.
    pub(crate) fn incoming(&mut self) -> Incoming<'_, TcpStream> {
        Incoming {
            io: self.tcp.as_mut().expect(WHOLE),
            watch: &self.reading,
            other: &self.writing,
        }
    }

    /// The direction that we write.
    pub(crate) fn outgoing(&mut self) -> Outgoing<'_, TcpStream> {
        Outgoing {
            io: self.tcp.as_mut().expect(WHOLE),
            watch: &self.writing,
            fd: self.fd,
        }
    }

    /// Takes the two directions apart, to relay both at once, until [`Stream::unite`]. Allocates.
    pub(crate) fn divide(&mut self) -> (ReadHalf, WriteHalf) {
        self.tcp.take().expect(WHOLE).into_split()
    }

    /// Ends what [`Stream::divide`] began.
    pub(crate) fn unite(&mut self, read: ReadHalf, write: WriteHalf) {
        let tcp = read
            .reunite(write)
            .expect("both halves come from this stream");
        self.tcp = Some(tcp);
    }

    /// One half of a divided stream.
    pub(crate) fn incoming_half<'a>(&'a self, half: &'a mut ReadHalf) -> Incoming<'a, ReadHalf> {
        Incoming {
            io: half,
            watch: &self.reading,
            other: &self.writing,
        }
    }

    /// The other half.
    pub(crate) fn outgoing_half<'a>(&'a self, half: &'a mut WriteHalf) -> Outgoing<'a, WriteHalf> {
        Outgoing {
            io: half,
            watch: &self.writing,
            fd: self.fd,
        }
    }
}

impl<T: AsyncReadRent> Incoming<'_, T> {
    /// Reads once, behind what `buffer` holds; 0 is the end.
    pub(crate) async fn read(&mut self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let read = pin!(self.io.read(buffer));
        noting(self.watch.turns(), read).await
    }

    /// As [`Incoming::read`], with the deadline set before and taken away after.
    pub(crate) async fn read_within(
        &mut self,
        buffer: Buffer,
        ticks: Ticks,
        late: Late,
    ) -> (io::Result<usize>, Buffer) {
        self.watch.arm(ticks, late);
        let (read, buffer) = self.read(buffer).await;
        self.watch.disarm();
        (read, buffer)
    }

    /// The direction's deadline.
    pub(crate) fn watch(&self) -> &Watch {
        self.watch
    }

    /// Why the connection was cut, in whichever direction it was late; `None` when what ended it
    /// was the other side.
    pub(crate) fn cut_for(&self) -> Option<Late> {
        self.watch.expired().or_else(|| self.other.expired())
    }
}

impl<T: CancelableAsyncReadRent> Incoming<'_, T> {
    /// As [`Incoming::read`], unless it is called off: then it ends at once, with what had come by
    /// then or with an error of its own ([`is_called_off`]). No byte is lost. Allocates.
    pub(crate) async fn read_unless(
        &mut self,
        buffer: Buffer,
        calling_off: &CallOff,
    ) -> (io::Result<usize>, Buffer) {
        let handle = calling_off.canceller.borrow().handle();
        let read = pin!(self.io.cancelable_read(buffer, handle));
        noting(self.watch.turns(), read).await
    }
}

/// Calls off a read that is under way, whose completion is still awaited: its buffer is in use
/// until then.
#[derive(Default)]
pub(crate) struct CallOff {
    canceller: RefCell<Canceller>,
}

impl CallOff {
    /// Calls off what is under way.
    pub(crate) fn call_off(&self) {
        self.canceller
            .replace_with(|canceller| std::mem::take(canceller).cancel());
    }
}

impl std::fmt::Debug for CallOff {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CallOff").finish_non_exhaustive()
    }
}

/// True exactly when a read ended with `error` because it was called off.
pub(crate) fn is_called_off(error: &io::Error) -> bool {
    fd::is_canceled(error)
}

impl<T: AsyncWriteRent> Outgoing<'_, T> {
    /// Writes what `buffer` is set to send; each write that the peer takes anything of starts the
    /// deadline anew.
    pub(crate) async fn write<B: Sending>(
        &mut self,
        mut buffer: B,
        ticks: Ticks,
        late: Late,
    ) -> (io::Result<()>, B) {
        while 0 < buffer.unsent() {
            self.watch.arm(ticks, late);
            let write = pin!(self.io.write(buffer));
            let (written, back) = noting(self.watch.turns(), write).await;
            buffer = back;
            match written {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(count) => buffer.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        self.watch.disarm();
        (Ok(()), buffer)
    }

    /// The direction's deadline.
    pub(crate) fn watch(&self) -> &Watch {
        self.watch
    }

    /// Ends directions of this connection at once.
    pub(crate) fn cut(&self, directions: Cut) {
        fd::cut(self.fd, directions);
    }
}

/// A listening socket of this shard.
#[derive(Debug)]
pub(crate) struct Listening {
    // The runtime's stream is used for its readiness alone: its listener has none, and its accept
    // leaks what it has accepted when dropped.
    tcp: TcpStream,
}

impl Listening {
    /// Takes over the shard's own duplicate of a listening socket.
    ///
    /// # Errors
    /// What the runtime says when it registers the descriptor (epoll only).
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            tcp: TcpStream::from_std(socket.into())?,
        })
    }

    /// The descriptor, for the calls of [`fd`].
    pub(crate) fn fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }

    /// Waits until a client may be waiting. May be dropped: no client is lost.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.tcp.readable(false).await
    }

    /// The client that has waited longest, if there is one.
    ///
    /// # Errors
    /// What accept4(2) says, `EMFILE` among it.
    pub(crate) fn accept(
        &self,
        nonblocking: bool,
    ) -> io::Result<Option<(std::net::TcpStream, SocketAddr)>> {
        fd::accept(self.tcp.as_raw_fd(), nonblocking)
    }
}

/// Waits for `duration`. For what is rare: the tick, an accept's back-off. Not for an exchange: a
/// timer is large and aligned to a pair of cache lines, and whatever may sleep holds room for it.
pub(crate) async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Starts a task that nobody waits for; `caught` is called when it panics. `clock` is told whenever
/// it runs.
pub(crate) fn spawn(
    clock: &Rc<Clock>,
    task: impl Future<Output = ()> + 'static,
    caught: impl FnOnce() + 'static,
) {
    // The box keeps the task at its own size: as an argument of an async function it would be held
    // twice.
    let mut task = Caught(Box::pin(task));
    let clock = Rc::clone(clock);
    let task = poll_fn(move |context| {
        clock.task_runs();
        Pin::new(&mut task).poll(context)
    });
    // Dropping the handle detaches the task.
    drop(monoio::spawn(async move {
        if task.await.is_err() {
            caught();
        }
    }));
}

/// A future whose panic is its output. What it owned is dropped by then.
#[derive(Debug)]
pub(crate) struct Caught<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A task shares only `Cell`s and `RefCell`s with the others, and holds no borrow across an
        // await.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_payload) => Poll::Ready(Err(Panicked)),
        }
    }
}

/// A task panicked; the panic hook has said why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panicked;

/// Runs one operation and counts it in `turns` if it was ready at once, as on epoll it may be: then
/// the shard's other tasks have had no turn. Where it has to wait, they have.
fn noting<T>(
    turns: &Cell<u32>,
    mut operation: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = T> {
    poll_fn(move |context| {
        let polled = operation.as_mut().poll(context);
        turns.set(if polled.is_pending() {
            0
        } else {
            turns.get() + 1
        });
        polled
    })
}

/// Runs both futures to their ends, in one task. Futures are pinned by the caller here and below:
/// as an argument of an async function one would be held twice.
pub(crate) fn both<A, B>(
    mut first: Pin<&mut impl Future<Output = A>>,
    mut second: Pin<&mut impl Future<Output = B>>,
) -> impl Future<Output = (A, B)> {
    let (mut first_output, mut second_output) = (None, None);
    poll_fn(move |context| {
        poll_into(first.as_mut(), &mut first_output, context);
        poll_into(second.as_mut(), &mut second_output, context);
        match (first_output.take(), second_output.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (first_output, second_output) = (first, second);
                Poll::Pending
            }
        }
    })
}

fn poll_into<T>(
    future: Pin<&mut impl Future<Output = T>>,
    output: &mut Option<T>,
    context: &mut Context<'_>,
) {
    if output.is_none()
        && let Poll::Ready(ready) = future.poll(context)
    {
        *output = Some(ready);
    }
}

/// Runs `main` to its end, and `aside` beside it for as long; only for one that loses nothing when
/// it is dropped.
pub(crate) fn beside<T>(
    mut main: Pin<&mut impl Future<Output = T>>,
    mut aside: Pin<Box<impl Future<Output = ()>>>,
) -> impl Future<Output = T> {
    let mut is_over = false;
    poll_fn(move |context| {
        let polled = main.as_mut().poll(context);
        if polled.is_pending() && !is_over {
            is_over = aside.as_mut().poll(context).is_ready();
        }
        polled
    })
}

/// Waits for whichever comes first and drops the other; only for waits that lose nothing by that.
pub(crate) async fn either(first: impl Future, second: impl Future) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if first.as_mut().poll(context).is_ready() || second.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Lets tasks wait for a short while without a timer of their own: one task has it for all.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    wanted: Bell,
    over: Bell,
}

impl Pause {
    /// Waits until the others have had their turn.
    pub(crate) async fn take(&self) {
        self.wanted.ring();
        self.over.rung().await;
    }

    /// The task that times the pauses, each at most `duration`. To be spawned once.
    pub(crate) async fn time(&self, duration: Duration) {
        loop {
            self.wanted.rung().await;
            sleep(duration).await;
            // Also whoever came while it slept.
            self.over.ring();
        }
    }

    /// Lets the timing task go: nothing but the bell holds it, and it holds its shard.
    pub(crate) fn dismiss(&self) {
        self.wanted.clear();
    }
}

/// Wakes the tasks of this shard that wait for a change: of the plan, of the number of clients.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Bell {
    /// Wakes everybody who waits.
    pub(crate) fn ring(&self) {
        self.rung.set(self.rung.get() + 1);
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Forgets who waits.
    pub(crate) fn clear(&self) {
        self.waiting.borrow_mut().clear();
    }

    /// Waits for the next [`Bell::ring`].
    pub(crate) async fn rung(&self) {
        let heard = self.rung.get();
        poll_fn(|context| {
            if self.rung.get() != heard {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
