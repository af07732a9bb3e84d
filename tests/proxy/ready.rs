//! Whether clients may be sent here: what orchestrators ask for.

use std::time::Instant;

use crate::support::{DEADLINE, Driver, Origin, Served, Setup, on_both_drivers};

on_both_drivers! {
    health_and_readiness_are_told
    a_service_that_fails_open_is_not_ready
}

fn health_and_readiness_are_told(driver: Driver) {
    let origin = Served::saying("a");
    let away = format!(
        "[[service]]\nname = \"away\"\nbackends = [{{ address = \"{}\", drain = true }}]\n",
        origin.address()
    );
    let proxy = Setup::new(driver)
        .shards(2)
        .admin("127.0.0.1:0")
        .service("a", &[origin.address(), Origin::refused()], "")
        .tables(&away)
        .start();
    for (request, status, text) in [
        ("GET /healthz", 200, "ok\n"),
        ("HEAD /healthz", 200, ""),
        ("GET /readyz", 200, "ready\n"),
        ("GET /readyz?service=", 200, "ready\n"),
        (
            "GET /readyz?service=a",
            200,
            "ready; service \"a\": 2 of 2 endpoints are in\n",
        ),
        (
            "GET /readyz?service=away",
            503,
            "not ready: service \"away\": 0 of 1 endpoints are in\n",
        ),
        (
            "GET /readyz?service=awya",
            404,
            "there is no service \"awya\"; the nearest is \"away\"\n",
        ),
        (
            "GET /readyz?srvice=a",
            400,
            "\"srvice\" is not a parameter; allowed: service\n",
        ),
        (
            "GET /readyz?service=a&service=a",
            400,
            "service: it is there twice; allowed: once\n",
        ),
        ("POST /healthz", 405, "allowed: GET\n"),
    ] {
        let answer = proxy.ask(request);
        assert_eq!(
            (answer.status(), &*answer.text()),
            (status, text),
            "{request}"
        );
        assert_eq!(answer.head.field("Server").as_deref(), Some("ringmain"));
    }
}

fn a_service_that_fails_open_is_not_ready(driver: Driver) {
    let probe = "[service.probe]\nkind = \"tcp\"\ninterval_failing = \"100ms\"\n";
    let proxy = Setup::new(driver)
        .admin("127.0.0.1:0")
        .expects_line("an endpoint is unhealthy")
        .expects_line("a service has no healthy endpoint")
        .service("a", &[Origin::refused()], probe)
        .start();
    let begin = now();
    let ready = loop {
        let ready = proxy.ask("GET /readyz?service=a");
        if ready.status() != 200 {
            break ready;
        }
        assert!(begin.elapsed() < DEADLINE, "it is never out");
    };
    assert_eq!(ready.status(), 503);
    let text = ready.text();
    assert!(
        text.contains("0 of 1 endpoints are in; it fails open"),
        "{text}"
    );
    assert_eq!(proxy.ask("GET /readyz").status(), 200);
}

#[expect(clippy::disallowed_methods, reason = "tests have no shards")]
fn now() -> Instant {
    Instant::now()
}
