//! Upgrades of the binary: another process takes the place of the one that runs, with its sockets.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{
    DEADLINE, Directory, Driver, GET, Origin, Proxy, Served, Setup, Wire, ok, on_both_drivers,
    run_alone,
};

on_both_drivers! {
    upgrades_under_load_lose_nobody_whatever_the_number_of_shards
    a_configuration_that_is_bad_at_the_upgrade_changes_nothing
    a_binary_that_fails_changes_nothing
    while_an_upgrade_is_under_way_there_is_no_other_and_no_reload
    a_signal_that_ends_the_process_ends_the_one_that_would_follow
    a_signal_that_ends_the_new_process_alone_leaves_the_old_one_its_clients
    the_admin_api_goes_on_with_the_new_process
    a_client_of_the_old_process_gets_its_last_answer
    a_listener_that_the_new_process_has_not_is_emptied_by_the_old_one
    endpoints_are_good_until_their_first_verdict
    what_speaks_of_the_process_alone_is_not_passed_on
    where_the_old_process_dies_the_new_one_goes_on
}

/// Clients that ask until they are told to end, and what they saw.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    answers: AtomicUsize,
}

impl Load {
    /// On a connection for as long as it is kept, or on a new one for each request.
    fn run(&self, address: SocketAddr, kept: bool) {
        let _over = OverOnPanic(self);
        while !self.over.load(Ordering::Relaxed) {
            let mut connection = TcpStream::connect(address).expect("somebody listens");
            connection
                .set_read_timeout(Some(DEADLINE))
                .expect("it is not zero");
            while ask(&mut connection, kept) {
                self.answers.fetch_add(1, Ordering::Relaxed);
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for `count` more answers.
    fn wait(&self, count: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + count;
        while self.answers.load(Ordering::Relaxed) < wanted {
            assert!(!self.over.load(Ordering::Relaxed), "a client has failed");
            thread::yield_now();
        }
    }
}

/// Where one side of the load fails, the other is not to wait for it.
struct OverOnPanic<'a>(&'a Load);

impl Drop for OverOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.over.store(true, Ordering::Relaxed);
        }
    }
}

/// One exchange, which has to succeed. Whether the connection may have another one.
#[track_caller]
fn ask(connection: &mut TcpStream, kept: bool) -> bool {
    let close = if kept { "" } else { "Connection: close\r\n" };
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{close}\r\n");
    connection
        .write_all(request.as_bytes())
        .expect("it is read");
    let (mut answer, mut part) = (String::new(), [0; 1024]);
    while !answer.ends_with("\r\n\r\na") {
        match connection.read(&mut part) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => {
                let count = read.expect("no connection is reset");
                assert_ne!(count, 0, "it ends without an answer: {answer}");
                answer += std::str::from_utf8(&part[..count]).expect("it is text");
            }
        }
    }
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    !answer.to_ascii_lowercase().contains("connection: close")
}

fn upgrades_under_load_lose_nobody_whatever_the_number_of_shards(driver: Driver) {
    let origin = Served::saying("a");
    let setup = |shards| {
        let setup = Setup::new(driver).shards(shards);
        setup.service("a", &[origin.address()], "")
    };
    let mut proxy = setup(1).start();
    let (address, load) = (proxy.address(), Load::default());
    // The new process has the port by its listener's name.
    let written = |shards| setup(shards).config();
    thread::scope(|scope| {
        let _over = OverOnPanic(&load);
        for kept in [true, true, false, false] {
            let load = &load;
            scope.spawn(move || load.run(address, kept));
        }
        let mut seen = vec![proxy.id()];
        for shards in [2, 1, 2, 1] {
            proxy.write_config(&written(shards));
            let pid = proxy.upgrade();
            assert!(!seen.contains(&pid), "{pid}");
            seen.push(pid);
            load.wait(200);
            assert_eq!(proxy.address(), address);
        }
        load.over.store(true, Ordering::Relaxed);
    });
    let report = proxy.report();
    assert_eq!(report.shards.len(), 1);
    assert!(report.faults().is_empty(), "{report:#?}");
}

fn a_configuration_that_is_bad_at_the_upgrade_changes_nothing(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .linked()
        .expects_line("the upgrade failed")
        .service("a", &[origin.address()], "")
        .start();
    let (id, good) = (proxy.id(), fs::read_to_string(proxy.config_file()));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let good = good.expect("it is there");
    // Beside the socket that it has inherited it binds another one, before it fails: who came by
    // that one would be reset.
    let occupied = good.replace("shards = 1", "shards = 2");
    let occupied = format!("{occupied}[[listener]]\nname = \"b\"\naddress = \"{taken}\"\n");
    let unknown = good.replace("shards = 1", "shard = 1");
    let (address, load) = (proxy.address(), Load::default());
    thread::scope(|scope| {
        let _over = OverOnPanic(&load);
        scope.spawn(|| load.run(address, false));
        for (bad, why) in [(unknown, "unknown key"), (occupied, "in use")] {
            proxy.write_config(&bad);
            let line = proxy.failed_upgrade();
            assert!(line.contains(why), "{line}");
            load.wait(20);
        }
        load.over.store(true, Ordering::Relaxed);
    });
    proxy.write_config(&good);
    let new = proxy.upgrade();
    assert_ne!(id, new);
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

/// Puts a script in the place of `binary`.
fn replace(binary: &Path, script: &str) {
    let beside = binary.with_extension("new");
    fs::write(&beside, format!("#!/bin/sh\n{script}\n")).expect("the directory is writable");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::rename(&beside, binary).expect("the directory is writable");
}

fn a_binary_that_fails_changes_nothing(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .linked()
        .expects_line("the upgrade failed")
        .service("a", &[origin.address()], "")
        .start();
    let mut client = proxy.client();
    for (script, why) in [("exit 3", "exit code 3"), ("kill -9 $$", "signal: 9")] {
        replace(&proxy.binary(), script);
        let line = proxy.failed_upgrade();
        assert!(line.contains(why), "{line}");
        assert_eq!(client.get("a.test", "/").text(), "a");
    }
    fs::remove_file(proxy.binary()).expect("it is there");
    let line = proxy.failed_upgrade();
    let binary = proxy.binary();
    let binary = binary.to_str().expect("cargo's directory is UTF-8");
    assert!(
        line.contains(binary) && line.contains("No such file"),
        "{line}"
    );
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn while_an_upgrade_is_under_way_there_is_no_other_and_no_reload(driver: Driver) {
    let origin = Served::saying("a");
    let mut proxy = Setup::new(driver)
        .linked()
        .expects_line("refused")
        .expects_line("the upgrade failed")
        .service("a", &[origin.address()], "")
        .start();
    replace(&proxy.binary(), "exec sleep 1000");
    proxy.begin_upgrade();
    proxy.signal("USR2");
    proxy.log_line("an upgrade is under way");
    proxy.signal("HUP");
    let line = proxy.log_line("a reload is refused");
    assert!(line.contains("an upgrade is under way"), "{line}");
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.kill_heir();
    let line = proxy.log_line("the upgrade failed");
    assert!(line.contains("signal: 9"), "{line}");
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn a_signal_that_ends_the_process_ends_the_one_that_would_follow(driver: Driver) {
    let origin = Origin::new();
    let mut proxy = Setup::new(driver)
        .linked()
        .expects_line("the upgrade is given up")
        .expects_line("the upgrade is refused")
        .service("a", &[origin.address()], "")
        .start();
    replace(&proxy.binary(), "exec sleep 1000");
    proxy.begin_upgrade();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    proxy.log_line("the upgrade is given up");
    proxy.heir_ends();
    // What runs holds the drain.
    proxy.signal("USR2");
    proxy.log_line("this process drains");
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    assert_eq!(proxy.exit_code(), Some(0));
}

fn a_signal_that_ends_the_new_process_alone_leaves_the_old_one_its_clients(driver: Driver) {
    let (hold, probes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (holds, count) = (Arc::clone(&hold), Arc::clone(&probes));
    let origin = Served::new(move |request| {
        if request.head.start.contains("/live") {
            count.fetch_add(1, Ordering::Relaxed);
            while holds.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        }
        ok("a")
    });
    let keys = "[service.probe]\ninterval = \"1h\"\ntimeout = \"10s\"";
    let mut proxy = Setup::new(driver)
        .expects_line("the upgrade failed")
        .service("a", &[origin.address()], keys)
        .start();
    let probed = |times: usize| {
        while probes.load(Ordering::Relaxed) < times {
            thread::yield_now();
        }
    };
    probed(1);
    hold.store(true, Ordering::Relaxed);
    proxy.begin_upgrade();
    probed(2);
    proxy.signal_heir("TERM");
    let line = proxy.log_line("the upgrade failed");
    assert!(line.contains("exit code 0"), "{line}");
    proxy.heir_ends();
    hold.store(false, Ordering::Relaxed);
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.upgrade();
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn the_admin_api_goes_on_with_the_new_process(driver: Driver) {
    let origin = Served::saying("a");
    for unix in [false, true] {
        let directory = Directory::new();
        let path = directory.join("admin");
        let path = path.to_str().expect("cargo's directory is UTF-8");
        let pid_file = directory.join("pid");
        let admin = if unix {
            format!("unix:{path}")
        } else {
            "127.0.0.1:0".to_owned()
        };
        let mut proxy = Setup::new(driver)
            .admin(&admin)
            .runtime(&format!("drain_timeout = \"5s\"\npid_file = {pid_file:?}"))
            .service("a", &[origin.address()], "")
            .start();
        let admin = proxy.admin();
        let process = |proxy: &Proxy| {
            let said = fs::read_to_string(&pid_file).expect("it is there");
            assert_eq!(said, format!("{}\n", proxy.id()));
            let (code, text, errors) =
                run_alone(&["report", "--admin", &admin, "--format", "json"]);
            assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
            let report: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            assert_eq!(report["pid"], proxy.id());
            report["started_seconds"].as_f64().expect("it is a number")
        };
        let before = process(&proxy);
        proxy.upgrade();
        let after = process(&proxy);
        assert!(before < after, "{before} {after}");
        proxy.predecessors_end();
        // What it had left to the new one is still there.
        process(&proxy);
        proxy.signal("TERM");
        assert_eq!(proxy.exit_code(), Some(0));
        assert!(!pid_file.exists());
        assert!(!Path::new(path).exists());
    }
}

fn a_client_of_the_old_process_gets_its_last_answer(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("b"));
    let mut proxy = Setup::new(driver)
        .service("a", &[origin.address()], "")
        .service("b", &[other.address()], "")
        .start();
    let mut busy = proxy.client();
    let mut upstream = origin.gets(&mut busy, GET);
    let (mut kept, mut quiet) = (proxy.client(), proxy.client());
    let closes = |client: &mut Wire| {
        let answer = client.get("b.test", "/");
        assert_eq!(answer.text(), "b");
        answer.head.field("Connection").as_deref() == Some("close")
    };
    assert!(!closes(&mut kept) && !closes(&mut quiet));
    proxy.upgrade();
    // Its shard adopts the plan of the drain at its next tick.
    assert!((0..100_000).any(|_| closes(&mut kept)), "one says close");
    kept.ends();
    // Who comes now is the new one's.
    let mut new = proxy.client();
    assert!(!closes(&mut new));
    // As from systemd, which ends both.
    proxy.signal_first("TERM");
    upstream.send(ok("last"));
    let answer = busy.answer();
    assert_eq!(answer.text(), "last");
    assert_eq!(answer.head.field("Connection").as_deref(), Some("close"));
    busy.ends();
    quiet.ends();
    proxy.predecessors_end();
    assert!(!closes(&mut new));
}

fn a_listener_that_the_new_process_has_not_is_emptied_by_the_old_one(driver: Driver) {
    let origin = Served::saying("a");
    let setup = || Setup::new(driver).service("a", &[origin.address()], "");
    let with = setup().tables("[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"");
    let mut proxy = with.start();
    let other = proxy.addresses()["other"];
    proxy.write_config(&setup().config());
    proxy.upgrade();
    proxy.predecessors_end();
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    let refused = TcpStream::connect(other).expect_err("nobody has it any more");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

fn endpoints_are_good_until_their_first_verdict(driver: Driver) {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let origin = Served::new(move |request| {
        let is_probe = request.head.start.contains("/live");
        match is_probe && failing.load(Ordering::Relaxed) {
            true => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
            false => ok("a"),
        }
    });
    // It takes two tries to be unhealthy, and the second one is far away.
    let keys = "fail_open = false\n[service.probe]\ninterval = \"1h\"\n\
                interval_failing = \"1h\"\ntimeout = \"200ms\"\nwait_first = true\n\
                unhealthy_after = 2";
    let setup = Setup::new(driver).expects_line("unhealthy");
    let mut proxy = setup.service("a", &[origin.address()], keys).start();
    let mut client = proxy.client();
    while client.get("a.test", "/").status() != 200 {}
    fails.store(true, Ordering::Relaxed);
    proxy.upgrade();
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn what_speaks_of_the_process_alone_is_not_passed_on(driver: Driver) {
    let origin = Served::saying("a");
    let keys = "[service.probe]\nkind = \"exec\"\ninterval = \"1h\"\ncommand = [\"sh\", \"-c\", \
                \"! env | grep -E '^(LISTEN_|RINGMAIN_UPGRADE|RINGMAIN_SOCKETS|NOTIFY_)'\"]";
    let mut proxy = Setup::new(driver)
        .environment("NOTIFY_SOCKET", "/proc/no-such/socket")
        .expects_line("systemd is not told")
        .service("a", &[origin.address()], keys)
        .start();
    proxy.upgrade();
    let environment = fs::read_to_string(format!("/proc/{}/environ", proxy.id()));
    let environment = environment.expect("it runs");
    let pid = format!("LISTEN_PID={}\0", proxy.id());
    for variable in [pid.as_str(), "LISTEN_FDS=1\0", "LISTEN_FDNAMES=web\0"] {
        assert!(
            environment.contains(variable),
            "{variable} in {environment}"
        );
    }
    // Its first verdict was awaited; a bad one would have a line at warn.
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn where_the_old_process_dies_the_new_one_goes_on(driver: Driver) {
    let origin = Served::saying("a");
    let directory = Directory::new();
    let go = directory.join("go");
    let mut proxy = Setup::new(driver)
        .linked()
        .service("a", &[origin.address()], "")
        .start();
    let real = env!("CARGO_BIN_EXE_ringmain");
    let script = format!("until [ -e {go:?} ]; do sleep 0.01; done\nexec {real:?} \"$@\"");
    replace(&proxy.binary(), &script);
    proxy.begin_upgrade();
    proxy.kill_first();
    // Its sockets are open as long as another process has them.
    let mut client = proxy.client();
    client.send(GET);
    fs::write(go, "").expect("the directory is writable");
    assert_eq!(client.answer().text(), "a");
}
