//! Response heads that are read and that are refused.

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes_max: 4096,
    fields_max: 5,
};

/// Parses the head whose lines these are and hands it to `look`.
#[track_caller]
fn check<T>(
    lines: &[&str],
    to_head: bool,
    look: impl FnOnce(Result<Response<'_>, HeadError>) -> T,
) -> T {
    let head = lines.join("\r\n") + "\r\n\r\n";
    let mut space = FieldSpace::new();
    look(Response::parse(
        head.as_bytes(),
        &LIMITS,
        &mut space,
        to_head,
        None,
    ))
}

#[test]
fn a_body_is_framed_by_status_request_and_fields() {
    use BodyLength::{Chunked, Length, None, UntilClose};
    for (line, field, to_head, body, keep_alive) in [
        (
            "HTTP/1.1 200 OK",
            "Content-Length: 3",
            false,
            Length(3),
            true,
        ),
        (
            "HTTP/1.1 200 OK",
            "Transfer-Encoding: chunked",
            false,
            Chunked,
            true,
        ),
        ("HTTP/1.1 200 OK", "A: b", false, UntilClose, false),
        (
            "HTTP/1.0 200 OK",
            "Content-Length: 3",
            false,
            Length(3),
            false,
        ),
        ("HTTP/1.1 200 OK", "Content-Length: 3", true, None, true),
        ("HTTP/1.1 200 OK", "A: b", true, None, true),
        (
            "HTTP/1.1 304 Not Modified",
            "Content-Length: 3",
            false,
            None,
            true,
        ),
        ("HTTP/1.1 204 No Content", "A: b", false, None, true),
        (
            "HTTP/1.1 204 No Content",
            "Content-Length: 3",
            false,
            None,
            false,
        ),
        (
            "HTTP/1.1 204 No Content",
            "Transfer-Encoding: chunked",
            false,
            None,
            false,
        ),
        ("HTTP/1.1 100 Continue", "A: b", false, None, true),
        ("HTTP/1.1 103 Early", "Content-Length: 3", false, None, true),
        (
            "HTTP/1.1 199 Odd",
            "Transfer-Encoding: chunked",
            false,
            None,
            true,
        ),
        (
            "HTTP/1.1 304 Not",
            "Transfer-Encoding: chunked",
            false,
            None,
            true,
        ),
        (
            "HTTP/1.1 200 OK",
            "Transfer-Encoding: chunked",
            true,
            None,
            true,
        ),
        ("HTTP/1.1 204 No", "Content-Length: 0", false, None, true),
        (
            "HTTP/1.1 205 Reset",
            "Content-Length: 3",
            false,
            Length(3),
            true,
        ),
        ("HTTP/1.1 205 Reset", "A: b", false, UntilClose, false),
        (
            "HTTP/1.1 999 Odd",
            "Content-Length: 3",
            false,
            Length(3),
            true,
        ),
        ("HTTP/1.1 200 OK", "Expect: x", true, None, true),
        (
            "HTTP/1.1 205 Reset",
            "Content-Length: 0",
            false,
            Length(0),
            true,
        ),
    ] {
        check(&[line, field], to_head, |response| {
            let response = response.unwrap();
            assert_eq!(response.body, body, "{line} {field}");
            assert_eq!(response.keep_alive, keep_alive, "{line} {field}");
            assert_eq!(response.interim, response.status < 200, "{line}");
        });
    }
}

#[test]
fn a_reason_is_passed_as_it_came() {
    for (line, reason) in [
        ("HTTP/1.1 200 OK", "OK"),
        ("HTTP/1.1 200 ", ""),
        ("HTTP/1.1 200", ""),
        ("HTTP/1.1 404 Pas trouv\u{e9}", "Pas trouv\u{e9}"),
    ] {
        check(&[line], false, |response| {
            assert_eq!(response.unwrap().reason, reason.as_bytes(), "{line}");
        });
    }
}

#[test]
fn a_101_is_taken_where_it_names_what_was_offered() {
    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols";
    let length = "Content-Length: 3";
    for (lines, offered, taken) in [
        (&[SWITCHING, "Upgrade: a"][..], Some("a, b"), true),
        (&[SWITCHING, "upgrade: B, A"], Some("a, b"), true),
        (&[SWITCHING, "Upgrade: a", length], Some("a"), true),
        (&[SWITCHING, "Upgrade: c"], Some("a, b"), false),
        (
            &[SWITCHING, "Upgrade: a", "Upgrade: c"],
            Some("a, b"),
            false,
        ),
        (&[SWITCHING, "Connection: upgrade"], Some("a"), false),
        (&[SWITCHING, "Upgrade: a"], None, false),
        (&["HTTP/1.0 101 Switching", "Upgrade: a"], Some("a"), false),
    ] {
        let head = lines.join("\r\n") + "\r\n\r\n";
        let mut space = FieldSpace::new();
        let offered = offered.map(str::as_bytes);
        let response = Response::parse(head.as_bytes(), &LIMITS, &mut space, false, offered);
        assert_eq!(response.is_ok(), taken, "{lines:?}");
        if let Ok(response) = response {
            assert_eq!((response.body, response.interim), (BodyLength::None, false));
        }
    }
}

#[test]
fn what_frames_ambiguously_or_answers_nothing_is_refused() {
    const STATUS: &str = "a malformed status line";
    const ANSWER: &str = "a status that answers no request of ours";
    const NUMBER: &str = "a Content-Length that is not a number";
    const NAME: &str = "a byte that no field name has";
    const LINE: &str = "a line that ends without CR";
    for (lines, why) in [
        (&["HTTP/1.1 101 Switching Protocols"][..], ANSWER),
        (&["HTTP/1.1 099 Low"], ANSWER),
        (&["HTTP/1.1  200 OK"], STATUS),
        (&["HTTP/1.1 20 OK"], STATUS),
        (&["HTTP/1.1 2000"], STATUS),
        (&["HTTP/1.1 200 O\u{1}K"], STATUS),
        (&["HTTP/1.1 200 O\0K"], STATUS),
        (&["HTTP/1.1 200OK"], STATUS),
        (&["HTTP/1.1 -20 OK"], STATUS),
        (&["HTTP/1.1 0x2 OK"], STATUS),
        (&["HTTP/1.1 200 OK", "Content-Length: 3, 3"], NUMBER),
        (&["HTTP/1.1 200 OK", "Content-Length: +3"], NUMBER),
        (&["HTTP/1.1 200 OK", "Content-Length: 3 ", " 4"], NAME),
        (&["HTTP/1.1 200 OK", "Content-Length:"], NUMBER),
        (
            &["HTTP/1.1 200 OK", "Content-Length: 18446744073709551616"],
            "a Content-Length that no body has",
        ),
        (
            &["HTTP/1.1 200 OK", "Content-Length: 3", "Content-Length: 3"],
            "Content-Length twice",
        ),
        (
            &["HTTP/1.1 200 OK", "Transfer-Encoding: chunked, chunked"],
            "chunked is not the last coding, or stands there twice",
        ),
        (
            &[
                "HTTP/1.1 200 OK",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: chunked",
            ],
            "Transfer-Encoding twice",
        ),
        (&["HTTP/1.1 200 OK", "A : b"], NAME),
        (&["HTTP/1.1 200 OK", " A: b"], NAME),
        (&["HTTP/1.1 200 OK", "A"], NAME),
        (&["HTTP/1.1 200 OK", "A: b\nC: d"], LINE),
        // What frames ambiguously is refused also where no body can follow.
        (
            &[
                "HTTP/1.1 204 No",
                "Content-Length: 3",
                "Transfer-Encoding: chunked",
            ],
            "Content-Length beside Transfer-Encoding",
        ),
        (&["HTTP/1.1 304 Not", "Content-Length: x"], NUMBER),
        (&["HTTP/1.1 100 Go", "Content-Length: 1, 1"], NUMBER),
        (
            &[
                "HTTP/1.1 200 OK",
                "Content-Length: 3",
                "Transfer-Encoding: chunked",
            ],
            "Content-Length beside Transfer-Encoding",
        ),
        (
            &["HTTP/1.1 200 OK", "Content-Length: 3", "Content-Length: 4"],
            "Content-Length twice",
        ),
        (
            &["HTTP/1.0 200 OK", "Transfer-Encoding: chunked"],
            "Transfer-Encoding in HTTP/1.0",
        ),
    ] {
        let error = check(lines, false, |response| response.err());
        assert_eq!(error, Some(invalid(why)), "{lines:?}");
    }
    for (lines, error) in [
        (&["HTTP/2.0 200 OK"][..], HeadError::Version),
        (&["HTTP/1.2 200 OK"], HeadError::Version),
        (
            &["HTTP/1.1 200 OK", "Transfer-Encoding: identity"],
            HeadError::TransferCoding,
        ),
        (
            &["HTTP/1.1 200 OK", "Transfer-Encoding: xchunked"],
            HeadError::TransferCoding,
        ),
        (
            &["HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"],
            HeadError::TransferCoding,
        ),
    ] {
        assert_eq!(
            check(lines, false, |response| response.err()),
            Some(error),
            "{lines:?}"
        );
    }
}
