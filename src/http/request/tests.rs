//! Request heads that are read and that are refused.

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes_max: 4096,
    fields_max: 5,
};

/// Parses the head whose lines these are and hands it to `look`.
#[track_caller]
fn check<T>(lines: &[&str], look: impl FnOnce(Result<Request<'_>, HeadError>) -> T) -> T {
    let head = lines.join("\r\n") + "\r\n\r\n";
    let mut space = FieldSpace::new();
    look(Request::parse(head.as_bytes(), &LIMITS, &mut space))
}

#[track_caller]
fn refused(lines: &[&str]) -> HeadError {
    check(lines, |request| match request {
        Ok(request) => panic!("{lines:?} is taken for {request:?}"),
        Err(error) => error,
    })
}

#[track_caller]
fn refused_for(lines: &[&str], expected: &str) {
    match refused(lines) {
        HeadError::Invalid { why } => assert_eq!(why, expected, "{lines:?}"),
        other => panic!("{lines:?}: {other:?} and not {expected:?}"),
    }
}

#[test]
fn a_target_comes_apart_into_host_path_and_query() {
    for (line, field, host, target, path, query) in [
        ("GET / HTTP/1.1", "a", "a", "/", "/", None),
        (
            "GET /p?q=1?2 HTTP/1.1",
            "a:80",
            "a:80",
            "/p?q=1?2",
            "/p",
            Some("q=1?2"),
        ),
        (
            "GET /p? HTTP/1.1",
            "[::1]:80",
            "[::1]:80",
            "/p?",
            "/p",
            Some(""),
        ),
        (
            "GET http://b/p?q HTTP/1.1",
            "a",
            "b",
            "/p?q",
            "/p",
            Some("q"),
        ),
        ("GET HTTP://b:1 HTTP/1.1", "a", "b:1", "/", "/", None),
        ("GET http://b?q HTTP/1.1", "a", "b", "?q", "/", Some("q")),
        ("OPTIONS * HTTP/1.1", "a", "a", "*", "*", None),
        ("OPTIONS http://b HTTP/1.1", "a", "b", "*", "*", None),
        ("GET //b/p HTTP/1.1", "", "", "//b/p", "//b/p", None),
    ] {
        let host_line = format!("Host: {field}");
        check(&[line, &host_line], |request| {
            let request = request.unwrap();
            assert_eq!(request.host, host.as_bytes(), "{line}");
            assert_eq!(request.target, target.as_bytes(), "{line}");
            assert_eq!(request.path, path.as_bytes(), "{line}");
            assert_eq!(request.query, query.map(str::as_bytes), "{line}");
            assert_eq!(request.host_rewritten, host != field, "{line}");
        });
    }
}

#[test]
fn a_malformed_request_line_is_refused() {
    for (line, why) in [
        ("GET  / HTTP/1.1", "a malformed request line"),
        ("GET /  HTTP/1.1", "a malformed version"),
        ("GET / x HTTP/1.1", "a malformed version"),
        ("GET /", "a malformed request line"),
        ("GET\t/ HTTP/1.1", "a malformed request line"),
        ("G(T / HTTP/1.1", "a malformed request line"),
        ("GET /\u{7f} HTTP/1.1", "a malformed request line"),
        ("GET / http/1.1", "a malformed version"),
        ("GET / HTTP/1.1 ", "a line that does not end where it must"),
        ("GET /\u{e9} HTTP/1.1", "a target with bytes outside ASCII"),
        ("GET /#f HTTP/1.1", "a target with a fragment"),
        ("GET /\0 HTTP/1.1", "a malformed request line"),
        ("GET /\u{1} HTTP/1.1", "a malformed request line"),
        ("GET /\u{b} HTTP/1.1", "a malformed request line"),
        ("GET /a b HTTP/1.1", "a malformed version"),
        ("GET /\tHTTP/1.1", "a malformed request line"),
        ("GET\u{b}/ HTTP/1.1", "a malformed request line"),
        ("GET / HTTP/1.01", "a line that does not end where it must"),
        ("GET / HTTP/01.1", "a malformed version"),
        ("GET / HTTP/1", "a malformed version"),
        ("GET / HTTP/1.x", "a malformed version"),
        ("GET / HTTP 1.1", "a malformed version"),
        (
            "GET / HTTP/1.1\u{b}",
            "a line that does not end where it must",
        ),
        ("GET / HTTPS/1.1", "a malformed version"),
        ("GET / Http/1.1", "a malformed version"),
        ("GET", "a malformed request line"),
        ("GET HTTP/1.1", "a malformed request line"),
        ("GET\u{e9} / HTTP/1.1", "a malformed request line"),
        ("GET: / HTTP/1.1", "a malformed request line"),
        (
            "POST * HTTP/1.1",
            "a target of * in a request other than OPTIONS",
        ),
        (
            "OPTIONS *? HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "OPTIONS ** HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET ?q HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET \\a HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET http:/a HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET http://a,b/ HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http://a\\b/ HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http://a:65536/ HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http://?q HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http:// HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http://u:p@a/ HTTP/1.1",
            "a malformed authority in the target",
        ),
        ("GET http://a#f HTTP/1.1", "a target with a fragment"),
        ("GET /?q#f HTTP/1.1", "a target with a fragment"),
        (
            "GET * HTTP/1.1",
            "a target of * in a request other than OPTIONS",
        ),
        (
            "GET p HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET a:80 HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET https://a/ HTTP/1.1",
            "a target that is neither a path nor a http URI",
        ),
        (
            "GET http:///p HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http://u@a/ HTTP/1.1",
            "a malformed authority in the target",
        ),
        (
            "GET http://:80/ HTTP/1.1",
            "a malformed authority in the target",
        ),
    ] {
        refused_for(&[line, "Host: a"], why);
    }
}

#[test]
fn a_version_of_another_major_and_connect_are_told_apart() {
    for (line, error) in [
        ("GET / HTTP/2.0", HeadError::Version),
        ("GET / HTTP/1.2", HeadError::Version),
        ("GET / HTTP/3.1", HeadError::Version),
        ("GET / HTTP/0.9", HeadError::Version),
        ("PRI * HTTP/2.0", HeadError::Version),
        ("CONNECT a:443 HTTP/1.1", HeadError::Unsupported),
        ("CONNECT / HTTP/1.1", HeadError::Unsupported),
        ("CONNECT a:443 HTTP/1.0", HeadError::Unsupported),
    ] {
        assert_eq!(refused(&[line, "Host: a"]), error, "{line}");
    }
}

#[test]
fn a_host_stands_there_once_and_is_well_formed() {
    refused_for(&["GET / HTTP/1.1"], "no Host");
    refused_for(&["GET / HTTP/1.1", "Host: a", "host: a"], "Host twice");
    refused_for(&["GET / HTTP/1.0", "Host: a", "host: a"], "Host twice");
    refused_for(&["GET http://a/ HTTP/1.1"], "no Host");
    for host in [
        "a b",
        "a/b",
        "u@a",
        "a:b",
        "a,b",
        "[::1",
        "[]",
        "::1",
        "a:123456",
        "a:80:80",
        "\u{e9}",
        "a?b",
        "a#b",
        "a\\b",
        "a\"",
        "<a>",
        "a\tb",
        "http://a",
        "a:65536",
        "a:99999",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:080080",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[v1.a]",
        "[1]",
        "[1.2.3.4]",
        "[:::1]",
        "[::1]]",
        "[::1]a",
        "a[::1]",
        "[a.b]",
        "[::1]:65536",
        "a|b",
        "a^b",
        "{a}",
    ] {
        refused_for(
            &["GET / HTTP/1.1", &format!("Host: {host}")],
            "a malformed Host",
        );
    }
    check(&["GET / HTTP/1.0"], |request| {
        let request = request.unwrap();
        assert_eq!((request.host, request.host_rewritten), (&b""[..], true));
    });
}

#[test]
fn a_host_may_be_what_rfc_3986_lets_it_be() {
    for host in [
        "",
        "a",
        "A.b-c_d~1",
        "a.",
        "a:",
        "a:0",
        "a:65535",
        "a:00080",
        "192.0.2.1",
        "[::1]",
        "[::1]:",
        "[2001:DB8::192.0.2.1]:8080",
        "xn--bcher-kva.example",
        "a%00b",
        "!$&'()*+;=",
    ] {
        check(&["GET / HTTP/1.1", &format!("Host: {host}")], |request| {
            assert_eq!(request.unwrap().host, host.as_bytes());
        });
    }
}

/// Paths are not normalised: an endpoint that is shown another path than the one that was routed by
/// could be reached past a route.
#[test]
fn a_target_is_passed_as_it_came() {
    for target in [
        "/%00",
        "/a%2f..%2fb",
        "/../a",
        "//a//b",
        "/a\\b",
        "/\"<>^`{|}",
        "/a;b,c=d@e:f",
        "/?a=b?c/d",
    ] {
        let line = format!("GET {target} HTTP/1.1");
        check(&[&line, "Host: a"], |request| {
            assert_eq!(request.unwrap().target, target.as_bytes());
        });
    }
}

#[test]
fn names_and_values_are_what_the_rfc_lets_them_be() {
    for (field, name, value) in [
        ("A:", "A", &b""[..]),
        ("A: \t ", "A", b""),
        ("a_b.c!#$%&'*+-^`|~1: x", "a_b.c!#$%&'*+-^`|~1", b"x"),
        ("A:\tb\tc \t", "A", b"b\tc"),
        ("A: \u{e9}", "A", "\u{e9}".as_bytes()),
        ("A: : b", "A", b": b"),
        ("A: \"b, c\"", "A", b"\"b, c\""),
    ] {
        check(&["GET / HTTP/1.1", "Host: a", field], |request| {
            let request = request.unwrap();
            let last = request.fields.last().unwrap();
            assert_eq!((last.name, last.value), (name, value), "{field:?}");
        });
    }
}

#[test]
fn a_malformed_field_is_refused() {
    for (field, why) in [
        ("A;: b", "a byte that no field name has"),
        ("A\u{e9}: b", "a byte that no field name has"),
        ("A\0: b", "a byte that no field name has"),
        ("\u{b}A: b", "a byte that no field name has"),
        ("A\u{b}: b", "a byte that no field name has"),
        ("(A): b", "a byte that no field name has"),
        ("\"A\": b", "a byte that no field name has"),
        ("A\r: b", "a byte that no field name has"),
        ("A: \u{1}", "a byte that no field value has"),
        ("A: b\u{b}", "a byte that no field value has"),
        ("A: b\u{c}c", "a byte that no field value has"),
        ("A: \u{1b}", "a byte that no field value has"),
        ("A:\r", "a byte that no field value has"),
        ("A: b\r\n\tc", "a byte that no field name has"),
        ("A: b\r\n\r c", "a line that does not end where it must"),
        ("A : b", "a byte that no field name has"),
        (" A: b", "a byte that no field name has"),
        ("A\tb: c", "a byte that no field name has"),
        ("A", "a byte that no field name has"),
        (": b", "a byte that no field name has"),
        ("A: b\r c", "a byte that no field value has"),
        ("A: b\r\n c", "a byte that no field name has"),
        ("A: \0", "a byte that no field value has"),
        ("A: b\u{7f}", "a byte that no field value has"),
        ("A: b\nC: d", "a line that ends without CR"),
    ] {
        refused_for(&["GET / HTTP/1.1", "Host: a", field], why);
    }
    assert_eq!(
        refused(&[
            "GET / HTTP/1.1",
            "Host: a",
            "A: b",
            "A: b",
            "A: b",
            "A: b",
            "A: b"
        ]),
        HeadError::TooManyFields
    );
}

#[test]
fn a_body_is_framed_by_one_field_or_the_request_is_refused() {
    for (fields, body) in [
        (&["Host: a"][..], BodyLength::None),
        (&["Host: a", "Content-Length: 0"], BodyLength::Length(0)),
        (
            &["Host: a", "content-length:  0042 "],
            BodyLength::Length(42),
        ),
        (
            &["Host: a", "Transfer-Encoding: Chunked"],
            BodyLength::Chunked,
        ),
        (
            &["Host: a", "tRANSFER-eNCODING:\tCHUNKED \t"],
            BodyLength::Chunked,
        ),
        (
            &["Host: a", "Content-Length: 9223372036854775807"],
            BodyLength::Length(9_223_372_036_854_775_807),
        ),
    ] {
        let lines = [&["POST / HTTP/1.1"], fields].concat();
        assert_eq!(
            check(&lines, |request| request.unwrap().body),
            body,
            "{fields:?}"
        );
    }
    const NUMBER: &str = "a Content-Length that is not a number";
    for (fields, why) in [
        (
            &["Content-Length: 3", "Transfer-Encoding: chunked"][..],
            "Content-Length beside Transfer-Encoding",
        ),
        (
            &["Content-Length: 3", "Content-Length: 3"],
            "Content-Length twice",
        ),
        (&["content_Length: 3"], "a framing field with _ in its name"),
        (
            &["Content-Length: 3", "Transfer_Encoding: chunked"],
            "a framing field with _ in its name",
        ),
        (&["Content-Length: 3, 3"], NUMBER),
        (&["Content-Length: +3"], NUMBER),
        (&["Content-Length: -3"], NUMBER),
        (&["Content-Length: 3 3"], NUMBER),
        (&["Content-Length: 0x3"], NUMBER),
        (&["Content-Length:"], NUMBER),
        (&["Content-Length: 1_0"], NUMBER),
        (&["Content-Length: 3,"], NUMBER),
        (&["Content-Length: ,3"], NUMBER),
        (&["Content-Length: 3;a"], NUMBER),
        (&["Content-Length: 3.0"], NUMBER),
        (&["Content-Length: 1e1"], NUMBER),
        (&["Content-Length: \"3\""], NUMBER),
        (&["Content-Length: \u{664}"], NUMBER),
        (&["Content-Length: abc"], NUMBER),
        (
            &["Content-Length: 0", "content-length: 3"],
            "Content-Length twice",
        ),
        (
            &["Content-Length: 99999999999999999999"],
            "a Content-Length that no body has",
        ),
        (
            &["Transfer-Encoding: chunked", "Content-Length: 0"],
            "Content-Length beside Transfer-Encoding",
        ),
        (
            &["Transfer-Encoding: chunked", "transfer-encoding: identity"],
            "Transfer-Encoding twice",
        ),
        (
            &["Transfer-Encoding: chunked,"],
            "chunked is not the last coding, or stands there twice",
        ),
        (
            &["Transfer-Encoding: chunked, identity"],
            "chunked is not the last coding, or stands there twice",
        ),
        (&["Transfer-Encoding: ,"], "an empty transfer coding"),
        (
            &["Transfer-Encoding:\u{b}chunked"],
            "a byte that no field value has",
        ),
        (
            &["Transfer-Encoding: chunked\u{c}"],
            "a byte that no field value has",
        ),
        (
            &["Transfer-Encoding: \0chunked"],
            "a byte that no field value has",
        ),
        (
            &["Transfer-Encoding : chunked"],
            "a byte that no field name has",
        ),
        (
            &["Transfer-Encoding:\r\n chunked"],
            "a byte that no field name has",
        ),
        (
            &["Transfer_Encoding\u{b}: chunked"],
            "a byte that no field name has",
        ),
        (
            &["Content-Length: 9223372036854775808"],
            "a Content-Length that no body has",
        ),
        (
            &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            "Transfer-Encoding twice",
        ),
        (
            &["Transfer-Encoding: chunked, gzip"],
            "chunked is not the last coding, or stands there twice",
        ),
        (
            &["Transfer-Encoding: chunked, chunked"],
            "chunked is not the last coding, or stands there twice",
        ),
        (&["Transfer-Encoding:"], "an empty transfer coding"),
    ] {
        refused_for(&[&["POST / HTTP/1.1", "Host: a"], fields].concat(), why);
    }
    refused_for(
        &["POST / HTTP/1.0", "Transfer-Encoding: chunked"],
        "Transfer-Encoding in HTTP/1.0",
    );
    for coding in [
        "gzip",
        "gzip, chunked",
        "xchunked",
        "chunked;q=1",
        "identity",
        ",chunked",
        "identity, chunked",
        "\"chunked\"",
        "'chunked'",
        "chunked chunked",
        "x chunked",
        "chunke",
        "chunked\u{e9}",
        "\u{a0}chunked",
        "chun\u{212a}ed",
    ] {
        let field = format!("Transfer-Encoding: {coding}");
        let error = refused(&["POST / HTTP/1.1", "Host: a", &field]);
        assert_eq!(error, HeadError::TransferCoding, "{coding}");
    }
}

#[test]
fn a_connection_persists_by_its_version_and_its_options() {
    for (version, option, persists) in [
        ("1.1", "", true),
        ("1.1", "Keep-Alive", true),
        ("1.1", "x, Close", false),
        ("1.1", "keep-alive, close", false),
        ("1.0", "", false),
        ("1.0", "keep-alive", true),
        ("1.0", "close, keep-alive", false),
    ] {
        let line = format!("GET / HTTP/{version}");
        let option = format!("Connection: {option}");
        let keeps = check(&[&line, "Host: a", &option], |request| {
            request.unwrap().keep_alive
        });
        assert_eq!(keeps, persists, "{version} {option}");
    }
}

#[test]
fn an_expectation_waits_only_where_a_body_follows() {
    for (version, length, waits) in [("1.1", 3, true), ("1.1", 0, false), ("1.0", 3, false)] {
        let line = format!("PUT / HTTP/{version}");
        let length = format!("Content-Length: {length}");
        let lines = [&line, "Host: a", "Expect: 100-Continue", &length];
        let facts = check(&lines, |request| request.unwrap().facts());
        assert_eq!(facts.expects_continue, waits, "{version} {length}");
        assert!(facts.idempotent && !facts.head_method);
    }
}

#[test]
fn any_other_expectation_is_refused() {
    for values in [
        &["y 100-continue"][..],
        &["100-continue,"],
        &["100-continue, 100-continue"],
        &["100-continue", "100-continue"],
        &["100-continue", "x"],
        &["x", "100-continue"],
        &["100-continue;a"],
        &["100-continue=1"],
        &["\"100-continue\""],
        &["100-continu"],
        &["200-ok"],
        &[""],
    ] {
        let fields: Vec<String> = values
            .iter()
            .map(|value| format!("Expect: {value}"))
            .collect();
        let mut lines = vec!["PUT / HTTP/1.1", "Host: a", "Content-Length: 3"];
        lines.extend(fields.iter().map(String::as_str));
        assert_eq!(refused(&lines), HeadError::Expectation, "{values:?}");
        // Of a HTTP/1.0 client it is ignored, whatever it is, and does not go on.
        lines[0] = "PUT / HTTP/1.0";
        check(&lines, |request| {
            assert!(!request.unwrap().expects_continue);
        });
    }
}

#[test]
fn a_parameter_is_found_by_its_whole_name() {
    for (query, value) in [
        ("s=a", Some("a")),
        ("x=1&s=a%20b&s=c", Some("a%20b")),
        ("ss=a", None),
        ("s", Some("")),
        ("xs=a&s=", Some("")),
        ("", None),
    ] {
        let line = format!("GET /?{query} HTTP/1.1");
        check(&[&line, "Host: a"], |request| {
            let found = request.unwrap().parameter(b"s");
            assert_eq!(found, value.map(str::as_bytes), "{query}");
        });
    }
}

#[test]
fn our_name_in_via_is_a_loop() {
    for (via, passed) in [
        ("1.1 me", true),
        ("1.0 a, HTTP/1.1  ME (comment)", true),
        ("1.1 me2, 1.1 not-me", false),
        ("me", false),
    ] {
        let field = format!("Via: {via}");
        let found = check(&["GET / HTTP/1.1", "Host: a", &field], |request| {
            request.unwrap().passed_through("me")
        });
        assert_eq!(found, passed, "{via}");
    }
}

#[test]
fn max_forwards_is_read_of_options_and_trace_alone() {
    for (line, value, hops) in [
        ("OPTIONS * HTTP/1.1", "0", Some(0)),
        ("OPTIONS / HTTP/1.1", "10", Some(10)),
        ("TRACE / HTTP/1.1", "007", Some(7)),
        ("TRACE / HTTP/1.0", "4294967295", Some(u32::MAX)),
        ("GET / HTTP/1.1", "0", None),
        ("GET / HTTP/1.1", "many", None),
        ("options / HTTP/1.1", "0", None),
    ] {
        let field = format!("max-forwards: {value}");
        check(&[line, "Host: a", &field], |request| {
            assert_eq!(request.unwrap().max_forwards, hops, "{line} {value}");
        });
    }
    check(&["OPTIONS * HTTP/1.1", "Host: a"], |request| {
        assert_eq!(request.unwrap().max_forwards, None);
    });
    for values in [
        &[""][..],
        &["+1"],
        &["-1"],
        &["1 0"],
        &["0x1"],
        &["1, 1"],
        &["1", "1"],
        &["4294967296"],
        &["99999999999999999999999"],
    ] {
        let fields: Vec<String> = values
            .iter()
            .map(|value| format!("Max-Forwards: {value}"))
            .collect();
        let mut lines = vec!["TRACE / HTTP/1.1", "Host: a"];
        lines.extend(fields.iter().map(String::as_str));
        refused_for(&lines, "a malformed Max-Forwards");
    }
}
