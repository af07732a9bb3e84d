//! What the process costs and survives: descriptors that run out, and thousands of idle clients.

use std::time::Duration;

use crate::support::{Driver, Origin, Served, Setup, Wire, ok, on_both_drivers};

on_both_drivers! {
    running_out_of_descriptors_costs_no_cpu_and_passes
    idle_upstream_connections_make_room_for_one_that_is_needed
    an_idle_client_costs_little
}

fn running_out_of_descriptors_costs_no_cpu_and_passes(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = Setup::new(driver)
        .descriptors_max(64)
        .runtime("drain_timeout = \"5s\"\nconnections_max = 60000")
        .expects_line("accept")
        .expects_line("RLIMIT_NOFILE")
        .expects_line("connections_max")
        .service("a", &[origin.address()], "")
        .start();
    let mut early = proxy.client();
    assert_eq!(early.get("a.test", "/").status(), 200);
    let clients: Vec<Wire> = (0..80).map(|_| proxy.client()).collect();
    let before = proxy.cpu_ticks();
    // Nobody writes to this client, so that its read measures a second.
    let quiet = early.is_quiet_for(Duration::from_secs(1));
    assert!(quiet, "its end, behind {:?}", early.rest());
    let used = proxy.cpu_ticks() - before;
    assert!(used <= 20, "{used} ticks of 10 ms in one second");
    assert_eq!(
        early.get("a.test", "/").status(),
        200,
        "who is in is served"
    );
    drop(clients);
    assert_eq!(proxy.client().get("a.test", "/").status(), 200);
}

fn idle_upstream_connections_make_room_for_one_that_is_needed(driver: Driver) {
    const CLIENTS: usize = 30;
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let origins = NAMES.map(|_| Origin::new());
    let mut setup = Setup::new(driver).descriptors_max(128);
    for (name, origin) in NAMES.iter().zip(&origins) {
        setup = setup.service(name, &[origin.address()], "");
    }
    let proxy = setup.start();
    let mut kept = Vec::new();
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for (name, origin) in NAMES.iter().zip(&origins) {
        let request = format!("GET / HTTP/1.1\r\nHost: {name}.test\r\n\r\n");
        // All at once, so that each client's exchange has a connection of its own; afterwards all
        // of them are idle.
        let mut upstreams = Vec::new();
        for client in &mut clients {
            upstreams.push(origin.gets(client, &request));
        }
        for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
            upstream.send(ok(name));
            assert_eq!(client.answer().text(), *name);
        }
        kept.push(upstreams);
    }
    assert!(proxy.report().faults().is_empty());
}

/// The test's own limit of descriptors, the soft one.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the kernel has proc");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

fn an_idle_client_costs_little(driver: Driver) {
    let origin = Served::saying("a");
    let proxy = driver.proxy_for(origin.address());
    let count = 4000.min(descriptors() / 4);
    let idle = |count| {
        let clients = (0..count).map(|_| {
            let mut client = proxy.client();
            assert_eq!(client.get("a.test", "/").status(), 200);
            client
        });
        clients.collect::<Vec<Wire>>()
    };
    drop(idle(count / 20));
    let before = proxy.memory_kib();
    let clients = idle(count);
    let grown = proxy.memory_kib().saturating_sub(before);
    // The bar is 1.5 KiB, held by scripts/bench with a release build; this one is not.
    let most = 512 + count as u64 * 3;
    assert!(grown < most, "{count} idle clients cost {grown} KiB");
    assert_eq!(clients.len(), count);
}
