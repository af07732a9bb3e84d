//! Under systemd: sockets that it has opened, what it is told, and its watchdog. The test is
//! systemd: it starts the process with the sockets and listens at NOTIFY_SOCKET.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use crate::support::{
    DEADLINE, Directory, Driver, Proxy, Served, Setup, Wire, on_both_drivers, run_to_end,
};

on_both_drivers! {
    sockets_that_were_opened_before_the_start_are_served_by_every_shard
    what_is_of_no_listener_is_told_and_closed
    systemd_is_told_of_the_start_of_reloads_of_upgrades_and_of_the_end
    a_pid_file_that_cannot_be_written_ends_the_start
}

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

fn what_is_of_no_listener_is_told_and_closed(driver: Driver) {
    let origin = Served::saying("a");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (useless, _end) = std::os::unix::net::UnixStream::pair().expect("two descriptors");
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
        .environment("WATCHDOG_USEC", "400000")
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
    assert_eq!(next_but_watchdog(), told);
    proxy.predecessors_end();
    // Only the new one speaks.
    assert_eq!(next(), "WATCHDOG=1\n");
    proxy.signal("TERM");
    assert_eq!(next_but_watchdog(), "STOPPING=1\nSTATUS=draining\n");
    assert_eq!(proxy.exit_code(), Some(0));
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
