//! Backends that are names: a DNS server whose answers change, fail and lie, and what becomes of
//! the requests.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Type};

use crate::support::{
    Dns, Driver, Failure, GET, Message, Origin, Proxy, Served, Setup, Wire, eventually, ok,
    on_both_drivers, run_to_end, start_and_stop,
};

on_both_drivers! {
    addresses_of_both_families_become_endpoints
    an_answer_that_changes_moves_the_traffic
    no_request_fails_while_answers_change
    an_exchange_outlives_its_endpoint
    an_idle_connection_does_not_outlive_its_endpoint
    a_server_that_fails_changes_nothing
    a_server_that_is_gone_changes_nothing
    a_silent_family_is_not_waited_for
    a_family_that_fails_keeps_its_addresses
    a_name_that_never_was_resolved_is_an_error_of_its_own
    a_literal_backend_serves_beside_an_unknown_name
    a_huge_answer_is_bounded
    records_that_lead_nowhere_are_left_out
    an_alias_is_followed
    srv_records_say_where_and_how_much
    srv_records_of_another_name_say_nothing
    srv_priorities_are_backups
    a_service_that_is_not_there_keeps_its_last_targets
    two_services_share_a_name
    a_name_may_stand_for_what_is_in_the_file
    the_hosts_file_comes_first
    a_new_endpoint_is_probed
    a_new_endpoint_can_be_ejected
    many_names_are_looked_up_at_once
    silent_names_do_not_hold_up_the_others
    many_changes_leave_nothing_behind
}

const CHANGED: &str = "a name stands for other addresses";
const KEPT: &str = "a name cannot be resolved; its last answer is kept";
const NOTHING: &str = "a name cannot be resolved; it stands for nothing";
const AGAIN: &str = "a name is resolved again";
const EJECTED: &str = "an endpoint is ejected";
const NOT_WHOLE: &str = "an answer of DNS cannot be used whole";

/// Origins on one port of several loopback addresses, each of which answers with its address.
struct Farm {
    port: u16,
    served: Vec<Served>,
}

impl Farm {
    fn new(addresses: &[&str]) -> Self {
        loop {
            let mut listeners = Vec::new();
            let mut port = 0;
            for address in addresses {
                let Some(listener) = listen(ip(address), port) else {
                    break;
                };
                port = listener.local_addr().expect("it is bound").port();
                listeners.push(listener);
            }
            // Somebody else may have the port on one of them.
            if listeners.len() == addresses.len() {
                let served = listeners.into_iter().map(|listener| {
                    let address = listener.local_addr().expect("it is bound").ip();
                    Served::on(listener, move |_| ok(&address.to_string()))
                });
                return Self {
                    port,
                    served: served.collect(),
                };
            }
        }
    }

    /// A service whose one backend is `host` at its port.
    fn service(&self, host: &str, keys: &str) -> String {
        service("a", &[format!("\"{host}:{}\"", self.port)], keys)
    }

    fn endpoint(&self, address: &str) -> String {
        SocketAddr::new(ip(address), self.port).to_string()
    }

    fn name(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }
}

fn listen(address: IpAddr, port: u16) -> Option<TcpListener> {
    let at = SocketAddr::new(address, port);
    let socket = socket2::Socket::new(Domain::for_address(at), Type::STREAM, None);
    let socket = socket.expect("a descriptor is free");
    socket.bind(&at.into()).ok()?;
    socket.listen(256).ok()?;
    Some(socket.into())
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// A service `name` for `NAME.test` that takes turns among `backends`, written as in TOML.
fn service(name: &str, backends: &[String], keys: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\ndomains = [\"{name}.test\"]\npolicy = \"round_robin\"\n\
         backends = [{}]\n{keys}\n",
        backends.join(", ")
    )
}

fn setup(driver: Driver, dns: &Dns, services: &str) -> Setup {
    let tables = format!("{}{services}", dns.table());
    Setup::new(driver).tables(&tables)
}

/// What `count` requests in a row are answered with.
fn answers(client: &mut Wire, count: usize) -> BTreeSet<String> {
    (0..count)
        .map(|_| client.get("a.test", "/").text())
        .collect()
}

/// Waits until two turns of requests are answered by exactly `expected`.
#[track_caller]
fn until_answered_by(client: &mut Wire, expected: &[&str]) {
    let wanted: BTreeSet<_> = expected.iter().map(|text| (*text).to_owned()).collect();
    eventually(|| answers(client, 2 * wanted.len()) == wanted);
}

fn count(proxy: &Proxy, text: &str) -> usize {
    let lines = proxy.log_lines();
    lines.iter().filter(|line| line.contains(text)).count()
}

#[track_caller]
fn until_lines(proxy: &Proxy, text: &str, lines: usize) {
    eventually(|| {
        // Reads what has come since.
        let _first = proxy.log_line(text);
        lines <= count(proxy, text)
    });
}

fn is_good(answer: &Message) -> bool {
    answer.head.status() == 200
}

fn addresses_of_both_families_become_endpoints(driver: Driver) {
    let dns = Dns::new();
    let all = ["127.0.0.1", "127.0.0.2", "::1"];
    let farm = Farm::new(&all);
    dns.set("App.Test", &ips(&all));
    let proxy = setup(driver, &dns, &farm.service("aPP.test", "")).start();
    let mut client = proxy.client();
    let mut turn: Vec<String> = (0..3).map(|_| client.get("a.test", "/").text()).collect();
    turn.sort();
    assert_eq!(turn, all, "each once: round robin");
    let report = proxy.report();
    let row = &report.services["a"];
    assert_eq!(row.names[&farm.name("app.test")], "3 addresses");
    assert_eq!(row.endpoints.len(), 3, "{row:?}");
    let line = proxy.log_line(CHANGED);
    assert!(line.contains(&farm.endpoint("::1")), "{line}");
}

fn an_answer_that_changes_moves_the_traffic(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    dns.set_for("app.test", &ips(&["127.0.0.1", "127.0.0.2"]), 1);
    let proxy = setup(driver, &dns, &farm.service("app.test", "")).start();
    let mut client = proxy.client();
    until_answered_by(&mut client, &["127.0.0.1", "127.0.0.2"]);
    dns.set_for("app.test", &ips(&["127.0.0.3", "127.0.0.2"]), 1);
    until_answered_by(&mut client, &["127.0.0.2", "127.0.0.3"]);
    until_lines(&proxy, CHANGED, 2);
    let lines = proxy.log_lines();
    let last = lines.iter().rfind(|line| line.contains(CHANGED));
    let last = last.expect("there are two");
    let (added, removed) = (farm.endpoint("127.0.0.3"), farm.endpoint("127.0.0.1"));
    assert!(last.contains(&format!("added=\"1 ({added})\"")), "{last}");
    assert!(
        last.contains(&format!("removed=\"1 ({removed})\"")),
        "{last}"
    );
}

fn no_request_fails_while_answers_change(driver: Driver) {
    let dns = Dns::new();
    let all = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let farm = Farm::new(&all);
    dns.set("app.test", &ips(&all));
    let setup = setup(driver, &dns, &farm.service("app.test", "")).shards(2);
    let proxy = setup.start();
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, over) = (proxy.client(), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    let answer = client.get("a.test", "/");
                    assert!(is_good(&answer), "{answer:?}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for round in 0..12 {
        let kept = ips(&[all[round % 3], all[(round + round / 3) % 3]]);
        let lines = count(&proxy, CHANGED);
        let before = dns.questions();
        dns.set("app.test", &kept);
        // A change is a line, and where there is none, it was asked for all the same.
        eventually(|| {
            let _first = proxy.log_line(CHANGED);
            lines < count(&proxy, CHANGED) || before + 8 < dns.questions()
        });
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(0 < client.join().expect("no request fails"));
    }
    assert_eq!(proxy.report().faults(), [].into());
}

fn an_exchange_outlives_its_endpoint(driver: Driver) {
    let dns = Dns::new();
    let origin = Origin::new();
    let port = origin.address().port();
    let other = listen(ip("127.0.0.2"), port).expect("the port is free there");
    let _other = Served::on(other, |_| ok("other"));
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let services = service("a", &[format!("\"app.test:{port}\"")], "");
    let proxy = setup(driver, &dns, &services).start();
    let mut slow = proxy.client();
    let mut upstream = origin.gets(&mut slow, GET);
    let mut client = proxy.client();
    let mut idle = origin.gets(&mut client, GET);
    idle.send(ok("old"));
    assert_eq!(client.answer().text(), "old");
    dns.set("app.test", &ips(&["127.0.0.2"]));
    // Its end says that the shard has the new plan.
    idle.ends();
    assert_eq!(client.get("a.test", "/").text(), "other");
    upstream.send(ok("late"));
    assert_eq!(slow.answer().text(), "late");
    upstream.ends();
    let report = proxy.report();
    assert_eq!(report.faults(), [].into());
}

fn an_idle_connection_does_not_outlive_its_endpoint(driver: Driver) {
    let dns = Dns::new();
    let origin = Origin::new();
    let port = origin.address().port();
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let services = service("a", &[format!("\"app.test:{port}\"")], "");
    let proxy = setup(driver, &dns, &services).start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    upstream.send(ok("first"));
    assert_eq!(client.answer().text(), "first");
    dns.set("app.test", &ips(&["127.0.0.2"]));
    upstream.ends();
}

fn a_server_that_fails_changes_nothing(driver: Driver) {
    let failures = [
        (Failure::Servfail, "SERVFAIL"),
        (Failure::Nxdomain, "NXDOMAIN"),
        (Failure::Silence, "no answer within"),
    ];
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let setup = setup(driver, &dns, &farm.service("app.test", ""));
    let proxy = setup.expects_line(KEPT).start();
    let mut client = proxy.client();
    for (turn, (failure, reason)) in failures.into_iter().enumerate() {
        dns.fail("app.test", failure);
        until_lines(&proxy, KEPT, turn + 1);
        assert!(is_good(&client.get("a.test", "/")));
        let report = proxy.report();
        let said = &report.services["a"].names[&farm.name("app.test")];
        assert!(said.starts_with("1 address failing for "), "{said}");
        assert!(said.contains(reason), "{said}");
        // What changed meanwhile is used as soon as the server is well.
        let next = ["127.0.0.2", "127.0.0.1"][turn % 2];
        dns.set("app.test", &ips(&[next]));
        dns.recover("app.test");
        until_answered_by(&mut client, &[next]);
        until_lines(&proxy, AGAIN, turn + 1);
        let report = proxy.report();
        let said = &report.services["a"].names[&farm.name("app.test")];
        assert_eq!(said, "1 address");
    }
    assert_eq!(count(&proxy, KEPT), failures.len(), "each is said once");
}

fn a_server_that_is_gone_changes_nothing(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let setup = setup(driver, &dns, &farm.service("app.test", ""));
    let proxy = setup.expects_line(KEPT).start();
    drop(dns);
    proxy.log_line(KEPT);
    assert!(is_good(&proxy.client().get("a.test", "/")));
}

fn a_silent_family_is_not_waited_for(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    dns.fail("app.test", Failure::SilenceOfIpv6);
    let proxy = setup(driver, &dns, &farm.service("app.test", "")).start();
    let mut client = proxy.client();
    until_answered_by(&mut client, &["127.0.0.1"]);
    dns.set("app.test", &ips(&["127.0.0.2"]));
    until_answered_by(&mut client, &["127.0.0.2"]);
}

fn a_family_that_fails_keeps_its_addresses(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2", "::1"]);
    dns.set("app.test", &ips(&["127.0.0.1", "::1"]));
    let proxy = setup(driver, &dns, &farm.service("app.test", "")).start();
    let mut client = proxy.client();
    until_answered_by(&mut client, &["127.0.0.1", "::1"]);
    dns.fail("app.test", Failure::ServfailOfIpv6);
    dns.set("app.test", &ips(&["127.0.0.2", "::1"]));
    until_answered_by(&mut client, &["127.0.0.2", "::1"]);
}

fn a_name_that_never_was_resolved_is_an_error_of_its_own(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    let setup = setup(driver, &dns, &farm.service("app.test", ""));
    let proxy = setup.expects_line(NOTHING).start();
    let mut client = proxy.client();
    let answer = client.get("a.test", "/");
    assert_eq!(answer.head.status(), 502);
    assert_eq!(answer.head.proxy_error().as_deref(), Some("dns_error"));
    proxy.counts_one_fault("dns_error");
    let report = proxy.report();
    let row = &report.services["a"];
    let said = &row.names[&farm.name("app.test")];
    assert!(said.starts_with("0 addresses failing for "), "{said}");
    assert!(row.endpoints.is_empty());
    dns.set("app.test", &ips(&["127.0.0.1"]));
    eventually(|| is_good(&client.get("a.test", "/")));
}

fn a_literal_backend_serves_beside_an_unknown_name(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    let backends = [
        format!("\"{}\"", farm.endpoint("127.0.0.1")),
        format!("\"{}\"", farm.name("app.test")),
    ];
    let setup = setup(driver, &dns, &service("a", &backends, ""));
    let proxy = setup.expects_line(NOTHING).start();
    let mut client = proxy.client();
    assert_eq!(answers(&mut client, 5), ["127.0.0.1".to_owned()].into());
    dns.set("app.test", &ips(&["127.0.0.2"]));
    until_answered_by(&mut client, &["127.0.0.1", "127.0.0.2"]);
}

fn a_huge_answer_is_bounded(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    let mut all = ips(&["127.0.0.1"]);
    all.extend((0..999_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        IpAddr::from(Ipv4Addr::new(127, 7, high, low))
    }));
    dns.set("app.test", &all);
    let setup = setup(driver, &dns, &farm.service("app.test", ""));
    // Where nobody listens requests are refused before the last change is adopted.
    let setup = setup.expects_line(EJECTED);
    let proxy = setup.expects_line(NOT_WHOLE).start();
    let line = proxy.log_line(NOT_WHOLE);
    assert!(line.contains("of 1000 addresses 256 are used"), "{line}");
    assert!(0 < dns.questions_over_tcp());
    let report = proxy.report();
    let row = &report.services["a"];
    let said = "256 addresses of 1000 addresses 256 are used";
    assert_eq!(row.names[&farm.name("app.test")], said);
    assert_eq!(row.endpoints.len(), 256);
    // The same ones of an answer in another order: no other line.
    let before = dns.questions();
    all.reverse();
    dns.set("app.test", &all);
    eventually(|| before + 8 < dns.questions());
    assert_eq!(count(&proxy, CHANGED), 1);
    assert_eq!(count(&proxy, NOT_WHOLE), 1);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    until_answered_by(&mut proxy.client(), &["127.0.0.1"]);
}

fn records_that_lead_nowhere_are_left_out(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    dns.set(
        "app.test",
        &ips(&["0.0.0.0", "127.0.0.1", "224.0.0.1", "::"]),
    );
    let setup = setup(driver, &dns, &farm.service("app.test", ""));
    let proxy = setup.expects_line(NOT_WHOLE).start();
    let line = proxy.log_line(NOT_WHOLE);
    assert!(
        line.contains("3 addresses cannot be connected to"),
        "{line}"
    );
    assert_eq!(proxy.report().services["a"].endpoints.len(), 1);
}

fn an_alias_is_followed(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set_alias("app.test", "real.test");
    dns.set("real.test", &ips(&["127.0.0.1"]));
    let proxy = setup(driver, &dns, &farm.service("app.test", "")).start();
    let mut client = proxy.client();
    until_answered_by(&mut client, &["127.0.0.1"]);
    dns.set("real.test", &ips(&["127.0.0.2"]));
    until_answered_by(&mut client, &["127.0.0.2"]);
}

/// A service that looks `_a._tcp.test` up.
fn srv_service() -> String {
    let backend = "{ address = \"_a._tcp.test\", srv = true }";
    service("a", &[backend.to_owned()], "")
}

fn srv_records_say_where_and_how_much(driver: Driver) {
    let dns = Dns::new();
    let [a, b, c] = ["a", "b", "c"].map(Served::saying);
    let [at_a, at_b, at_c] = [&a, &b, &c].map(|served| served.address().port());
    dns.set("host.test", &ips(&["127.0.0.1"]));
    let targets = [(5, 10, at_a, "host.test"), (5, 30, at_b, "host.test")];
    dns.set_service("_a._tcp.test", &targets);
    let proxy = setup(driver, &dns, &srv_service()).start();
    let mut client = proxy.client();
    let mut turns: Vec<String> = (0..8).map(|_| client.get("a.test", "/").text()).collect();
    turns.sort();
    assert_eq!(turns.concat(), "aabbbbbb", "one to three");
    // The port of one changes.
    let targets = [(5, 10, at_a, "host.test"), (5, 30, at_c, "host.test")];
    dns.set_service("_a._tcp.test", &targets);
    until_answered_by(&mut client, &["a", "c"]);
    let report = proxy.report();
    assert_eq!(report.services["a"].names["_a._tcp.test"], "2 addresses");
}

fn srv_records_of_another_name_say_nothing(driver: Driver) {
    let dns = Dns::new();
    let [a, b] = ["a", "b"].map(Served::saying);
    dns.set("host.test", &ips(&["127.0.0.1"]));
    dns.set_service("_a._tcp.test", &[(1, 1, a.address().port(), "host.test")]);
    dns.smuggle("_a._tcp.test", b.address().port(), "host.test");
    let proxy = setup(driver, &dns, &srv_service()).start();
    assert_eq!(answers(&mut proxy.client(), 6), ["a".to_owned()].into());
    let report = proxy.report();
    assert_eq!(report.services["a"].names["_a._tcp.test"], "1 address");
}

fn srv_priorities_are_backups(driver: Driver) {
    let dns = Dns::new();
    let [a, b] = ["a", "b"].map(Served::saying);
    let [at_a, at_b] = [&a, &b].map(|served| served.address().port());
    dns.set("host.test", &ips(&["127.0.0.1"]));
    let targets = [(20, 1, at_b, "host.test"), (10, 1, at_a, "host.test")];
    dns.set_service("_a._tcp.test", &targets);
    let setup = setup(driver, &dns, &srv_service());
    let proxy = setup.expects_line(EJECTED).start();
    let mut client = proxy.client();
    assert_eq!(answers(&mut client, 6), ["a".to_owned()].into());
    let refused = Origin::refused().port();
    let targets = [(20, 1, at_b, "host.test"), (10, 1, refused, "host.test")];
    dns.set_service("_a._tcp.test", &targets);
    until_answered_by(&mut client, &["b"]);
}

fn a_service_that_is_not_there_keeps_its_last_targets(driver: Driver) {
    let dns = Dns::new();
    let a = Served::saying("a");
    dns.set("host.test", &ips(&["127.0.0.1"]));
    dns.set_service("_a._tcp.test", &[(1, 1, a.address().port(), "host.test")]);
    let setup = setup(driver, &dns, &srv_service());
    let proxy = setup.expects_line(KEPT).start();
    dns.set_service("_a._tcp.test", &[(0, 0, 0, ".")]);
    let line = proxy.log_line(KEPT);
    assert!(line.contains("the service is not available"), "{line}");
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn two_services_share_a_name(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let backends = [format!("\"{}\"", farm.name("app.test"))];
    let services = service("a", &backends, "") + &service("b", &backends, "");
    let proxy = setup(driver, &dns, &services).start();
    let mut client = proxy.client();
    let mut both = |expected: &str| {
        eventually(|| {
            let hosts = ["a.test", "b.test"];
            hosts.map(|host| client.get(host, "/").text()) == [expected; 2]
        });
    };
    both("127.0.0.1");
    dns.set("app.test", &ips(&["127.0.0.2"]));
    both("127.0.0.2");
    until_lines(&proxy, CHANGED, 2);
    assert_eq!(count(&proxy, "services=a,b"), 2, "a line for both");
}

fn a_name_may_stand_for_what_is_in_the_file(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let backends = [
        format!("\"{}\"", farm.endpoint("127.0.0.1")),
        format!("\"{}\"", farm.name("app.test")),
    ];
    let proxy = setup(driver, &dns, &service("a", &backends, "")).start();
    let mut client = proxy.client();
    assert_eq!(proxy.report().services["a"].endpoints.len(), 1);
    dns.set("app.test", &ips(&["127.0.0.2"]));
    until_answered_by(&mut client, &["127.0.0.1", "127.0.0.2"]);
}

fn the_hosts_file_comes_first(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    // Nobody else is asked for it (RFC 6761 section 6.3).
    let proxy = setup(driver, &dns, &farm.service("localhost", "")).start();
    assert_eq!(proxy.client().get("a.test", "/").text(), "127.0.0.1");
    assert_eq!(dns.questions(), 0);
}

fn a_new_endpoint_is_probed(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    let keys = "[service.probe]\ninterval = \"100ms\"\ntimeout = \"2s\"";
    let proxy = setup(driver, &dns, &farm.service("app.test", keys)).start();
    eventually(|| 0 < farm.served[0].requests());
    assert_eq!(farm.served[1].requests(), 0);
    dns.set("app.test", &ips(&["127.0.0.2"]));
    eventually(|| 2 < farm.served[1].requests());
    // Who is gone is not asked any more: of two that were probed alike one goes on alone.
    let before = farm.served[0].requests();
    let other = farm.served[1].requests();
    eventually(|| other + 5 < farm.served[1].requests());
    assert!(farm.served[0].requests() <= before + 1);
    assert_eq!(proxy.client().get("a.test", "/").text(), "127.0.0.2");
}

fn a_new_endpoint_can_be_ejected(driver: Driver) {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("app.test", &ips(&["127.0.0.1", "127.0.0.2"]));
    let keys = "[service.eject]\nconsecutive_faults = 2\nratio_max = 0.5";
    let setup = setup(driver, &dns, &farm.service("app.test", keys));
    let proxy = setup.expects_line(EJECTED).start();
    let mut client = proxy.client();
    until_answered_by(&mut client, &["127.0.0.1", "127.0.0.2"]);
    // Nobody listens at the third.
    dns.set("app.test", &ips(&["127.0.0.1", "127.0.0.3"]));
    eventually(|| {
        assert!(is_good(&client.get("a.test", "/")));
        0 < count(&proxy, EJECTED)
    });
    let line = proxy.log_line(EJECTED);
    assert!(line.contains(&farm.endpoint("127.0.0.3")), "{line}");
}

fn many_names_are_looked_up_at_once(driver: Driver) {
    const NAMES: usize = 200;
    let dns = Dns::new();
    // Answers that need TCP, as many as a connection may have to carry.
    let all: Vec<IpAddr> = (1..=200)
        .map(|last| IpAddr::from([127, 8, 0, last]))
        .collect();
    let hosts: Vec<String> = (0..NAMES)
        .map(|number| format!("app{number}.test"))
        .collect();
    hosts.iter().for_each(|host| dns.set(host, &all));
    let backends = hosts.iter().map(|host| format!("\"{host}:80\""));
    let services = service("a", &backends.collect::<Vec<_>>(), "");
    let proxy = setup(driver, &dns, &services).start();
    let names = &proxy.report().services["a"].names;
    assert_eq!(names.len(), NAMES);
    for (name, said) in names {
        assert_eq!(said, "200 addresses", "{name}");
    }
}

fn silent_names_do_not_hold_up_the_others(driver: Driver) {
    // Each is waited for seconds, and a few dozen at once.
    const SILENT: usize = 300;
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1", "127.0.0.2"]);
    dns.set("a.test", &ips(&["127.0.0.1"]));
    let silent = (0..SILENT).map(|place| format!("silent{place}.test"));
    let silent = silent.map(|name| {
        dns.fail(&name, Failure::Silence);
        service(&name.replace(".test", ""), &[format!("\"{name}:80\"")], "")
    });
    let silent: String = silent.collect();
    let a = service("a", &[format!("\"a.test:{}\"", farm.port)], "");
    let setup = setup(driver, &dns, &(a + &silent)).expects_line(NOTHING);
    let proxy = setup.expects_line("starting without it").start();
    let mut client = proxy.client();
    until_answered_by(&mut client, &["127.0.0.1"]);
    dns.set("a.test", &ips(&["127.0.0.2"]));
    until_answered_by(&mut client, &["127.0.0.2"]);
    let report = proxy.report();
    let services = report.services.values();
    let mut names = services.flat_map(|service| service.names.values());
    assert!(
        names.any(|said| said == "0 addresses"),
        "others are still waited for"
    );
}

fn many_changes_leave_nothing_behind(driver: Driver) {
    const CHANGES: u8 = 60;
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    // One stays, and thirty others come and go.
    let turn = |number: u8| {
        let others = (0..30).map(|other| IpAddr::from([127, 9, number, other]));
        Vec::from_iter(others.chain([ip("127.0.0.1")]))
    };
    dns.set("app.test", &turn(0));
    let setup = setup(driver, &dns, &farm.service("app.test", ""));
    let proxy = setup.expects_line(EJECTED).start();
    let mut early = 0;
    for number in 1..=CHANGES {
        dns.set("app.test", &turn(number));
        until_lines(&proxy, CHANGED, usize::from(number) + 1);
        if number == CHANGES / 2 {
            early = proxy.memory_kib();
        }
    }
    let grown = proxy.memory_kib().saturating_sub(early);
    assert!(grown < 2_048, "{grown} KiB of {early}");
    let report = proxy.report();
    assert_eq!(report.services["a"].endpoints.len(), 31);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    until_answered_by(&mut proxy.client(), &["127.0.0.1"]);
}

#[test]
fn a_signal_ends_a_start_that_waits_for_names() {
    let dns = Dns::new();
    dns.fail("app.test", Failure::Silence);
    let config = format!(
        "[admin]\naddress = \"\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}{}",
        dns.table(),
        service("a", &["\"app.test:80\"".to_owned()], "")
    );
    let lines = start_and_stop(&config, "looking names up");
    assert!(
        !lines.iter().any(|line| line.contains("ready")),
        "{lines:#?}"
    );
}

#[test]
fn a_start_does_not_wait_for_ever() {
    let dns = Dns::new();
    let farm = Farm::new(&["127.0.0.1"]);
    dns.set("app.test", &ips(&["127.0.0.1"]));
    dns.fail("app.test", Failure::Silence);
    let setup = setup(Driver::Epoll, &dns, &farm.service("app.test", ""));
    let setup = setup.expects_line("a name is not resolved yet");
    let proxy = setup.expects_line(NOTHING).start();
    let mut client = proxy.client();
    let answer = client.get("a.test", "/");
    assert_eq!(answer.head.proxy_error().as_deref(), Some("dns_error"));
    dns.recover("app.test");
    eventually(|| is_good(&client.get("a.test", "/")));
}

#[test]
fn a_dummy_backend_says_that_it_skips_names() {
    let config = |backend: &str| {
        let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";
        format!("{listener}{}", service("a", &[backend.to_owned()], ""))
    };
    let (code, output, errors) = run_to_end(&["backend"], &config("\"app.test:80\""));
    assert_eq!(code, Some(1));
    assert_eq!(output, "service a: app.test:80 (skipped: a name)\n");
    assert!(errors.contains("all are names"), "{errors}");
}

#[test]
fn check_resolves_nothing() {
    let dns = Dns::new();
    let config = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}{}",
        dns.table(),
        service("a", &["\"app.test:80\"".to_owned()], "")
    );
    let (code, output, _errors) = run_to_end(&["check"], &config);
    assert_eq!(code, Some(0));
    assert!(
        output.contains("  backend app.test:80 weight 1 "),
        "{output}"
    );
    assert!(!output.contains("  endpoint "), "{output}");
    let memory = "  each address that a name stands for: up to ";
    assert!(output.contains(memory), "{output}");
    assert_eq!(dns.questions(), 0);
}
