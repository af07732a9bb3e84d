//! Pairs of configurations, each with what is said of them.

use super::*;
use crate::config;

const BEGIN: &str = r#"
    [[listener]]
    name = "web"
    address = "127.0.0.1:8080"

    [[listener]]
    name = "old"
    address = "127.0.0.1:8081"

    [[service]]
    name = "app"
    domains = ["app.test"]
    backends = ["127.0.0.1:9001", { address = "127.0.0.1:9002", weight = 2 }, "app.internal:80"]
    [service.fields]
    request_set = { Authorization = "secret one" }

    [[service]]
    name = "still"
    backends = ["127.0.0.1:9003"]

    [[service]]
    name = "gone"
    backends = ["127.0.0.1:9004"]

    [[route]]
    domain = "app.test"
    path = "/a/*"
    methods = ["GET", "PUT"]
    service = "app"

    [[route]]
    path = "/b"
    fields = { X-Secret = "secret two" }
    service = "still"
"#;

const NEXT: &str = r#"
    [runtime]
    shards = 3
    drain_timeout = "10s"
    [admin]
    address = "127.0.0.1:9902"
    [log]
    to = ["stderr", "/tmp/log"]
    [dns]
    ttl_max = "1m"

    [[listener]]
    name = "web"
    address = "127.0.0.1:8080"
    timeouts = { head = "5s" }

    [[listener]]
    name = "new"
    address = "127.0.0.1:8082"

    [[service]]
    name = "fresh"
    backends = ["127.0.0.1:9006", "127.0.0.1:9007"]

    [[service]]
    name = "still"
    backends = ["127.0.0.1:9003"]

    [[service]]
    name = "app"
    domains = ["app.test"]
    slow_start = "10s"
    backends = [{ address = "127.0.0.1:9002", drain = true }, "app.internal:80", "127.0.0.1:9005"]
    [service.probe]
    kind = "exec"
    command = ["/bin/true", "secret three"]
    [service.timeouts]
    connect = "2s"
    [service.fields]
    request_set = { Authorization = "secret four" }

    [[route]]
    path = "/b"
    fields = { X-Secret = "secret two" }
    weights = { still = 9, fresh = 1 }

    [[route]]
    domain = "app.test"
    path = "/a/*"
    methods = ["GET", "PUT"]
    service = "app"
"#;

fn config(text: &str) -> Config {
    config::parse("config.toml", text).expect("the text breaks no rule")
}

fn difference(last: &str, next: &str) -> Difference {
    let clients = |listener: &Listener| match listener.name.as_str() {
        "web" => Some(12),
        "old" => Some(1),
        _ => None,
    };
    Difference::of(&config(last), &config(next), &clients)
}

#[test]
fn everything_that_may_differ_has_its_words() {
    let text = difference(BEGIN, NEXT).to_string();
    assert!(!text.contains("secret"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn the_way_back_has_its_words() {
    let text = difference(NEXT, BEGIN).to_string();
    assert!(!text.contains("secret"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn where_nothing_differs_everything_is_kept() {
    let difference = difference(BEGIN, BEGIN);
    assert!(difference.is_empty());
    assert_eq!(
        difference.to_string(),
        "nothing differs\nkept 2 listeners, 3 services, 5 backends, 2 routes: not touched\n"
    );
}

#[test]
fn another_order_of_what_is_there_is_said() {
    let one = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n";
    let services = |names: [&str; 2], backends: &str| {
        let service = |name| format!("[[service]]\nname = {name:?}\nbackends = [{backends}]\n");
        format!("{one}{}", names.map(service).concat())
    };
    let last = services(["a", "b"], "\"127.0.0.1:1\", \"127.0.0.1:2\"");
    let next = services(["b", "a"], "\"127.0.0.1:2\", \"127.0.0.1:1\"");
    let difference = difference(&last, &next);
    let said: Vec<String> = difference.changes.iter().map(Change::to_string).collect();
    let expected = ["the backends of b", "the backends of a", "the services"].map(|what| {
        format!(
            "changed the order of {what}: holds from now on; connections, health and counters stay"
        )
    });
    assert_eq!(said, expected);
    // What has come or gone between others is no other order.
    let more = services(["a", "b"], "\"127.0.0.1:3\", \"127.0.0.1:1\"");
    let difference = Difference::of(&config(&last), &config(&more), &|_| None);
    assert_eq!(difference.count(Verb::Changed), 0, "{difference}");
}

#[test]
fn the_kernels_ports_go_with_the_names_of_their_listeners() {
    let listener = |name| format!("[[listener]]\nname = {name:?}\naddress = \"127.0.0.1:0\"\n");
    let kept = difference(&listener("a"), &listener("a"));
    assert!(kept.is_empty(), "{kept}");
    let other = difference(&listener("a"), &listener("b"));
    assert_eq!(
        (other.count(Verb::Added), other.count(Verb::Removed)),
        (1, 1)
    );
}

#[test]
fn the_keys_of_the_process_are_named_apart() {
    let text = difference(BEGIN, &format!("[runtime]\npin = \"on\"\n{BEGIN}")).to_string();
    let expected = "changed [runtime]: pin \"auto\" -> \"on\"; stays as it was until an upgrade \
                    (SIGUSR2) or a restart\n";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn routes_that_match_the_same_are_told_apart_by_their_order() {
    let route = |service: &str| format!("[[route]]\npath = \"/a\"\nservice = {service:?}\n");
    let of = |services: &[&str]| {
        let routes: String = services.iter().map(|service| route(service)).collect();
        format!("{BEGIN}{routes}")
    };
    let kept = difference(&of(&["app", "still"]), &of(&["app", "still"]));
    assert!(kept.is_empty(), "{kept}");
    let fewer = difference(&of(&["app", "still"]), &of(&["app"]));
    assert_eq!((fewer.count(Verb::Removed), fewer.kept.routes), (1, 3));
    let swapped = difference(&of(&["app", "still"]), &of(&["still", "app"]));
    assert_eq!(swapped.count(Verb::Changed), 2);
}
