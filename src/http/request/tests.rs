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
        ("GET / HTTP/0.9", HeadError::Version),
        ("PRI * HTTP/2.0", HeadError::Version),
        ("CONNECT a:443 HTTP/1.1", HeadError::Unsupported),
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
        "a b", "a/b", "u@a", "a:b", "a,b", "[::1", "[]", "::1", "a:123456", "a:80:80", "\u{e9}",
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
fn a_malformed_field_is_refused() {
    for (field, why) in [
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
