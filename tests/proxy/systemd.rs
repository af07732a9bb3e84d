//! Under systemd: sockets that it has opened, what it is told, and its watchdog. The test is
//! systemd: it starts the process with the sockets and listens at NOTIFY_SOCKET.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;

use crate::support::{
    DEADLINE, Directory, Driver, Proxy, Served, Setup, Wire, on_both_drivers, run_to_end,
};

on_both_drivers! {
    sockets_that_were_opened_before_the_start_are_served_by_every_shard
    the_file_of_a_socket_that_systemd_has_opened_stays
    what_is_of_no_listener_is_told_and_closed
    systemd_is_told_of_the_start_of_reloads_of_upgrades_and_of_the_end
    a_shard_that_hangs_keeps_the_process_silent
    a_pid_file_that_cannot_be_written_ends_the_start
}

/// In microseconds. Half of it is many ticks, so that a busy machine is no shard that hangs.
const WATCHDOG: &str = "2000000";

fn sockets_that_were_opened_before_the_start_are_served_by_every_shard(driver: Driver) {
    let origin = Served::saying("a");
    // Without SO_REUSEPORT, as systemd opens them.
    let web = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let fixed = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
    let (at, fixed_at, admin_at) = (address(&web), address(&fixed), address(&admin));
    let table = format!("[[listener]]\nname = \"fixed\"\naddress = \"{fixed_at}\"");
    // Who comes before the start waits.
    let mut early = Wire::connect(at);
    let mut proxy = Setup::new(driver)
        .shards(2)
        .admin(&admin_at.to_string())
        .service("a", &[origin.address()], "")
        .tables(&table)
        .handed("web", web)
        .handed("any", fixed)
        .handed("admin", admin)
        .start();
    assert_eq!(early.get("a.test", "/").text(), "a");
    assert_eq!(proxy.address(), at);
    assert_eq!(proxy.addresses()["fixed"], fixed_at);
    assert_eq!(proxy.admin(), admin_at.to_string());
    let served = |proxy: &Proxy| {
        // A sibling was bound beside the one that was handed over.
        proxy.report_where(|report| {
            for _ in 0..20 {
                assert_eq!(proxy.client().get("a.test", "/").text(), "a");
            }
            report.shards.iter().all(|count| 0 < *count)
        });
    };
    served(&proxy);
    // It hands on what it was handed, and more.
    proxy.upgrade();
    served(&proxy);
}

fn the_file_of_a_socket_that_systemd_has_opened_stays(driver: Driver) {
    let origin = Served::saying("a");
    let directory = Directory::new();
    let path = directory.join("admin");
    let admin = UnixListener::bind(&path).expect("the directory is writable");
    let kept = admin.try_clone().expect("there are descriptors");
    let mut proxy = Setup::new(driver)
        .admin(&format!("unix:{}", path.display()))
        .service("a", &[origin.address()], "")
        .handed("admin", admin)
        .start();
    // Also through the hands of another process.
    proxy.upgrade();
    proxy.predecessors_end();
    proxy.signal("TERM");
    assert_eq!(proxy.exit_code(), Some(0));
    let _next = UnixStream::connect(&path).expect("systemd listens");
    kept.accept()
        .expect("it is not blocking, and somebody waits");
}

fn what_is_of_no_listener_is_told_and_closed(driver: Driver) {
    let origin = Served::saying("a");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (useless, _end) = UnixStream::pair().expect("two descriptors");
    let proxy = Setup::new(driver)
        .expects_line("is of no listener")
        .expects_line("no listening stream socket")
        .service("a", &[origin.address()], "")
        .handed("other", other)
        .handed("useless", useless)
        .start();
    proxy.log_line("is of no listener");
    proxy.log_line("no listening stream socket");
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn systemd_is_told_of_the_start_of_reloads_of_upgrades_and_of_the_end(driver: Driver) {
    let origin = Served::saying("a");
    let directory = Directory::new();
    let path = directory.join("notify");
    let systemd = UnixDatagram::bind(&path).expect("the directory is writable");
    systemd
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not zero");
    let next = || {
        let mut said = [0; 4096];
        let count = systemd.recv(&mut said).expect("it says something");
        String::from_utf8_lossy(&said[..count]).into_owned()
    };
    // The watchdog speaks between others.
    let next_but_watchdog = || loop {
        let said = next();
        if said != "WATCHDOG=1\n" {
            return said;
        }
    };
    let path: &'static str = path.to_str().expect("it is UTF-8").to_owned().leak();
    let setup = Setup::new(driver)
        .environment("NOTIFY_SOCKET", path)
        .environment("WATCHDOG_USEC", WATCHDOG)
        .service("a", &[origin.address()], "");
    let mut proxy = setup.clone().start();
    assert_eq!(next_but_watchdog(), "READY=1\nSTATUS=serving\n");
    assert_eq!(next(), "WATCHDOG=1\n");
    proxy.reload(&setup);
    let said = next_but_watchdog();
    assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    assert_eq!(next_but_watchdog(), "READY=1\nSTATUS=serving\n");
    let new = proxy.upgrade();
    let told = format!("MAINPID={new}\nSTATUS=upgraded: process {new} serves\n");
    // The new one has all its time until its first word.
    let mut last = (String::new(), next());
    while last.1 == "WATCHDOG=1\n" {
        last = (last.1, next());
    }
    assert_eq!(last, ("WATCHDOG=1\n".to_owned(), told));
    proxy.predecessors_end();
    // Only the new one speaks.
    assert_eq!(next(), "WATCHDOG=1\n");
    proxy.signal("TERM");
    assert_eq!(next_but_watchdog(), "STOPPING=1\nSTATUS=draining\n");
    assert_eq!(proxy.exit_code(), Some(0));
}

fn a_shard_that_hangs_keeps_the_process_silent(driver: Driver) {
    let origin = Served::saying("a");
    let directory = Directory::new();
    let path = directory.join("notify");
    let systemd = UnixDatagram::bind(&path).expect("the directory is writable");
    systemd
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not zero");
    let path: &'static str = path.to_str().expect("it is UTF-8").to_owned().leak();
    let proxy = Setup::new(driver)
        .shards(2)
        .environment("NOTIFY_SOCKET", path)
        .environment("WATCHDOG_USEC", WATCHDOG)
        .expects_line("a shard hangs")
        .service("a", &[origin.address()], "")
        .start();
    let hung = Hung::of(proxy.id(), "shard-1");
    let line = proxy.log_line("a shard hangs");
    assert!(line.contains("shard=1"), "{line}");
    let mut said = Vec::new();
    let mut heard = [0; 4096];
    systemd.set_nonblocking(true).expect("it is open");
    while let Ok(count) = systemd.recv(&mut heard) {
        said.push(String::from_utf8_lossy(&heard[..count]).into_owned());
    }
    assert_eq!(said[0], "READY=1\nSTATUS=serving\n");
    // Each waits for the shard for a while.
    for _ in 0..4 {
        assert_eq!(proxy.report().late, [1]);
    }
    systemd.recv(&mut heard).expect_err("it says nothing");
    drop(hung);
    systemd.set_nonblocking(false).expect("it is open");
    let count = systemd.recv(&mut heard).expect("it is well again");
    assert_eq!(&heard[..count], b"WATCHDOG=1\n");
}

/// A thread that is stopped, and no other of its process with it.
struct Hung(libc::pid_t);

impl Hung {
    #[expect(unsafe_code, reason = "ptrace(2) is a function of C")]
    fn of(process: u32, name: &str) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        let mut threads = threads.map(|thread| thread.expect("it can be read").path());
        let is_named = |path: &PathBuf| {
            let found = fs::read_to_string(path.join("comm"));
            found.is_ok_and(|found| found.trim() == name)
        };
        let found = threads.find(is_named).expect("it has such a thread");
        let id = found.file_name().and_then(|id| id.to_str()?.parse().ok());
        let id: libc::pid_t = id.expect("threads are numbers");
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: these requests touch no memory, ours or the thread's.
            let answer = unsafe { libc::ptrace(request, id, 0, 0) };
            assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        }
        Self(id)
    }
}

impl Drop for Hung {
    #[expect(unsafe_code, reason = "ptrace(2) is a function of C")]
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: waitpid(2) fills `status`, which lives across the call; detaching touches no
        // memory. The thread may be detached from once it was seen to stop.
        unsafe {
            libc::waitpid(self.0, &raw mut status, libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0);
        }
    }
}

fn a_pid_file_that_cannot_be_written_ends_the_start(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver)
        .runtime("pid_file = \"/proc/no-such/pid\"")
        .service("a", &[origin.address()], "");
    let (code, _, errors) = run_to_end(&["run"], &setup.config());
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("pid_file: /proc/no-such/pid: No such file"),
        "{errors}"
    );
}
