//! What a reload and an upgrade cost those who are served meanwhile: nothing.
//!
//! Each test is there in two lengths: a short one, and, with `RINGMAIN_SOAK=long`, that of
//! `scripts/soak`, which takes minutes.

mod load;

use std::fs;
use std::time::Instant;

use load::Load;

use crate::support::{Driver, Origin, Proxy, Served, Setup, Wire, on_both_drivers};

on_both_drivers! {
    reloads_are_not_noticed
    reloads_leave_nothing_behind
    upgrades_are_not_noticed
}

/// `long` where that was asked for, else `short`.
fn length(short: usize, long: usize) -> usize {
    match std::env::var("RINGMAIN_SOAK").as_deref() {
        Ok("long") => long,
        other => {
            assert!(other.is_err(), "RINGMAIN_SOAK={other:?}; allowed: long");
            short
        }
    }
}

/// What a soak has to say, where somebody looks (`--nocapture`).
#[expect(clippy::print_stdout, reason = "scripts/soak shows it")]
fn say(text: &str) {
    println!("{text}");
}

/// Origins, and configurations that share some of them.
struct Scene {
    driver: Driver,
    stays: Served,
    moves: [Served; 4],
    bytes: Origin,
    upgrades: Origin,
}

impl Scene {
    fn new(driver: Driver) -> Self {
        Self {
            driver,
            stays: Served::saying("stays"),
            moves: [(); 4].map(|()| Served::saying("moves")),
            bytes: Origin::new(),
            upgrades: Origin::new(),
        }
    }

    /// The configuration number `turn`: what it lacks or has beside others, and in which order,
    /// changes with each.
    fn setup(&self, turn: usize) -> Setup {
        let moves = self.moves.iter().map(Served::address);
        let mut moves: Vec<_> = moves.collect();
        moves.rotate_left(turn % 4);
        moves.truncate(1 + turn % 3);
        let mut services = vec![
            ("stays", vec![self.stays.address()]),
            ("moves", moves),
            ("bytes", vec![self.bytes.address()]),
            ("upgrades", vec![self.upgrades.address()]),
        ];
        if turn % 2 == 1 {
            services.push(("guest", vec![self.stays.address()]));
        }
        let count = services.len();
        services.rotate_left(turn % count);
        let mut setup = Setup::new(self.driver).shards(2);
        for (name, backends) in services {
            setup = setup.service(name, &backends, "");
        }
        if turn % 5 == 3 {
            setup = setup.tables(&listener("guest", ""));
        }
        let tcp = listener("tcp", "protocol = \"tcp\"\nservice = \"bytes\"\n");
        setup.tables(&tcp)
    }

    /// A client and its origin with a tunnel between them.
    fn tunnels(&self, proxy: &Proxy) -> [(Wire, Wire); 2] {
        let request = "GET / HTTP/1.1\r\nHost: upgrades.test\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\n\r\n";
        let mut client = proxy.client();
        let mut origin = self.upgrades.gets(&mut client, request);
        origin.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n\r\n",
        );
        assert_eq!(client.head().status(), 101);
        let mut session = Wire::connect(proxy.addresses()["tcp"]);
        session.send("hello");
        let mut other = self.bytes.accept();
        other.take(5);
        [(client, origin), (session, other)]
    }
}

fn listener(name: &str, keys: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{keys}")
}

/// Something goes each way.
fn are_open(tunnels: &mut [(Wire, Wire)]) {
    for (client, origin) in tunnels {
        client.send("there");
        assert_eq!(origin.take(5), b"there");
        origin.send("back");
        assert_eq!(client.take(4), b"back");
    }
}

const HOSTS: [(&str, &str); 2] = [("stays.test", "stays"), ("moves.test", "moves")];

fn reloads_are_not_noticed(driver: Driver) {
    let reloads = length(20, 200);
    let scene = Scene::new(driver);
    let mut proxy = scene.setup(0).start();
    let mut tunnels = scene.tunnels(&proxy);
    let load = Load::begin(proxy.address(), &HOSTS, 4);
    for turn in 1..=reloads {
        load.goes_on(50);
        proxy.reload(&scene.setup(turn));
        are_open(&mut tunnels);
    }
    let answers = load.end();
    are_open(&mut tunnels);
    say(&format!(
        "{driver:?}: {reloads} reloads, {answers} answers, all right"
    ));
}

fn upgrades_are_not_noticed(driver: Driver) {
    let upgrades = length(3, 20);
    let scene = Scene::new(driver);
    let mut proxy = scene.setup(0).start();
    let load = Load::begin(proxy.address(), &HOSTS, 4);
    for turn in 1..=upgrades {
        load.goes_on(50);
        proxy.write_config(&scene.setup(turn).config());
        proxy.upgrade();
    }
    load.goes_on(50);
    let answers = load.end();
    proxy.predecessors_end();
    say(&format!(
        "{driver:?}: {upgrades} upgrades, {answers} answers, all right"
    ));
}

/// What a process has, which a reload is not to add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
}

impl Holdings {
    /// No more of anything.
    const fn is_within(self, before: Self) -> bool {
        self.descriptors <= before.descriptors && self.threads <= before.threads
    }

    fn of(proxy: &Proxy) -> Self {
        let count = |folder: &str| {
            let path = format!("/proc/{}/{folder}", proxy.id());
            fs::read_dir(path).expect("the process runs").count()
        };
        Self {
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}

/// Bytes that the allocator may keep for itself, over as many reloads as may be.
const SLACK_KIB: u64 = 4096;

fn reloads_leave_nothing_behind(driver: Driver) {
    let reloads = length(60, 1_000);
    let scene = Scene::new(driver);
    let mut proxy = scene.setup(0).start();
    let load = Load::begin(proxy.address(), &HOSTS, 1);
    let turns = |proxy: &mut Proxy, count: usize| {
        for turn in (1..=count).chain([0]) {
            proxy.reload(&scene.setup(turn));
        }
    };
    // Caches and stocks get to their sizes.
    turns(&mut proxy, 60);
    load.goes_on(1_000);
    let (before, memory) = (Holdings::of(&proxy), proxy.memory_kib());
    #[expect(clippy::disallowed_methods, reason = "a soak says how long it took")]
    let begun = Instant::now();
    turns(&mut proxy, reloads);
    let each = begun.elapsed() / reloads as u32;
    load.goes_on(1_000);
    load.end();
    // What was there for an exchange or a listener that left goes within a tick or two.
    let is_back = (0..100_000).any(|_| Holdings::of(&proxy).is_within(before));
    let after = Holdings::of(&proxy);
    assert!(is_back, "{before:?} became {after:?}");
    let grown = proxy.memory_kib().saturating_sub(memory);
    say(&format!(
        "{driver:?}: {reloads} reloads of {each:?}, {memory} KiB and {grown} KiB more, {after:?}"
    ));
    assert!(grown < SLACK_KIB, "{memory} KiB became {grown} KiB more");
}
