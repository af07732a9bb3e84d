//! Another configuration takes the place of the one that runs: what is unchanged is not touched,
//! and what is bad changes nothing.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{
    Directory, Dns, Driver, Failure, GET, Message, Origin, Proxy, Served, Setup, Wire, eventually,
    ok, on_both_drivers, run_to_end,
};

on_both_drivers! {
    a_service_that_is_added_is_served
    what_is_unchanged_is_not_touched
    a_bad_file_changes_nothing
    a_missing_file_changes_nothing
    a_port_that_is_taken_refuses_all
    an_ejection_stays
    what_probes_have_said_stays
    an_endpoint_that_nobody_probes_any_more_is_used
    a_new_backend_starts_slowly_and_goes_on_so
    a_removed_backend_finishes_what_runs
    a_renamed_service_is_another_one
    routes_change
    a_name_is_known_before_its_backend_is_used
    a_report_comes_while_a_reload_waits
    a_name_that_nobody_answers_for_is_done_without
    who_asks_meanwhile_is_next
    a_drain_refuses_reloads
    a_drain_ends_a_reload_that_waits
    no_request_fails_while_the_file_changes
}

const REFUSED: &str = "a reload is refused";
const NOT_FOUND: &str = "destination_not_found";

/// How many of so many answers to a client of `host` are `text`.
#[track_caller]
fn count(client: &mut Wire, host: &str, of: usize, text: &str) -> usize {
    let answers = (0..of).map(|_| client.get(host, "/"));
    let answers = answers.inspect(|answer| assert_eq!(answer.status(), 200));
    answers.filter(|answer| answer.text() == text).count()
}

fn a_service_that_is_added_is_served(driver: Driver) {
    let (one, other) = (Served::saying("a"), Served::saying("b"));
    let setup = Setup::new(driver).service("a", &[one.address()], "");
    let mut proxy = setup.clone().start();
    let mut client = proxy.client();
    assert_eq!(client.get("a.test", "/").text(), "a");
    // When that is told, every shard has adopted it.
    proxy.reload(&setup.service("b", &[other.address()], ""));
    proxy.log_line("reload: added service b: is there from now on, with 1 backend");
    proxy.log_line("reloaded generation=2 added=1 changed=0 removed=0");
    assert_eq!(client.get("b.test", "/").text(), "b");
    assert_eq!(client.get("a.test", "/").text(), "a");
}

fn what_is_unchanged_is_not_touched(driver: Driver) {
    let [one, two, other] = ["1", "2", "b"].map(Served::saying);
    let keys = "policy = \"round_robin\"";
    let ends = [one.address(), two.address()];
    let begin = Setup::new(driver);
    let mut proxy = begin.clone().service("a", &ends, keys).start();
    let mut client = proxy.client();
    let mut texts: Vec<String> = (0..3).map(|_| client.get("a.test", "/").text()).collect();
    let service = begin.service("b", &[other.address()], "");
    proxy.reload(&service.clone().service("a", &ends, keys));
    texts.extend((0..3).map(|_| client.get("a.test", "/").text()));
    // Its turns go on where they were.
    assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "{texts:?}");
    let generation = proxy.report().generation;
    proxy.reload(&service.clone().service("a", &ends, keys));
    proxy.log_line("reloaded generation=2 added=0 changed=0 removed=0");
    assert_eq!(
        proxy.report().generation,
        generation,
        "there is no other plan"
    );
    proxy.reload(&service.service("a", &[ends[1], ends[0]], keys));
    assert_eq!(count(&mut client, "a.test", 10, "1"), 5);
    assert_eq!((one.connections(), two.connections()), (1, 1));
    let report = proxy.report_where(|report| report.services["a"].exchanges == 16);
    assert_eq!(report.services["a"].phases["total"].count, 16);
}

fn a_bad_file_changes_nothing(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(REFUSED).start();
    let wrong = setup
        .config()
        .replace("[[service]]", "[[service]]\nnothing = 1");
    proxy.write_config(&format!("{wrong}\n[dns]\nttl_min = \"1x\"\n"));
    proxy.signal("HUP");
    let line = proxy.log_line(REFUSED);
    // Every error, each with its place.
    assert!(line.contains("service.nothing: unknown key"), "{line}");
    assert!(line.contains("dns.ttl_min: "), "{line}");
    assert_eq!(line.matches("config.toml:").count(), 2, "{line}");
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.write_config("nothing is this");
    proxy.signal("HUP");
    proxy.log_has(2, REFUSED);
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.reload(&setup);
    let report = proxy.report();
    assert!(
        report
            .reloads
            .starts_with("reloads 1   refused 2   the last because of "),
        "{report:?}"
    );
}

fn a_missing_file_changes_nothing(driver: Driver) {
    let origin = Served::saying("a");
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.clone().expects_line(REFUSED).start();
    fs::remove_file(proxy.config_file()).expect("it is ours");
    proxy.signal("HUP");
    assert!(proxy.log_line(REFUSED).contains("there is no such file"));
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    proxy.reload(&setup);
}

fn a_port_that_is_taken_refuses_all(driver: Driver) {
    let [one, other] = ["a", "b"].map(Served::saying);
    let setup = Setup::new(driver).service("a", &[one.address()], "");
    let proxy = setup
        .clone()
        .expects_line(REFUSED)
        .expects_line(NOT_FOUND)
        .start();
    let table = format!(
        "[[listener]]\nname = \"taken\"\naddress = \"{}\"",
        other.address()
    );
    let setup = setup.service("b", &[other.address()], "").tables(&table);
    proxy.write_config(&setup.config());
    proxy.signal("HUP");
    assert!(proxy.log_line(REFUSED).contains("listener `taken`"));
    assert_eq!(proxy.client().get("b.test", "/").status(), 404);
}

fn an_ejection_stays(driver: Driver) {
    let bad = Served::new(|_| b"nonsense\r\n\r\n".to_vec());
    let [good, other] = ["a", "b"].map(Served::saying);
    let keys =
        "policy = \"round_robin\"\n[service.eject]\nconsecutive_faults = 1\nduration = \"1h\"";
    let ends = [good.address(), bad.address()];
    let begin = Setup::new(driver).expects_line("an endpoint is ejected");
    let mut proxy = begin.clone().service("a", &ends, keys).start();
    let mut client = proxy.client();
    eventually(|| client.get("a.test", "/").status() == 502);
    proxy.log_line("an endpoint is ejected");
    let asked = bad.requests();
    // Out for all, it would come back slowly.
    let setup = begin.service("b", &[other.address()], "");
    proxy.reload(&setup.clone().service("a", &ends, keys));
    proxy.reload(&setup.service(
        "a",
        &[ends[1], ends[0]],
        &format!("slow_start = \"1s\"\n{keys}"),
    ));
    assert_eq!(count(&mut client, "a.test", 10, "a"), 10);
    assert_eq!(bad.requests(), asked);
}

/// Whether its probes are good, and how often each path was asked for.
#[derive(Clone, Default)]
struct Probed {
    is_good: Arc<AtomicBool>,
    live: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

impl Probed {
    fn serve(&self) -> Served {
        let own = self.clone();
        Served::new(move |request: &Message| {
            if request.head.start.contains("/live") {
                own.live.fetch_add(1, Ordering::Relaxed);
                if !own.is_good.load(Ordering::Relaxed) {
                    return b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec();
                }
            } else if !request.head.start.contains("/well") {
                own.others.fetch_add(1, Ordering::Relaxed);
            }
            ok("p")
        })
    }
}

const UNHEALTHY: &str = "an endpoint is unhealthy";

fn what_probes_have_said_stays(driver: Driver) {
    let probed = Probed::default();
    let (sick, well) = (probed.serve(), Served::saying("a"));
    let keys = "[service.probe]\ninterval = \"1d\"\ninterval_failing = \"1d\"";
    let ends = [sick.address(), well.address()];
    let begin = Setup::new(driver).expects_line(UNHEALTHY);
    let mut proxy = begin.clone().service("a", &ends, keys).start();
    proxy.log_line(UNHEALTHY);
    let mut client = proxy.client();
    let address = sick.address().to_string();
    proxy.report_where(|report| report.services["a"].standings[&address] == "unhealthy");
    let asked = [&probed.live, &probed.others].map(|count| count.load(Ordering::Relaxed));
    let setup = begin.service("b", &[well.address()], "");
    proxy.reload(
        &setup
            .clone()
            .service("a", &ends, &format!("retry.attempts_max = 0\n{keys}")),
    );
    assert_eq!(count(&mut client, "a.test", 20, "a"), 20);
    let now = [&probed.live, &probed.others].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(asked, now, "it is not asked anew");
    // Another rule is tried at once.
    let keys = format!("{keys}\npath = \"/well\"");
    proxy.reload(&setup.service("a", &ends, &keys));
    proxy.log_line("an endpoint is healthy again");
    eventually(|| client.get("a.test", "/").text() == "p");
}

fn an_endpoint_that_nobody_probes_any_more_is_used(driver: Driver) {
    let probed = Probed::default();
    let (sick, well) = (probed.serve(), Served::saying("a"));
    let keys = "[service.probe]\ninterval = \"1d\"\ninterval_failing = \"1d\"";
    let ends = [sick.address(), well.address()];
    let begin = Setup::new(driver).expects_line(UNHEALTHY);
    let mut proxy = begin.clone().service("a", &ends, keys).start();
    proxy.log_line(UNHEALTHY);
    proxy.reload(&begin.clone().service("a", &ends, ""));
    let mut client = proxy.client();
    eventually(|| client.get("a.test", "/").text() == "p");
    // Who got exchanges goes on to get them until there is a verdict.
    let waits = format!("{keys}\nwait_first = true\ntimeout = \"1s\"");
    proxy.reload(&begin.service("a", &[well.address()], &waits));
    assert_eq!(count(&mut client, "a.test", 5, "a"), 5);
}

fn a_new_backend_starts_slowly_and_goes_on_so(driver: Driver) {
    let [a, b, other] = ["a", "b", "c"].map(Served::saying);
    let keys = "policy = \"round_robin\"\nslow_start = \"1d\"";
    let begin = Setup::new(driver);
    let mut proxy = begin.clone().service("a", &[a.address()], keys).start();
    let mut client = proxy.client();
    assert_eq!(count(&mut client, "a.test", 5, "a"), 5);
    let ends = [a.address(), b.address()];
    proxy.reload(&begin.clone().service("a", &ends, keys));
    // A sixteenth of its weight against 1, in turn.
    assert_eq!(count(&mut client, "a.test", 34, "b"), 2);
    let setup = begin.service("c", &[other.address()], "");
    proxy.reload(&setup.clone().service("a", &ends, keys));
    assert_eq!(count(&mut client, "a.test", 34, "b"), 2);
    assert_eq!(count(&mut client, "c.test", 1, "c"), 1);
    let keys = keys.replace("1d", "0s");
    proxy.reload(&setup.service("a", &ends, &keys));
    assert_eq!(count(&mut client, "a.test", 34, "b"), 17);
}

fn a_removed_backend_finishes_what_runs(driver: Driver) {
    let (origin, other) = (Origin::new(), Served::saying("other"));
    let begin = Setup::new(driver);
    let mut proxy = begin.clone().service("a", &[origin.address()], "").start();
    let (mut idle, mut busy) = (proxy.client(), proxy.client());
    let mut running = origin.gets(&mut busy, GET);
    let mut pooled = origin.gets(&mut idle, GET);
    pooled.send(ok("pooled"));
    assert_eq!(idle.answer().text(), "pooled");
    proxy.reload(&begin.service("a", &[other.address()], ""));
    let removed = format!("reload: removed backend {} of a: ", origin.address());
    proxy.log_line(&removed);
    pooled.ends();
    assert_eq!(count(&mut idle, "a.test", 5, "other"), 5);
    running.send(ok("finished"));
    assert_eq!(busy.answer().text(), "finished");
    running.ends();
    assert!(origin.has_no_more());
}

fn a_renamed_service_is_another_one(driver: Driver) {
    let origin = Served::saying("a");
    let begin = Setup::new(driver);
    let mut proxy = begin
        .clone()
        .service("a", &[origin.address()], "")
        .expects_line(NOT_FOUND)
        .start();
    let mut client = proxy.client();
    assert_eq!(count(&mut client, "a.test", 3, "a"), 3);
    proxy.reload(&begin.service("b", &[origin.address()], ""));
    assert_eq!(count(&mut client, "b.test", 2, "a"), 2);
    assert_eq!(client.get("a.test", "/").status(), 404);
    proxy.log_line("reload: removed service a: what runs finishes");
    let report = proxy.report_where(|report| report.services["b"].exchanges == 2);
    assert!(!report.services.contains_key("a"));
}

fn routes_change(driver: Driver) {
    let [a, b] = ["a", "b"].map(Served::saying);
    let services = Setup::new(driver).service("a", &[a.address()], "");
    let services = services.service("b", &[b.address()], "");
    let route = |to: &str| {
        let route = format!("[[route]]\npath = \"/to\"\nservice = \"{to}\"");
        services.clone().tables(&route)
    };
    let mut proxy = route("a").start();
    let mut client = proxy.client();
    assert_eq!(client.get("b.test", "/to").text(), "a");
    proxy.reload(&route("b"));
    proxy.log_line("reload: changed route * /to: service \"a\" -> \"b\"; holds for new requests");
    assert_eq!(client.get("a.test", "/to").text(), "b");
    proxy.reload(&services);
    assert_eq!(client.get("a.test", "/to").text(), "a");
}

/// A service `n` whose one backend is `host` at the port of `at`.
fn named(host: &str, at: SocketAddr) -> String {
    format!(
        "[[service]]\nname = \"n\"\ndomains = [\"n.test\"]\nbackends = [\"{host}:{}\"]",
        at.port()
    )
}

const LOCAL: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

fn a_name_is_known_before_its_backend_is_used(driver: Driver) {
    let (dns, origin) = (Dns::new(), Served::saying("n"));
    dns.set_for("n.example", &LOCAL, 3_600);
    let setup = Setup::new(driver).tables(&dns.table());
    let setup = setup.service("a", &[origin.address()], "");
    let gone = "a name cannot be resolved";
    let mut proxy = setup.clone().expects_line(gone).start();
    proxy.reload(&setup.clone().tables(&named("n.example", origin.address())));
    assert_eq!(proxy.client().get("n.test", "/").text(), "n");
    let asked = dns.questions();
    // What is known stays known, also for another port.
    let (again, next) = (Served::saying("again"), setup.clone());
    proxy.reload(&next.tables(&named("n.example", again.address())));
    assert_eq!(proxy.client().get("n.test", "/").text(), "again");
    assert_eq!(dns.questions(), asked);
    // Whoever is asked instead has to find it first.
    let table = dns.table();
    let other = Dns::new();
    other.fail("n.example", Failure::Nxdomain);
    let text = setup.config().replace(&table, &other.table());
    proxy.write_config(&format!("{text}{}", named("n.example", again.address())));
    proxy.signal("HUP");
    proxy.log_line(gone);
    assert_eq!(proxy.client().get("n.test", "/").text(), "again");
}

/// A proxy whose reload, which was asked for, waits for a name that nobody answers for.
fn waiting(driver: Driver, dns: &Dns, origin: &Served) -> (Setup, Proxy) {
    dns.fail("silent.example", Failure::Silence);
    let setup = Setup::new(driver).tables(&dns.table());
    let setup = setup.service("a", &[origin.address()], "");
    let start = setup.clone().expects_line("a name is not resolved yet");
    let start = start.expects_line("a name cannot be resolved");
    let proxy = start.expects_line(REFUSED).expects_line(NOT_FOUND).start();
    let next = setup
        .clone()
        .tables(&named("silent.example", origin.address()));
    proxy.write_config(&next.config());
    proxy.signal("HUP");
    proxy.log_line("looking names up names=1");
    (setup, proxy)
}

fn a_report_comes_while_a_reload_waits(driver: Driver) {
    let (dns, origin) = (Dns::new(), Served::saying("a"));
    let (_, mut proxy) = waiting(driver, &dns, &origin);
    let before = proxy.log_lines().len();
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
    assert_eq!(proxy.report().generation, 1);
    dns.set("silent.example", &LOCAL);
    dns.recover("silent.example");
    proxy.reloads_since(before);
    assert_eq!(proxy.report().generation, 2);
}

fn a_name_that_nobody_answers_for_is_done_without(driver: Driver) {
    let (dns, origin) = (Dns::new(), Served::saying("a"));
    let (_, mut proxy) = waiting(driver, &dns, &origin);
    proxy.reloads_since(0);
    proxy.log_line("a name is not resolved yet; going on without it");
    let answer = proxy.client().get("n.test", "/");
    assert_eq!(answer.head.proxy_error().as_deref(), Some("dns_error"));
    assert_eq!(proxy.client().get("a.test", "/").text(), "a");
}

fn who_asks_meanwhile_is_next(driver: Driver) {
    let (dns, origin) = (Dns::new(), Served::saying("a"));
    let (setup, mut proxy) = waiting(driver, &dns, &origin);
    proxy.write_config(&setup.service("b", &[origin.address()], "").config());
    proxy.signal("HUP");
    proxy.signal("HUP");
    assert_eq!(proxy.client().get("b.test", "/").status(), 404);
    dns.set("silent.example", &LOCAL);
    dns.recover("silent.example");
    proxy.log_has(2, "reloaded");
    proxy.reloads_since(0);
    assert_eq!(proxy.client().get("b.test", "/").text(), "a");
    assert_eq!(proxy.client().get("n.test", "/").status(), 404);
}

fn a_drain_refuses_reloads(driver: Driver) {
    let origin = Origin::new();
    let setup = Setup::new(driver).service("a", &[origin.address()], "");
    let mut proxy = setup.expects_line(REFUSED).start();
    let mut client = proxy.client();
    let mut upstream = origin.gets(&mut client, GET);
    proxy.signal("TERM");
    proxy.log_line("draining");
    proxy.signal("HUP");
    assert!(proxy.log_line(REFUSED).contains("the process drains"));
    upstream.send(ok("a"));
    assert_eq!(client.answer().text(), "a");
    assert_eq!(proxy.exit_code(), Some(0));
}

fn a_drain_ends_a_reload_that_waits(driver: Driver) {
    let (dns, origin) = (Dns::new(), Served::saying("a"));
    let (_, mut proxy) = waiting(driver, &dns, &origin);
    let _client = proxy.client();
    proxy.signal("TERM");
    assert!(proxy.log_line(REFUSED).contains("the process drains"));
    assert_eq!(proxy.exit_code(), Some(0));
}

fn no_request_fails_while_the_file_changes(driver: Driver) {
    let [a, b, c] = ["a", "b", "c"].map(Served::saying);
    let keys = "policy = \"round_robin\"";
    let begin = Setup::new(driver).shards(2);
    let setups = [
        begin
            .clone()
            .service("a", &[a.address(), b.address()], keys),
        begin
            .clone()
            .service("z", &[c.address()], "")
            .service("a", &[b.address()], keys),
        begin.service("a", &[c.address(), b.address(), a.address()], keys),
    ];
    let mut proxy = setups[0].clone().start();
    let (address, over) = (proxy.address(), Arc::new(AtomicBool::new(false)));
    let kept = Arc::clone(&over);
    let kept = thread::spawn(move || {
        let mut client = Wire::connect(address);
        let mut answers = 0;
        while !kept.load(Ordering::Relaxed) {
            assert_eq!(client.get("a.test", "/").status(), 200);
            answers += 1;
        }
        answers
    });
    let fresh = Arc::clone(&over);
    let fresh = thread::spawn(move || {
        while !fresh.load(Ordering::Relaxed) {
            assert_eq!(Wire::connect(address).get("a.test", "/").status(), 200);
        }
    });
    for setup in setups.iter().cycle().skip(1).take(6) {
        proxy.reload(setup);
    }
    over.store(true, Ordering::Relaxed);
    assert!(0 < kept.join().expect("each of its requests is answered"));
    fresh.join().expect("each of its requests is answered");
}

#[test]
fn check_says_what_a_reload_would_change() {
    let listener = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nservice = \"a\"\n";
    let service = |backend: &str| {
        format!("{listener}[[service]]\nname = \"a\"\nbackends = [\"{backend}\"]\n")
    };
    let directory = Directory::new();
    let last = directory.join("last.toml");
    fs::write(&last, service("127.0.0.1:9001")).expect("the folder is writable");
    let path = last.to_str().expect("cargo's directory is UTF-8");
    let check = |next: &str| run_to_end(&["check", "--diff", path], next);
    let (code, output, errors) = check(&service("127.0.0.1:9002"));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(
        output,
        "added backend 127.0.0.1:9002 of a: gets its share from now on\n\
         removed backend 127.0.0.1:9001 of a: what runs finishes; idle connections are closed\n\
         kept 1 listener, 0 services, 0 backends, 0 routes: not touched\n"
    );
    let (code, output, _) = check(&service("127.0.0.1:9001"));
    assert_eq!(code, Some(0));
    assert!(output.starts_with("nothing differs\n"), "{output}");
    let (code, output, errors) = check("nothing = 1");
    assert_eq!((code, output.as_str()), (Some(2), ""));
    assert!(errors.contains("unknown key"), "{errors}");
    fs::write(&last, "[[listener]]").expect("the folder is writable");
    let (code, _, errors) = check(&service("127.0.0.1:9001"));
    assert_eq!(code, Some(2));
    assert!(errors.contains("last.toml"), "{errors}");
}
