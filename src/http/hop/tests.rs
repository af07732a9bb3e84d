//! What one hop changes in a head, by wire bytes.

use super::super::head::{FieldSpace, HeadLimits, HeadScan};
use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes_max: 4096,
    fields_max: 20,
};

const OWN: &str = "X-Forwarded-For: 192.0.2.1|X-Forwarded-Proto: http|X-Forwarded-Host: a|\
                   X-Request-Id: 000000000000000000000000000000ff|Via: 1.1 me||";

fn edits(set: &[(&str, &str)], remove: &[&str]) -> FieldEdits {
    FieldEdits {
        set: set
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        remove: remove.iter().map(|name| (*name).into()).collect(),
    }
}

/// What goes upstream for the head `from`; lines end with `|`.
fn forwarded(from: &str, edits: &FieldEdits) -> String {
    sent(from, edits, None)
}

/// As [`forwarded`], of a request that is sent more than once with this key, if it is.
fn sent(from: &str, edits: &FieldEdits, repeated: Option<u128>) -> String {
    let head = from.replace('|', "\r\n");
    let mut space = FieldSpace::new();
    let request = Request::parse(head.as_bytes(), &LIMITS, &mut space).unwrap();
    let mut out = Vec::new();
    let hop = RequestHop {
        client: "192.0.2.1",
        via: "me",
        request_id: 0xff,
        edits,
        repeated,
    };
    write_request(&mut out, &request, &hop);
    String::from_utf8(out).unwrap().replace("\r\n", "|")
}

#[track_caller]
fn check_request(from: &str, to: &str) {
    assert_eq!(forwarded(from, &FieldEdits::default()), to, "{from}");
}

#[test]
fn a_request_that_is_sent_more_than_once_has_a_key_and_waits_for_nobody() {
    const KEY: &str = "Idempotency-Key: \"01234567-89ab-4def-8123-456789abcdef\"|";
    let key = Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let check = |fields: &str, edits: &FieldEdits, kept: &str, own: &str| {
        let head = format!("POST / HTTP/1.1|Host: a|{fields}Content-Length: 4||");
        let expected = format!(
            "POST / HTTP/1.1|Host: a|{kept}Content-Length: 4|X-Forwarded-For: 192.0.2.1|\
             X-Forwarded-Proto: http|X-Forwarded-Host: a|\
             X-Request-Id: 000000000000000000000000000000ff|{own}Via: 1.1 me|"
        );
        let written = sent(&head, edits, key);
        assert!(written.starts_with(&expected), "{written}");
    };
    let none = FieldEdits::default();
    check("", &none, "", KEY);
    check("Expect: 100-continue|", &none, "", KEY);
    let own = "idempotency-key: \"own\"|";
    check(own, &none, own, "");
    // What Connection takes away is not there.
    let nominated = format!("Connection: idempotency-key|{own}");
    check(&nominated, &none, "", KEY);
    check("", &edits(&[("Idempotency-Key", "1")], &[]), "", "");
    check("", &edits(&[], &["idempotency-key"]), "", "");
    let upgrade = "GET / HTTP/1.1|Host: a|Connection: upgrade|Upgrade: websocket||";
    assert!(forwarded(upgrade, &none).contains("Upgrade: websocket"));
    assert!(!sent(upgrade, &none, key).contains("pgrade"));
}

fn hop(edits: &FieldEdits) -> ResponseHop<'_> {
    ResponseHop {
        via: "me",
        connection: ClientConnection::KeepAlive,
        client_minor: 1,
        unchunk: false,
        edits,
        backend: None,
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
    }
}

/// The field that a final response gets which has no Date.
const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT|";

/// The Date that is added is left out: it has a test of its own.
#[track_caller]
fn check_response(from: &str, hop: &ResponseHop<'_>, to: &str) {
    let written = answered(from, hop).replacen(DATE, "", 1);
    assert_eq!(written, to, "{from} {hop:?}");
}

#[track_caller]
fn answered(from: &str, hop: &ResponseHop<'_>) -> String {
    let head = from.replace('|', "\r\n");
    let mut space = FieldSpace::new();
    let response =
        Response::parse(head.as_bytes(), &LIMITS, &mut space, false, Some(b"a, b")).unwrap();
    let mut out = Vec::new();
    write_response(&mut out, &response, hop);
    String::from_utf8(out).unwrap().replace("\r\n", "|")
}

#[test]
fn a_final_response_without_a_date_gets_one() {
    let (none, ours) = (FieldEdits::default(), |name: &str| FieldEdits {
        set: Box::default(),
        remove: [name.into()].into(),
    });
    let removed = ours("date");
    for (from, edits, added) in [
        ("HTTP/1.1 200 OK|Content-Length: 0||", &none, true),
        ("HTTP/1.0 304 Not||", &none, true),
        ("HTTP/1.1 500 No|Dates: 1||", &none, true),
        ("HTTP/1.1 103 Hints||", &none, false),
        ("HTTP/1.1 200 OK|dAtE: yesterday||", &none, false),
        ("HTTP/1.1 200 OK||", &removed, false),
    ] {
        let answered = answered(from, &hop(edits));
        assert_eq!(answered.contains(DATE), added, "{answered}");
    }
}

#[test]
fn other_fields_keep_their_order_case_and_bytes() {
    check_request(
        "GET /p?q HTTP/1.1|A: 1|hOST: a|a:2  |Connection: keep-alive|B:\t3||",
        &format!("GET /p?q HTTP/1.1|A: 1|hOST: a|a:2  |B:\t3|{OWN}"),
    );
}

#[test]
fn hop_by_hop_fields_go_and_so_does_what_connection_names() {
    check_request(
        "GET / HTTP/1.1|Host: a|Connection: x, Y|Keep-Alive: 1|X: 1|y: 2|Z: 3|TE: trailers|\
         Upgrade: a|HTTP2-Settings: AA|Proxy-Connection: close|connection: z||",
        &format!("GET / HTTP/1.1|Host: a|{OWN}"),
    );
}

#[test]
fn an_offer_to_upgrade_goes_on_for_this_hop() {
    check_request(
        "GET /chat HTTP/1.1|Host: a|upgrade: a|Connection: keep-alive, Upgrade, X|X: 1|B: 2|\
         Upgrade: b, c/1||",
        &format!(
            "GET /chat HTTP/1.1|Host: a|B: 2|Connection: upgrade|Upgrade: a|Upgrade: b, c/1|{OWN}"
        ),
    );
}

#[test]
fn an_upgrade_that_may_not_be_passed_on_is_dropped() {
    for (line, fields, left) in [
        ("GET / HTTP/1.1", "Upgrade: a", ""),
        ("GET / HTTP/1.1", "Connection: Upgrade", ""),
        ("GET / HTTP/1.1", "Connection: upgrades|Upgrade: a", ""),
        (
            "GET / HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AA",
            "",
        ),
        (
            "GET / HTTP/1.1",
            "Connection: upgrade|Upgrade: a|Upgrade: h2c",
            "",
        ),
        (
            "POST / HTTP/1.1",
            "Connection: upgrade|Upgrade: a|Content-Length: 1",
            "Content-Length: 1|",
        ),
    ] {
        check_request(
            &format!("{line}|Host: a|{fields}||"),
            &format!("{line}|Host: a|{left}{OWN}"),
        );
    }
    check_request(
        "POST / HTTP/1.1|Host: a|Connection: upgrade|Upgrade: a|Transfer-Encoding: chunked||",
        &format!("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|{OWN}"),
    );
    check_request(
        "GET / HTTP/1.0|Host: a|Connection: upgrade|Upgrade: a||",
        &format!("GET / HTTP/1.1|Host: a|{}", OWN.replace("1.1 me", "1.0 me")),
    );
}

#[test]
fn credentials_for_a_proxy_pass() {
    check_request(
        "GET / HTTP/1.1|Host: a|Proxy-Authorization: Basic x||",
        &format!("GET / HTTP/1.1|Host: a|Proxy-Authorization: Basic x|{OWN}"),
    );
    check_response(
        "HTTP/1.1 407 Auth|Proxy-Authenticate: Basic|Content-Length: 0||",
        &hop(&FieldEdits::default()),
        "HTTP/1.1 407 Auth|Proxy-Authenticate: Basic|Content-Length: 0|Via: 1.1 me||",
    );
}

#[test]
fn who_asked_with_an_underscore_in_its_name_does_not_go_on() {
    check_request(
        "GET / HTTP/1.1|Host: a|X_Forwarded_For: b|X-A: 1|x-request_id: c|X_FORWARDED-HOST: d||",
        &format!("GET / HTTP/1.1|Host: a|X-A: 1|{OWN}"),
    );
}

#[test]
fn edits_take_an_underscore_for_a_hyphen() {
    let edits = FieldEdits {
        set: Box::new([("X-User".into(), "me".into())]),
        remove: Box::new(["X-Secret-Key".into()]),
    };
    for name in ["X_User", "x_user", "X_SECRET-key", "X-Secret-Key"] {
        assert!(edits.touch(name), "{name}");
    }
    for name in ["XUser", "X.User", "X_Users", "X-Secret"] {
        assert!(!edits.touch(name), "{name}");
    }
}

#[test]
fn a_client_cannot_strip_what_frames_routes_or_says_who_asked() {
    check_request(
        "GET / HTTP/1.1|Host: a|Forwarded: for=b|Date: c|Connection: forwarded, date||",
        &format!("GET / HTTP/1.1|Host: a|Forwarded: for=b|Date: c|{OWN}"),
    );
    check_request(
        "POST / HTTP/1.1|Host: a|Content-Length: 3|X-Request-Id: 7|Via: 1.0 b|X-Forwarded-For: c|\
         Connection: host, content-length, x-request-id, via, x-forwarded-for, x-forwarded-proto||",
        "POST / HTTP/1.1|Host: a|Content-Length: 3|X-Request-Id: 7|Via: 1.0 b|\
         X-Forwarded-For: c, 192.0.2.1|X-Forwarded-Proto: http|X-Forwarded-Host: a|Via: 1.1 me||",
    );
}

#[test]
fn forwarding_fields_are_appended_to_or_left_alone() {
    check_request(
        "GET / HTTP/1.1|Host: a|X-Forwarded-For: b|x-forwarded-for: c, d|X-Forwarded-For:|\
         X-Forwarded-Proto: https|X-Forwarded-Host: e|X-Request-Id: f||",
        "GET / HTTP/1.1|Host: a|X-Forwarded-Proto: https|X-Forwarded-Host: e|X-Request-Id: f|\
         X-Forwarded-For: b, c, d, 192.0.2.1|Via: 1.1 me||",
    );
}

#[test]
fn the_host_is_the_authority_that_was_asked_for() {
    check_request(
        "GET http://a/p HTTP/1.1|A: 1|Host: b||",
        &format!("GET /p HTTP/1.1|Host: a|A: 1|{OWN}"),
    );
    check_request(
        "GET http://a?q HTTP/1.1|Host: a||",
        &format!("GET /?q HTTP/1.1|Host: a|{OWN}"),
    );
    check_request(
        "GET / HTTP/1.0|Expect: 100-continue||",
        "GET / HTTP/1.1|Host: |X-Forwarded-For: 192.0.2.1|X-Forwarded-Proto: http|\
         X-Request-Id: 000000000000000000000000000000ff|Via: 1.0 me||",
    );
}

#[test]
fn a_chunked_body_stays_chunked_and_an_expectation_goes_on() {
    check_request(
        "|POST / HTTP/1.1|Host: a|transfer-encoding: CHUNKED|Expect: 100-continue||",
        &format!("POST / HTTP/1.1|Host: a|Expect: 100-continue|Transfer-Encoding: chunked|{OWN}"),
    );
}

#[test]
fn max_forwards_is_one_less_behind_this_hop() {
    let one_less = format!("OPTIONS * HTTP/1.1|Host: a|A: 1|Max-Forwards: 9|{OWN}");
    check_request(
        "OPTIONS * HTTP/1.1|Host: a|max-forwards: 10|Connection: max-forwards|A: 1||",
        &one_less,
    );
    check_request(
        "TRACE / HTTP/1.1|Host: a|Max-Forwards: 1||",
        &format!("TRACE / HTTP/1.1|Host: a|Max-Forwards: 0|{OWN}"),
    );
    check_request(
        "GET / HTTP/1.1|Host: a|Max-Forwards: 10||",
        &format!("GET / HTTP/1.1|Host: a|Max-Forwards: 10|{OWN}"),
    );
    let removed = forwarded(
        "OPTIONS * HTTP/1.1|Host: a|Max-Forwards: 10||",
        &edits(&[], &["max-forwards"]),
    );
    assert_eq!(removed, format!("OPTIONS * HTTP/1.1|Host: a|{OWN}"));
}

#[test]
fn edits_come_last_and_never_touch_the_framing() {
    let edits = edits(
        &[
            ("X-A", "1"),
            ("host", "b"),
            ("via", "v"),
            ("Content-Length", "9"),
        ],
        &[
            "X-FORWARDED-FOR",
            "x-forwarded-host",
            "X-Request-Id",
            "transfer-encoding",
        ],
    );
    assert_eq!(
        forwarded(
            "PUT / HTTP/1.1|Host: a|Content-Length: 3|x-a: 2|X-A: 3|Via: 1.1 w||",
            &edits
        ),
        "PUT / HTTP/1.1|Content-Length: 3|X-Forwarded-Proto: http|X-A: 1|host: b|via: v||"
    );
}

#[test]
fn a_response_says_what_becomes_of_the_connection() {
    let none = FieldEdits::default();
    let from = "HTTP/1.0 200 OK|Content-Length: 3|Connection: x|X: 1|Keep-Alive: 2|A: b||";
    for (connection, client_minor, line) in [
        (ClientConnection::KeepAlive, 1, ""),
        (ClientConnection::KeepAlive, 0, "Connection: keep-alive|"),
        (ClientConnection::Close, 1, "Connection: close|"),
        (ClientConnection::Close, 0, "Connection: close|"),
    ] {
        let hop = ResponseHop {
            connection,
            client_minor,
            ..hop(&none)
        };
        let to = format!("HTTP/1.1 200 OK|Content-Length: 3|A: b|Via: 1.0 me|{line}|");
        check_response(from, &hop, &to);
    }
}

#[test]
fn a_response_is_framed_for_its_client() {
    let none = FieldEdits::default();
    let chunked = "HTTP/1.1 200 |Transfer-Encoding: chunked|A: b||";
    check_response(
        chunked,
        &hop(&none),
        "HTTP/1.1 200 |A: b|Transfer-Encoding: chunked|Via: 1.1 me||",
    );
    let unchunked = ResponseHop {
        unchunk: true,
        ..hop(&none)
    };
    check_response(chunked, &unchunked, "HTTP/1.1 200 |A: b|Via: 1.1 me||");
    for (from, to) in [
        (
            "HTTP/1.1 204 No|Content-Length: 3||",
            "HTTP/1.1 204 No|Via: 1.1 me||",
        ),
        (
            "HTTP/1.1 304 Not|Content-Length: 3||",
            "HTTP/1.1 304 Not|Content-Length: 3|Via: 1.1 me||",
        ),
        (
            "HTTP/1.1 100 Go|Connection: close|Content-Length: 0||",
            "HTTP/1.1 100 Go|Via: 1.1 me||",
        ),
    ] {
        check_response(from, &hop(&none), to);
    }
}

#[test]
fn an_upgrade_is_passed_where_it_says_what_was_taken_or_is_demanded() {
    let edits = edits(&[("Server", "us")], &[]);
    let hop = hop(&edits);
    let tunnel = ResponseHop {
        connection: ClientConnection::Tunnel,
        backend: Some(("X-Backend", "127.0.0.1:1")),
        ..hop
    };
    check_response(
        "HTTP/1.1 101 Go|upgrade: B|Connection: Upgrade, X|X: 1|Sec-WebSocket-Accept: y|\
         Transfer-Encoding: chunked||",
        &tunnel,
        "HTTP/1.1 101 Go|Sec-WebSocket-Accept: y|Via: 1.1 me|Connection: upgrade|Upgrade: B|\
         Server: us|X-Backend: 127.0.0.1:1||",
    );
    check_response(
        "HTTP/1.1 101 Go|Upgrade: a|Upgrade: b|Content-Length: 3||",
        &tunnel,
        "HTTP/1.1 101 Go|Via: 1.1 me|Connection: upgrade|Upgrade: a|Upgrade: b|Server: us|\
         X-Backend: 127.0.0.1:1||",
    );
    let demand = "HTTP/1.1 426 No|Upgrade: x/1|Connection: upgrade|Content-Length: 0||";
    for (connection, client_minor, lines) in [
        (
            ClientConnection::KeepAlive,
            1,
            "Connection: upgrade|Upgrade: x/1|",
        ),
        (
            ClientConnection::Close,
            1,
            "Connection: upgrade, close|Upgrade: x/1|",
        ),
        (ClientConnection::KeepAlive, 0, "Connection: keep-alive|"),
    ] {
        let hop = ResponseHop {
            connection,
            client_minor,
            ..hop
        };
        let to = format!("HTTP/1.1 426 No|Content-Length: 0|Via: 1.1 me|{lines}Server: us||");
        check_response(demand, &hop, &to);
    }
    for status in ["200 OK", "400 No"] {
        check_response(
            &format!("HTTP/1.1 {status}|Upgrade: h2, a|Connection: Upgrade|Content-Length: 0||"),
            &hop,
            &format!("HTTP/1.1 {status}|Content-Length: 0|Via: 1.1 me|Server: us||"),
        );
    }
}

#[test]
fn the_endpoint_is_named_by_us_alone() {
    let edits = edits(&[("Server", "us")], &["x-powered-by"]);
    let hop = ResponseHop {
        backend: Some(("X-Backend", "127.0.0.1:1")),
        ..hop(&edits)
    };
    check_response(
        "HTTP/1.1 200 OK|x-backend: forged|Server: them|X-Powered-By: x|Content-Length: 0||",
        &hop,
        "HTTP/1.1 200 OK|Content-Length: 0|Via: 1.1 me|Server: us|X-Backend: 127.0.0.1:1||",
    );
}

/// Lines that a client may send, hop-by-hop and framing ones among them.
fn line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "A: b",
        "Connection: close",
        "Connection: a, keep-alive",
        "Connection: content-length, transfer-encoding, host",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "HTTP2-Settings: AA",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "X-Forwarded-For: 192.0.2.9",
        "Via: 1.0 other",
        "Expect: 100-continue",
    ])
}

proptest! {
    #[test]
    fn a_written_request_is_framed_alike_and_has_no_hop_by_hop_field(
        lines in prop::collection::vec(line(), 0..8),
        cut in 0..200_usize,
    ) {
        let head = format!("POST http://a/p HTTP/1.1\r\nHost: b\r\n{}\r\n", lines.join("\r\n"));
        let head = head.trim_end().to_owned() + "\r\n\r\n";
        let mut space = FieldSpace::new();
        let Ok(request) = Request::parse(head.as_bytes(), &LIMITS, &mut space) else {
            return Ok(());
        };
        let mut scan = HeadScan::request();
        let part = &head.as_bytes()[..cut.min(head.len() - 1)];
        prop_assert_eq!(scan.find_end(part, &LIMITS), Ok(None));
        prop_assert_eq!(scan.find_end(head.as_bytes(), &LIMITS), Ok(Some(head.len())));

        let edits = FieldEdits::default();
        let hop = RequestHop { client: "::1", via: "me", request_id: 0, edits: &edits, repeated: None };
        let mut out = Vec::new();
        write_request(&mut out, &request, &hop);
        let mut space = FieldSpace::new();
        let written = Request::parse(&out, &LIMITS, &mut space).unwrap();
        prop_assert_eq!(written.body, request.body);
        prop_assert_eq!(written.offer(), request.offer());
        prop_assert_eq!(written.host, b"a");
        prop_assert!(written.passed_through("me") && !request.passed_through("me"));
        for header in written.fields {
            let field = Field::of(header.name);
            let framed = matches!(field, Field::ContentLength | Field::TransferEncoding);
            let upgrades = matches!(field, Field::Connection | Field::Upgrade) && request.upgrade;
            prop_assert!(framed || upgrades || !field.is_framing(), "{}", header.name);
            prop_assert!(field != Field::Upgrade || header.value == b"websocket");
        }
    }
}
