//! From host, path, method and parameter to a service.

use crate::support::{Driver, Served, Setup, on_both_drivers};

on_both_drivers! {
    the_host_names_the_service
    routes_come_before_domains
    the_service_parameter_stands_for_the_host
    a_listener_with_a_service_sends_the_rest_there
    a_route_looks_at_fields_and_query
    a_route_leads_to_several_services_by_weight
    a_request_for_no_service_is_answered_with_404_and_counted_apart
}

#[track_caller]
fn check(client: &mut crate::support::Wire, host: &str, path: &str, expected: &str) {
    let answer = client.get(host, path);
    assert_eq!(answer.text(), expected, "{host}{path}");
}

fn the_host_names_the_service(driver: Driver) {
    let (a, b, c) = (
        Served::saying("a"),
        Served::saying("b"),
        Served::saying("c"),
    );
    let proxy = Setup::new(driver)
        .service("a", &[a.address()], "")
        .tables(&format!(
            "[[service]]\nname = \"b\"\ndomains = [\"*.wild.test\"]\nbackends = [\"{}\"]\n\
             [[service]]\nname = \"c\"\ndomains = [\"*.deep.wild.test\", \"Upper.test\"]\n\
             backends = [\"{}\"]",
            b.address(),
            c.address()
        ))
        .start();
    let mut client = proxy.client();
    check(&mut client, "a.test", "/", "a");
    check(&mut client, "A.TEST:8080", "/", "a");
    check(&mut client, "x.wild.test", "/", "b");
    check(&mut client, "x.y.wild.test", "/", "b");
    check(&mut client, "x.deep.wild.test", "/", "c");
    check(&mut client, "upper.test", "/", "c");
    assert_eq!(client.get("wild.test", "/").status(), 404);
}

fn routes_come_before_domains(driver: Driver) {
    let (a, b, c) = (
        Served::saying("a"),
        Served::saying("b"),
        Served::saying("c"),
    );
    let proxy = Setup::new(driver)
        .service("a", &[a.address()], "")
        .service("b", &[b.address()], "")
        .service("c", &[c.address()], "")
        .tables(
            "[[route]]\ndomain = \"a.test\"\npath = \"/register\"\nmethods = [\"POST\"]\n\
             service = \"b\"\n\
             [[route]]\npath = \"/static/*\"\nservice = \"c\"",
        )
        .start();
    let mut client = proxy.client();
    check(&mut client, "a.test", "/register", "a");
    client.send("POST /register HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().text(), "b");
    check(&mut client, "a.test", "/static/style.css?v=1", "c");
    check(&mut client, "nobody.test", "/static/", "c");
    check(&mut client, "a.test", "/statics", "a");
}

fn the_service_parameter_stands_for_the_host(driver: Driver) {
    let (a, b) = (Served::saying("a"), Served::saying("b"));
    let proxy = Setup::new(driver)
        .listener("service_parameter = \"s\"")
        .service("a", &[a.address()], "")
        .service("b", &[b.address()], "")
        .start();
    let mut client = proxy.client();
    check(&mut client, "a.test", "/", "a");
    check(&mut client, "a.test", "/?s=b.test", "b");
    check(&mut client, "nobody.test", "/path?x=1&s=b.test&y=2", "b");
    check(&mut client, "a.test", "/?xs=b.test", "a");
    assert_eq!(client.get("a.test", "/?s=nobody.test").status(), 404);
    check(&mut client, "b.test", "/", "b");
}

fn a_listener_with_a_service_sends_the_rest_there(driver: Driver) {
    let (a, b) = (Served::saying("a"), Served::saying("b"));
    let proxy = Setup::new(driver)
        .listener("service = \"b\"")
        .service("a", &[a.address()], "")
        .service("b", &[b.address()], "")
        .start();
    let mut client = proxy.client();
    check(&mut client, "a.test", "/", "a");
    check(&mut client, "nobody.test", "/", "b");
}

fn a_route_looks_at_fields_and_query(driver: Driver) {
    let (a, b, c) = (
        Served::saying("a"),
        Served::saying("b"),
        Served::saying("c"),
    );
    let proxy = Setup::new(driver)
        .listener("service_parameter = \"s\"")
        .service("a", &[a.address()], "")
        .service("b", &[b.address()], "")
        .service("c", &[c.address()], "")
        .tables(
            "[[route]]\nfields = { X-Canary = \"1\" }\nservice = \"b\"\n\
             [[route]]\nquery = { version = \"2\" }\nservice = \"c\"",
        )
        .start();
    let mut client = proxy.client();
    check(&mut client, "a.test", "/?version=1", "a");
    check(&mut client, "a.test", "/?version=2", "c");
    // Where a parameter stands for the Host, routes look at all else as ever.
    check(&mut client, "nobody.test", "/?s=a.test&version=2", "c");
    check(&mut client, "nobody.test", "/?s=a.test", "a");
    for (field, expected) in [
        ("X-Canary: 1", "b"),
        ("x-canary:1", "b"),
        ("X-Canary: 2", "a"),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n"));
        assert_eq!(client.answer().text(), expected, "{field}");
    }
}

fn a_route_leads_to_several_services_by_weight(driver: Driver) {
    const REQUESTS: usize = 400;
    let (a, b, c) = (
        Served::saying("a"),
        Served::saying("b"),
        Served::saying("c"),
    );
    let proxy = Setup::new(driver)
        .service("a", &[a.address()], "")
        .service("b", &[b.address()], "")
        .service("c", &[c.address()], "")
        .tables("[[route]]\nweights = { a = 3, b = 1, c = 0 }")
        .start();
    let mut client = proxy.client();
    for _ in 0..REQUESTS {
        client.get("a.test", "/");
    }
    assert_eq!(a.requests() + b.requests(), REQUESTS);
    // A hundred are expected; eight standard deviations are 70.
    assert!((30..170).contains(&b.requests()), "{}", b.requests());
    assert_eq!(c.requests(), 0);
}

fn a_request_for_no_service_is_answered_with_404_and_counted_apart(driver: Driver) {
    let a = Served::saying("a");
    let proxy = Setup::new(driver)
        .expects_line("destination_not_found")
        .service("a", &[a.address()], "")
        .start();
    let mut client = proxy.client();
    let answer = client.get("nobody.test", "/some/path");
    assert_eq!(answer.status(), 404);
    let error = answer.head.proxy_error();
    assert_eq!(error.as_deref(), Some("destination_not_found"));
    assert_eq!(answer.text().lines().count(), 1, "a one-line text body");
    check(&mut client, "a.test", "/", "a");
    let report = proxy.report_where(|report| report.exchanges() == 2);
    assert_eq!(report.no_service.exchanges, 1);
    assert_eq!(report.no_service.own_answers, 1);
    assert_eq!(report.services["a"].forwarded, 1);
    assert_eq!(report.services["a"].own_answers, 0);
    proxy.counts_one_fault("destination_not_found");
}
