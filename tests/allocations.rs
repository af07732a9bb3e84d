//! In the steady state an exchange allocates nothing: counted on the shard's own thread.
//!
//! The proxy runs in this process, so that this binary's allocator is the shard's too.

#![expect(
    unsafe_code,
    reason = "an allocator that counts is unsafe by its trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use ringmain::balance::{Candidates, Load, Member, POLICIES, Picker, Xorshift, generator};
use ringmain::{boot, config};

/// Counts what shard threads allocate while it is asked to.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is a shard's; `None` until it was looked up.
    static IS_SHARD: Cell<Option<bool>> = const { Cell::new(None) };
    /// What this thread has allocated.
    static OWN: Cell<u64> = const { Cell::new(0) };
}

fn is_shard() -> bool {
    IS_SHARD.with(|known| {
        known.get().unwrap_or_else(|| {
            let mut name = [0_u8; 16];
            // SAFETY: the kernel's thread names are at most 16 bytes, their zero included.
            unsafe {
                libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr().cast(), name.len())
            };
            let is_shard = name.starts_with(b"shard-");
            known.set(Some(is_shard));
            is_shard
        })
    })
}

fn count() {
    OWN.set(OWN.get() + 1);
    if COUNTING.load(Ordering::Relaxed) && is_shard() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds of two exchanges a client in one pass.
const ROUNDS: usize = 200;
const CLIENTS: usize = 16;
/// Passes within which the stock must have seen its most.
const PASSES_MAX: usize = 10;

#[test]
fn an_exchange_allocates_nothing_in_the_steady_state() {
    for driver in ["io_uring", "epoll"] {
        check(driver, CLIENTS, "");
        // Of each round most have to wait for a connection.
        let limit = "[service.pool]\nconnections_max = 3\nqueue = \"10s\"\n";
        check(driver, 3, limit);
        // Limits that nobody reaches, and a route that looks at all that one may look at.
        let limits = "[service.limits]\nclient_rate = 10000000\nclient_concurrent = 10000000\n\
                      rate = 100000000\nconcurrent = 10000000\n\
                      [[route]]\nfields = { Host = \"a\", X-No = \"1\" }\nquery = { q = \"1\" }\n\
                      weights = { a = 1 }\n\
                      [[route]]\nweights = { a = 1 }\n";
        check(driver, CLIENTS, limits);
    }
}

#[test]
fn a_pick_allocates_nothing_under_any_policy() {
    let members: Vec<_> = (0..20)
        .map(|id| Member {
            id,
            weight: 1 + id as u32 % 5,
        })
        .collect();
    let mut generator = generator();
    for policy in &POLICIES {
        let mut picker = (policy.make)(&members).of_shard(&mut generator);
        let mut stage = Stage {
            load: Load::default(),
            out: 0,
        };
        let before = OWN.get();
        pick_with_many_out(&mut *picker, &mut stage, &mut generator);
        assert_eq!(OWN.get() - before, 0, "{policy:?}");
    }
}

/// Picks with none out, then one more at a time, until all are.
fn pick_with_many_out(picker: &mut dyn Picker, stage: &mut Stage, generator: &mut Xorshift) {
    for out in 0..=20 {
        stage.out = out;
        for _ in 0..50 {
            let picked = picker.pick(stage, generator);
            assert!(picked.map_or(out == 20, |place| out <= place));
        }
    }
}

/// Endpoints of which the first few are out.
struct Stage {
    load: Load,
    out: usize,
}

impl Candidates for Stage {
    fn is_in(&self, place: usize) -> bool {
        self.out <= place
    }

    fn load(&self, _place: usize) -> &Load {
        &self.load
    }

    fn now(&self) -> u64 {
        0
    }

    fn key(&self) -> u64 {
        self.out as u64
    }
}

/// As many requests are at the origin `together` as can be.
#[track_caller]
fn check(driver: &str, together: usize, keys: &str) {
    let origin = origin(together);
    let text = format!(
        "[runtime]\nshards = 1\ndriver = \"{driver}\"\ndrain_timeout = \"0s\"\n\
         [admin]\naddress = \"\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nservice = \"a\"\n\
         [[service]]\nname = \"a\"\npolicy = \"round_robin\"\nbackends = [\"{origin}\"]\n\
         backend_field = \"X-Backend\"\n\
         [service.fields]\nrequest_set = {{ \"X-Set\" = \"1\" }}\n{keys}"
    );
    let config = config::parse("test", &text).expect("the configuration is valid");
    let (tell, told) = mpsc::channel();
    let proxy = thread::spawn(move || {
        let ended = boot::run(&config, None, boot::Options::default(), &mut |bound| {
            tell.send(bound.listeners[0].1)
                .expect("the test waits for it");
        });
        ended.expect("the proxy starts")
    });
    let address = told.recv().expect("the proxy gets ready");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| TcpStream::connect(address).expect("it listens"))
        .collect();
    let request = b"GET /together HTTP/1.1\r\nHost: a\r\n\r\n";
    round(&mut clients[..together], request);
    // What is held at once of each kind depends on who is faster, and the most of it is allocated
    // once: at most so many passes see a new most. An exchange that allocates does so in all.
    let passes = (0..PASSES_MAX).map(|_| allocations_of(&mut clients));
    let settled = passes.take_while(|allocations| *allocations != 0).count();
    // SAFETY: a signal to this process, which the proxy's control has taken over.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    drop(clients);
    proxy.join().expect("the proxy ends");
    assert!(
        settled < PASSES_MAX,
        "{driver}, {together} together: no pass without an allocation"
    );
}

/// What the shard allocates in one pass of exchanges.
fn allocations_of(clients: &mut [TcpStream]) -> u64 {
    ALLOCATIONS.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
    exchanges(clients);
    COUNTING.store(false, Ordering::Relaxed);
    ALLOCATIONS.load(Ordering::Relaxed)
}

fn exchanges(clients: &mut [TcpStream]) {
    for _ in 0..ROUNDS {
        round(
            clients,
            b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
        );
        round(
            clients,
            b"POST /b?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        );
    }
}

/// Sends every client's request, then reads every answer.
fn round(clients: &mut [TcpStream], request: &[u8]) {
    let mut answer = [0; 4096];
    for client in &mut *clients {
        client.write_all(request).expect("the proxy reads");
    }
    for client in &mut *clients {
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\nhi") {
            let read = client
                .read(&mut answer[length..])
                .expect("the proxy answers");
            assert_ne!(read, 0, "the connection is kept");
            length += read;
        }
    }
}

/// An origin that answers with `hi`: `/together` when so many requests are here, the others at
/// once.
fn origin(together: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let together = Arc::new(Barrier::new(together));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("it connects");
            let together = Arc::clone(&together);
            thread::spawn(move || answer(connection, &together));
        }
    });
    address
}

fn answer(mut connection: TcpStream, together: &Barrier) {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        match connection.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&part[..count]),
        }
        if request.ends_with(b"\r\n\r\n") || request.ends_with(b"hello") {
            if request.starts_with(b"GET /together") {
                together.wait();
            }
            request.clear();
            let sent = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            if sent.is_err() {
                return;
            }
        }
    }
}
