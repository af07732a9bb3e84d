//! The edge to the kernel: the few calls that need raw descriptors or `unsafe`.
//!
//! What a safe crate offers on an owned socket (`socket2`) is used where the owner is at hand. Here
//! stands what acts on a descriptor whose owner lives elsewhere: a deadline cuts a connection that
//! a task is reading, a pool looks at a socket inside a stream of the runtime.

#![expect(unsafe_code, reason = "this is the edge to the kernel")]

pub mod inherited;

use std::fs::{File, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, TcpKeepalive, Type};

/// Which directions of a connection to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What the other side sends: a pending read ends with what is there, or with nothing.
    Reading,
    /// What we send: the other side reads its end.
    Writing,
    /// Both.
    Both,
}

/// Ends directions of the connection `fd` (shutdown(2)); pending operations on it complete. A
/// connection that has already ended is left alone: there is nothing to be told about it.
pub fn cut(fd: RawFd, directions: Cut) {
    let how = match directions {
        Cut::Reading => libc::SHUT_RD,
        Cut::Writing => libc::SHUT_WR,
        Cut::Both => libc::SHUT_RDWR,
    };
    // SAFETY: shutdown(2) touches no memory of ours. That `fd` still names the caller's connection
    // is the caller's rule: a deadline's entry dies before its stream does (shard/deadline.rs).
    let _ = unsafe { libc::shutdown(fd, how) };
}

/// Makes the close of the connection `fd` a reset: the other side must not take what it has read
/// for the whole (RFC 9112 section 8).
pub fn reset_at_close(fd: RawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option's value is a `linger` that lives across the call, with its own size beside
    // it.
    let _ = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

/// Closes the descriptors of a shard that died with its runtime.
pub fn close_orphan(fd: RawFd) {
    // SAFETY: the shard's thread has unwound and its runtime is forgotten, so nobody else will use
    // or close `fd`.
    let _ = unsafe { libc::close(fd) };
}

/// True exactly when an operation ended because its task called it off.
pub fn is_canceled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

/// True exactly when nothing can be read from the idle connection `fd`: no byte, no end, no error.
/// One system call.
pub fn is_quiet(fd: RawFd) -> bool {
    peek(fd) < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

/// True exactly when bytes of the connection `fd` have come that nobody has read. One system call.
pub fn has_unread(fd: RawFd) -> bool {
    0 < peek(fd)
}

/// True exactly when bytes that were sent on the connection `fd` have not reached the other side,
/// as far as it has said so. One system call (ioctl(2) with SIOCOUTQ).
pub fn has_unsent(fd: RawFd) -> bool {
    let mut unsent: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `unsent`, which lives across the call. (tcp(7): TIOCOUTQ
    // is SIOCOUTQ.)
    let told = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut unsent) };
    told == 0 && 0 < unsent
}

/// What recv(2) says of one byte with MSG_PEEK.
fn peek(fd: RawFd) -> isize {
    let mut byte = MaybeUninit::<u8>::uninit();
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most one byte to `byte`, which lives across the call.
    unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, flags) }
}

/// Copies what has come on the connection `fd`, as far as it fits into `bytes`, and leaves it to be
/// read; says how many bytes that are, 0 at the end. One system call.
///
/// # Errors
/// What recv(2) says, `WouldBlock` where nothing has come.
pub fn look(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    receive(fd, bytes, libc::MSG_PEEK)
}

/// As [`look`], and takes it off the connection.
///
/// # Errors
/// As [`look`].
pub fn take(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    receive(fd, bytes, 0)
}

fn receive(fd: RawFd, bytes: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most as many bytes as the slice has, which lives across the
    // call. That `fd` still names the caller's connection is the caller's rule.
    let received = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) };
    usize::try_from(received).map_err(|_negative| io::Error::last_os_error())
}

/// True exactly when the connection `fd` has ended both ways or is in error, also where a pending
/// operation has taken that error already. One system call (poll(2)).
pub fn is_gone(fd: RawFd) -> bool {
    let mut polled = libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    };
    // SAFETY: the kernel reads and writes one entry, which lives across the call; it does not wait.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents != 0
}

/// A listening socket: close-on-exec, not blocking, SO_REUSEPORT (so that each shard has its own)
/// and TCP_NODELAY, which the accepted sockets inherit.
///
/// # Errors
/// What socket(2), bind(2) or listen(2) say.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let socket = bind(address)?;
    start_listening(&socket, backlog)?;
    Ok(socket)
}

/// As [`listen`], and nobody can connect to it before [`start_listening`].
///
/// # Errors
/// What socket(2) or bind(2) say.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // One listener is one address; 0.0.0.0 beside [::] must not depend on a sysctl.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Has the kernel drop every SYN for a listening socket from now on, for all its holders. A
/// handshake that has begun completes; a client whose SYN is dropped sends it again after a second.
/// Who is accepted inherits the filter, which no segment of an established connection meets.
///
/// # Errors
/// What setsockopt(2) says.
pub fn drop_syns(socket: &impl AsFd) -> io::Result<()> {
    /// Where the flags stand in a TCP header (RFC 9293 section 3.1), which is what the filter sees.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let statement = |code: u32, k| SockFilter::new(code as u16, 0, 0, k);
    let is_syn = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let filter = [
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK),
        SockFilter::new(is_syn as u16, 0, 1, SYN),
        statement(libc::BPF_RET | libc::BPF_K, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ];
    SockRef::from(&socket.as_fd()).attach_filter(&filter)
}

/// The number by which the kernel knows a socket, whoever holds it.
///
/// # Errors
/// What fcntl(2) or fstat(2) say.
pub fn inode(socket: &impl AsFd) -> io::Result<u64> {
    let file = File::from(socket.as_fd().try_clone_to_owned()?);
    Ok(file.metadata()?.ino())
}

/// Lets clients connect to a socket that is bound; to one that listens, its queue may hold
/// `backlog` of them from now on.
///
/// # Errors
/// What listen(2) says.
pub fn start_listening(socket: &OwnedFd, backlog: i32) -> io::Result<()> {
    SockRef::from(socket).listen(backlog)
}

/// Finds out whether `address` is free: with SO_REUSEPORT alone, a second process of the same user
/// would share the port unseen.
///
/// # Errors
/// What socket(2) or bind(2) say, `EADDRINUSE` where somebody listens there.
pub fn probe_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of an earlier process in TIME_WAIT do not matter.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// A listening socket at `path`, close-on-exec, not blocking, which its owner alone may connect to
/// (mode 0600).
///
/// # Errors
/// What socket(2), fchmod(2), bind(2) or listen(2) say.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    /// Clients that may wait to be accepted.
    const BACKLOG: i32 = 64;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Linux gives the file that bind makes the mode that the socket has: there is no moment at
    // which others could connect.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection to the socket at `path`; waits at most `patience` for room in its queue of clients.
/// (The standard library's connect waits for ever where the process that listens is stopped.)
///
/// # Errors
/// What socket(2) or connect(2) say, `WouldBlock` where there is no room in time.
pub fn connect_at(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // unix(7): connect waits as long as a write would.
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// A socket, close-on-exec and not blocking, whose connection to `address` has begun: writing to it
/// fails with `WouldBlock` until the connection is there, and with the connection's error where
/// there will be none. Two system calls.
///
/// # Errors
/// What socket(2) or connect(2) say at once.
pub fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// The address that a socket is bound to.
///
/// # Errors
/// What getsockname(2) says, or `Unsupported` for a socket that is not of the internet.
pub fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(&socket.as_fd()).local_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The addresses of the connection `fd`: the other side's, and ours. Two system calls.
///
/// # Errors
/// What getpeername(2) or getsockname(2) say, `NotConnected` where the other side is gone, or
/// `Unsupported` for a socket that is not of the internet.
pub fn ends(fd: RawFd) -> io::Result<(SocketAddr, SocketAddr)> {
    // SAFETY: the caller's stream holds `fd` open across the calls.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let other = SockRef::from(&socket).peer_addr()?.as_socket();
    let other = other.ok_or(io::ErrorKind::Unsupported)?;
    Ok((other, local_address(&socket)?))
}

/// Accepts one client, close-on-exec; `None` when nobody waits.
///
/// # Errors
/// What accept4(2) says; a client that left the queue by itself (`ECONNABORTED`) counts as nobody.
pub fn accept(listener: RawFd, nonblocking: bool) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    // SAFETY: the shard's listener is open while its accept loop, the one caller, runs.
    let listener = unsafe { BorrowedFd::borrow_raw(listener) };
    let (socket, address) = match SockRef::from(&listener).accept() {
        Ok(accepted) => accepted,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if nonblocking {
        socket.set_nonblocking(true)?;
    }
    let Some(address) = address.as_socket() else {
        return Ok(None);
    };
    Ok(Some((socket.into(), address)))
}

/// accept(2): network errors that are already pending on the new connection are reported here; they
/// are the client's.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

/// True when the process or the machine has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// True for what ran out on this machine, for which no endpoint is to blame.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

/// Sends what the connection takes at once of `answer`, ends our side, and reads away what has
/// come, so that the close that follows does not reset the answer away (RFC 9112 section 9.6).
pub fn farewell(connection: &TcpStream, answer: &[u8]) {
    let socket = SockRef::from(connection);
    // Whoever does not take it is gone, or too slow for what costs nothing.
    let _sent = socket.send_with_flags(answer, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    let _ended = socket.shutdown(Shutdown::Write);
    let mut bin = [MaybeUninit::uninit(); 4096];
    let _read = socket.recv_with_flags(&mut bin, libc::MSG_DONTWAIT);
}

/// Sends all of `bytes` at once, or nothing. False where the connection takes none now; one that
/// takes a part is ended, for what follows would be read as the rest. `bytes` are few.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of a slice that lives across the call. That `fd`
    // still names the caller's connection is the caller's rule.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    if 0 < sent && sent.unsigned_abs() < bytes.len() {
        cut(fd, Cut::Both);
    }
    0 < sent
}

/// Finds out which connections are gone; keeps its room from one time to the next.
#[derive(Debug)]
pub struct Glance {
    polled: Vec<libc::pollfd>,
}

impl Glance {
    /// Room for `capacity` connections at first.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            polled: Vec::with_capacity(capacity),
        }
    }

    /// Those of `connections` that are gone: reset, or in error. An end of what the other side
    /// sends is no such thing. One system call (poll(2)) for all.
    pub fn gone(
        &mut self,
        connections: impl Iterator<Item = RawFd>,
    ) -> impl Iterator<Item = RawFd> + '_ {
        self.polled.clear();
        // Errors and resets are told of without being asked for.
        self.polled.extend(connections.map(|fd| libc::pollfd {
            fd,
            events: 0,
            revents: 0,
        }));
        let count = self.polled.len() as libc::nfds_t;
        // SAFETY: the kernel reads and writes the `count` entries of the vector, which lives
        // across the call; it does not wait.
        unsafe { libc::poll(self.polled.as_mut_ptr(), count, 0) };
        self.polled
            .iter()
            .filter(|polled| polled.revents != 0)
            .map(|polled| polled.fd)
    }
}

/// Prepares a connected upstream socket: no Nagle delay, and keep-alive probes so that an endpoint
/// that vanished is noticed.
///
/// # Errors
/// What setsockopt(2) says.
pub fn prepare_upstream(fd: RawFd) -> io::Result<()> {
    // SAFETY: the caller's stream holds `fd` open across the call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = SockRef::from(&socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))
}

/// A pipe, close-on-exec and not blocking, and how many bytes it holds: `bytes`, or what a pipe
/// usually does where this user may not have one so large. Its end to read from comes first.
///
/// # Errors
/// What pipe2(2) or fcntl(2) say.
pub fn pipe(bytes: usize) -> io::Result<(OwnedFd, OwnedFd, usize)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors to `ends`, which lives across the call.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are open, and nobody else knows of them.
    let [reader, writer] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: fcntl(2) with these commands touches no memory of ours. Where the first is refused
    // (EPERM, EBUSY), the pipe stays as it is.
    let holds = unsafe {
        libc::fcntl(ends[1], libc::F_SETPIPE_SZ, bytes as libc::c_int);
        libc::fcntl(ends[1], libc::F_GETPIPE_SZ)
    };
    let holds = usize::try_from(holds).map_err(|_| io::Error::last_os_error())?;
    Ok((reader, writer, holds))
}

/// Moves up to `count` bytes between a pipe and a connection that is not to block, whichever way:
/// splice(2). 0 is the end of what `from` has.
///
/// # Errors
/// What splice(2) says, `WouldBlock` where nothing can be moved now.
pub fn splice(from: RawFd, to: RawFd, count: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let none = std::ptr::null_mut();
    // SAFETY: without offsets splice(2) touches no memory of ours. That both descriptors are still
    // the caller's is the caller's rule.
    let moved = unsafe { libc::splice(from, none, to, none, count, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Another descriptor of the connection `fd`, close-on-exec.
///
/// # Errors
/// What fcntl(2) says, `EMFILE` among it.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller's stream holds `fd` open across the call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    socket.try_clone_to_owned()
}

/// From now on no call on the connection `fd` blocks. What the ring has been asked for waits all
/// the same: it polls where a call would block, whatever the flag says.
///
/// # Errors
/// What ioctl(2) says.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: the caller's stream holds `fd` open across the call.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    SockRef::from(&socket).set_nonblocking(true)
}

/// Asks the child `pid`, for which the caller has not waited yet, to end (SIGTERM).
pub fn terminate(pid: u32) {
    // SAFETY: kill(2) touches no memory of ours. Until the caller has waited for it, the child's
    // number is nobody else's.
    let _ = unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

/// Ends every process of the group of `leader`, a child that nobody has waited for.
pub fn kill_group(leader: u32) {
    // SAFETY: killpg(2) touches no memory of ours. Until the caller has waited for it, the child's
    // number, and so its group's, is nobody else's.
    let _ = unsafe { libc::killpg(leader as libc::pid_t, libc::SIGKILL) };
}

/// How far a thread stands back behind the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The making of plans: about a sixth of a CPU that a shard fills. An operator and the probes'
    /// verdicts wait for them, so that they must not take seconds where all CPUs are busy.
    Plans,
    /// The writing of reports: the least that the scheduler knows, about a seventieth.
    Reports,
}

/// Lets the calling thread run behind others (setpriority(2), which on Linux is of the thread). It
/// can't be taken back.
pub fn stand_back(behind: Behind) {
    // sched(7): each step of niceness is a quarter of weight.
    let nice: libc::c_int = match behind {
        Behind::Plans => 7,
        Behind::Reports => 19,
    };
    // SAFETY: setpriority(2) touches no memory. Where it is refused, nothing changes.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// How long the calling thread has run on a CPU, the kernel's part for it included. A system call.
pub fn thread_busy() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives across the call, which fills it.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if answer == 0 {
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    } else {
        Duration::ZERO
    }
}

/// How many descriptors this process may have open (RLIMIT_NOFILE, the soft limit).
pub fn descriptors_max() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives across the call, which fills it.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if answer == 0 { limit.rlim_cur } else { 1024 }
}
