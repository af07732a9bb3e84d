//! The admin API: HTTP on control's own thread, for operators and their tools.
//!
//! Its handlers (`routes.rs`) ask control's loop through a channel and await the answer; they touch
//! nothing themselves. There are few clients at once, each with one request on its connection and
//! half a minute for it, so that one that is stuck costs nothing that others need.

mod admit;
mod query;
mod routes;
mod socket;
mod wanted;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::config::AdminAddress;

use admit::Reach;
pub use query::{PlanFormat, ReportQuery};
pub use routes::ROUTES;
use routes::router;
use socket::SocketFile;
pub use wanted::{Reply, Wanted, WantedReport};

/// How many clients are served at once; further ones wait in the socket's queue.
const CLIENTS_MAX: u32 = 32;

/// From a connection to the end of its request's head.
const HEAD: Duration = Duration::from_secs(5);

/// The same where few of the places are left: clients that say nothing shall not keep the probes of
/// an orchestrator waiting.
const HEAD_IN_A_CROWD: Duration = Duration::from_millis(500);

/// So many places are few.
const FEW: usize = CLIENTS_MAX as usize / 4;

/// From a connection to its end.
const CONVERSATION: Duration = Duration::from_secs(30);

/// How much of a head is read; hyper's least is 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long the end of the process waits for clients to take their answers.
const FAREWELL: Duration = Duration::from_secs(1);

/// The rest after an accept that failed.
const REST: Duration = Duration::from_secs(1);

/// A socket that listens and is not served yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    /// With the port that the kernel chose.
    address: AdminAddress,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    /// Without its file where that is somebody else's.
    Unix(std::os::unix::net::UnixListener, Option<SocketFile>),
}

/// The admin API while it is served.
#[derive(Debug)]
pub struct Serving {
    clients: Arc<Semaphore>,
    ending: watch::Sender<bool>,
    /// Goes away with this.
    file: Option<SocketFile>,
}

impl Bound {
    /// Listens where `address` says; `None` where it is off. A file that a process has left behind
    /// is replaced.
    ///
    /// # Errors
    /// What bind(2) says, `AddrInUse` where somebody listens there.
    pub fn open(address: &AdminAddress) -> io::Result<Option<Self>> {
        let (socket, address) = match address {
            AdminAddress::Off => return Ok(None),
            AdminAddress::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                (Socket::Tcp(listener), AdminAddress::Tcp(address))
            }
            AdminAddress::Unix(path) => {
                let (listener, file) = socket::listen(path)?;
                (Socket::Unix(listener, Some(file)), address.clone())
            }
        };
        Ok(Some(Self { socket, address }))
    }

    /// The socket that listens already, at `address`: this process was started with it. One that
    /// `is_kept` by systemd as well keeps its file when this process ends.
    ///
    /// # Errors
    /// Where its file is gone.
    pub fn inherited(address: &AdminAddress, socket: OwnedFd, is_kept: bool) -> io::Result<Self> {
        let (socket, address) = match address {
            AdminAddress::Unix(path) => {
                let own = (!is_kept).then(|| SocketFile::of(path));
                let file = own.transpose()?;
                (Socket::Unix(socket.into(), file), address.clone())
            }
            AdminAddress::Off | AdminAddress::Tcp(_) => {
                let listener = std::net::TcpListener::from(socket);
                let address = AdminAddress::Tcp(listener.local_addr()?);
                (Socket::Tcp(listener), address)
            }
        };
        Ok(Self { socket, address })
    }

    /// A duplicate of its socket, for the process that takes the place of this one.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Socket::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Serves on the current runtime; what is asked for goes into `wanted`.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub fn serve(self, wanted: mpsc::Sender<Wanted>) -> io::Result<Serving> {
        let router = router(Reach::of(&self.address), wanted);
        let (listener, file) = match self.socket {
            Socket::Tcp(listener) => (Listener::Tcp(TcpListener::from_std(listener)?), None),
            Socket::Unix(listener, file) => {
                let listener = UnixListener::from_std(listener)?;
                (Listener::Unix(listener), file)
            }
        };
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX as usize));
        let (ending, end) = watch::channel(false);
        tokio::spawn(accept_all(listener, router, Arc::clone(&clients), end));
        Ok(Serving {
            clients,
            ending,
            file,
        })
    }
}

impl Serving {
    /// Accepts nobody any more: another process does, with the same socket, whose file is its own
    /// from now on. Who is served gets the answer.
    pub fn leave_to_successor(&mut self) {
        if let Some(file) = self.file.take() {
            file.keep();
        }
        // It fails when the accept loop has ended.
        let _all_gone = self.ending.send(true);
    }

    /// Accepts nobody any more, and returns when everybody has their answer, or has not taken it
    /// for a while.
    pub async fn finish(self) {
        // It fails when the accept loop has ended, with its last connection.
        let _all_gone = self.ending.send(true);
        // An error would say that the semaphore is closed, which it never is.
        let _answered = timeout(FAREWELL, self.clients.acquire_many(CLIENTS_MAX)).await;
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Serves until `end` comes, each client in a task that holds one of the permits of `clients`.
async fn accept_all(
    listener: Listener,
    router: Router,
    clients: Arc<Semaphore>,
    mut end: watch::Receiver<bool>,
) {
    loop {
        let next = async {
            let permit = Arc::clone(&clients).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            _ = end.changed() => return,
            next = next => next,
        };
        match accepted {
            Ok(stream) => {
                let crowded = clients.available_permits() < FEW;
                let head = if crowded { HEAD_IN_A_CROWD } else { HEAD };
                let conversation = converse(stream, head, router.clone(), end.clone());
                tokio::spawn(async move {
                    // Over its time the connection is dropped, and so closed.
                    let _in_time = timeout(CONVERSATION, conversation).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn!(error:%; "the admin API cannot accept; resting");
                sleep(REST).await;
            }
        }
    }
}

/// One request and its answer. When `end` comes, an answer that is on its way still leaves.
async fn converse(
    stream: Box<dyn Stream>,
    head: Duration,
    router: Router,
    mut end: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        // A client that has sent all may say so and wait for its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = end.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        log::debug!(error:%; "a client of the admin API is gone");
    }
}
