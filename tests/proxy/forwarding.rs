//! What one hop changes in a head, as each side sees it (RFC 9110 section 7.6).

use crate::support::{Driver, GET, Head, Origin, Setup, on_both_drivers};

on_both_drivers! {
    a_request_arrives_with_its_fields_in_order_and_the_forwarding_fields
    forwarding_fields_that_are_there_are_kept_or_appended_to
    hop_by_hop_fields_go_in_both_directions
    an_answer_arrives_with_its_fields_in_order_and_via
    the_services_fields_replace_and_remove
    the_backend_field_names_the_endpoint
    an_answer_between_comes_through_before_the_final_one
}

/// What the origin sees of `request`, and what the client sees of `answer`.
#[track_caller]
fn exchange(driver: Driver, keys: &str, request: &str, answer: &str) -> (Head, Head) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .service("a", &[origin.address()], keys)
        .start();
    let mut client = proxy.client();
    client.send(request);
    let mut upstream = origin.accept();
    let seen = upstream.request().head;
    upstream.send(answer);
    (seen, client.answer().head)
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The fields of `head` that `original` has too, as it wrote them.
fn kept<'a>(head: &'a Head, original: &[(&str, &str)]) -> Vec<(&'a str, &'a str)> {
    let fields = head.fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
    fields.filter(|field| original.contains(field)).collect()
}

#[track_caller]
fn check(head: &Head, expected: &[(&str, Option<&str>)]) {
    for (name, value) in expected {
        assert_eq!(head.field(name).as_deref(), *value, "{name} of {head:#?}");
    }
}

fn a_request_arrives_with_its_fields_in_order_and_the_forwarding_fields(driver: Driver) {
    let original = [
        ("hOsT", "a.test:80"),
        ("Accept", "text/plain"),
        ("X-Twice", "1"),
        ("Cookie", "a=b; c=\"d\""),
        ("X-Twice", "2"),
        ("X-Empty", ""),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let fields: String = original
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!("GET /p%20ath?q=1&r HTTP/1.1\r\n{fields}\r\n");
    let (seen, _) = exchange(driver, "", &request, ANSWER);
    assert_eq!(seen.start, "GET /p%20ath?q=1&r HTTP/1.1");
    assert_eq!(kept(&seen, &original), original);
    check(
        &seen,
        &[
            ("X-Forwarded-For", Some("127.0.0.1")),
            ("X-Forwarded-Proto", Some("http")),
            ("X-Forwarded-Host", Some("a.test:80")),
            ("Via", Some("1.1 ringmain-test")),
        ],
    );
    let id = seen.field("X-Request-Id").expect("it is made where absent");
    assert!(!id.is_empty());
}

fn forwarding_fields_that_are_there_are_kept_or_appended_to(driver: Driver) {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.test\r\nVia: 1.0 fred\r\n\
        X-Request-Id: 4711\r\n\r\n";
    let (seen, _) = exchange(driver, "", request, ANSWER);
    check(
        &seen,
        &[
            ("X-Forwarded-For", Some("192.0.2.1, 127.0.0.1")),
            ("X-Forwarded-Proto", Some("https")),
            ("X-Forwarded-Host", Some("b.test")),
            ("Via", Some("1.0 fred, 1.1 ringmain-test")),
            ("X-Request-Id", Some("4711")),
        ],
    );
}

fn hop_by_hop_fields_go_in_both_directions(driver: Driver) {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, x-Secret\r\n\
        Keep-Alive: timeout=5\r\nX-Secret: 1\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n\
        X-Stays: 1\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-inner\r\n\
        Keep-Alive: timeout=5\r\nX-Inner: 1\r\nProxy-Connection: keep-alive\r\nX-Stays: 1\r\n\
        Content-Length: 0\r\n\r\n";
    let (seen, given) = exchange(driver, "", request, answer);
    let gone = ["Keep-Alive", "Proxy-Connection"].map(|name| (name, None));
    check(&seen, &gone);
    check(
        &seen,
        &[("X-Secret", None), ("X-Stays", Some("1")), ("TE", None)],
    );
    check(&given, &gone);
    check(&given, &[("X-Inner", None), ("X-Stays", Some("1"))]);
    for head in [&seen, &given] {
        let connection = head.field("Connection").unwrap_or_default();
        assert!(!connection.to_lowercase().contains("x-"), "{head:#?}");
    }
}

fn an_answer_arrives_with_its_fields_in_order_and_via(driver: Driver) {
    let original = [
        ("server", "origin/1"),
        ("Set-Cookie", "a=1"),
        ("X-Between", "2"),
        ("Set-Cookie", "b=2"),
        ("Content-Length", "0"),
    ];
    let fields: String = original
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let answer = format!("HTTP/1.1 299 Quite  Fine\r\n{fields}\r\n");
    let (_, given) = exchange(driver, "", GET, &answer);
    assert_eq!(given.start, "HTTP/1.1 299 Quite  Fine");
    assert_eq!(kept(&given, &original), original);
    check(
        &given,
        &[("Via", Some("1.1 ringmain-test")), ("Proxy-Status", None)],
    );
}

fn the_services_fields_replace_and_remove(driver: Driver) {
    let keys = "[service.fields]\n\
        request_set = { \"X-Set\" = \"ours\", \"X-New\" = \"new\" }\n\
        request_remove = [\"X-Gone\"]\n\
        response_set = { \"Server\" = \"ringmain\" }\n\
        response_remove = [\"X-Powered-By\"]";
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Set: 1\r\nx-set: 2\r\nx-gone: 1\r\n\
        Connection: x-new\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nserver: x\r\nx-powered-by: y\r\nSERVER: z\r\n\
        Content-Length: 0\r\n\r\n";
    let (seen, given) = exchange(driver, keys, request, answer);
    check(
        &seen,
        &[
            ("X-Set", Some("ours")),
            ("X-New", Some("new")),
            ("X-Gone", None),
        ],
    );
    check(
        &given,
        &[("Server", Some("ringmain")), ("X-Powered-By", None)],
    );
}

fn the_backend_field_names_the_endpoint(driver: Driver) {
    let origin = Origin::new();
    let proxy = Setup::new(driver)
        .service(
            "a",
            &[origin.address()],
            "backend_field = \"X-Backend-Server\"",
        )
        .start();
    let mut client = proxy.client();
    client.send(GET);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nX-Backend-Server: forged\r\nContent-Length: 0\r\n\r\n");
    let named = client.answer().head.field("X-Backend-Server");
    assert_eq!(named, Some(origin.address().to_string()));
}

fn an_answer_between_comes_through_before_the_final_one(driver: Driver) {
    let origin = Origin::new();
    let proxy = driver.proxy_for(origin.address());
    let mut client = proxy.client();
    client.send(GET);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    assert_eq!(client.answer().status(), 103);
    upstream.send(ANSWER);
    assert_eq!(client.answer().status(), 200);
}
