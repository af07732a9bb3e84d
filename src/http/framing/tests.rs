//! Where bodies end: framing by table, and bodies in any split.

use proptest::prelude::*;

use super::super::hop::FieldEdits;
use super::*;

const LIMITS: BodyLimits = BodyLimits {
    bytes_max: 64,
    trailer_bytes_max: 16,
};

/// What one body takes of bytes.
#[derive(Debug, PartialEq, Eq)]
struct Relayed {
    taken: usize,
    /// What goes on of it, its trailers included.
    sent: Vec<u8>,
    content: Vec<u8>,
    done: bool,
}

/// Everything that one body takes of `bytes`, shown to it in pieces that end at `cuts`.
fn relay(length: BodyLength, bytes: &[u8], cuts: &[usize]) -> Result<Relayed, FramingError> {
    let mut forwarded = Body::new(length, LIMITS)?;
    let mut unchunked = Body::new(length, LIMITS)?;
    let (mut taken, mut sent, mut content) = (0, Vec::new(), Vec::new());
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let mut piece = bytes[taken..cut.max(taken)].to_vec();
        let passed = forwarded.pass(&piece)?;
        let piece_before = piece.clone();
        let read = unchunked.unchunk(&mut piece)?;
        assert_eq!((read.taken, read.done), (passed.taken, passed.done));
        taken += passed.taken;
        sent.extend_from_slice(&piece_before[..passed.send]);
        content.extend_from_slice(&piece[..read.data]);
        if passed.done {
            break;
        }
    }
    if let Some(trailers) = forwarded.take_trailers() {
        assert!(forwarded.is_done() && forwarded.take_trailers().is_none());
        trailers.write(&mut sent, &FieldEdits::default(), None);
    }
    Ok(Relayed {
        taken,
        sent,
        content,
        done: forwarded.is_done(),
    })
}

/// The same for `bytes` whole and byte by byte.
#[track_caller]
fn relay_both_ways(length: BodyLength, bytes: &str) -> Result<Relayed, FramingError> {
    let bytewise: Vec<usize> = (0..bytes.len()).collect();
    let whole = relay(length, bytes.as_bytes(), &[]);
    assert_eq!(
        whole,
        relay(length, bytes.as_bytes(), &bytewise),
        "{bytes:?}"
    );
    whole
}

/// Relays `bytes` whole and byte by byte; `expected` is the bytes taken, the content, and the end.
#[track_caller]
fn check(length: BodyLength, bytes: &str, expected: Result<(usize, &str, bool), FramingError>) {
    let relayed = relay_both_ways(length, bytes);
    let relayed = relayed.map(|it| (it.taken, it.content, it.done));
    let expected = expected.map(|(taken, data, done)| (taken, data.as_bytes().to_vec(), done));
    assert_eq!(relayed, expected, "{bytes:?}");
}

#[test]
fn a_body_takes_its_own_bytes_and_no_more() {
    use BodyLength::{Chunked, Length, None, UntilClose};
    for (length, bytes, expected) in [
        (None, "GET", (0, "", true)),
        (Length(0), "GET", (0, "", true)),
        (Length(3), "abcGET", (3, "abc", true)),
        (Length(3), "ab", (2, "ab", false)),
        (UntilClose, "abc", (3, "abc", false)),
        (Chunked, "3\r\nabc\r\n0\r\n\r\nGET", (13, "abc", true)),
        (
            Chunked,
            "00003;a=\"b\"\r\nabc\r\nB\r\nabcdefghijk\r\n0\r\n\r\n",
            (39, "abcabcdefghijk", true),
        ),
        (Chunked, "0\r\nA: b\r\nC:\r\n\r\n", (15, "", true)),
        // RFC 9112 section 7.1.1: quotes hide what would be syntax, but for a line's end.
        (
            Chunked,
            "1;a=\";x=[]\" ; b = c\r\na\r\n0;z\r\n\r\nGET",
            (31, "a", true),
        ),
        (
            Chunked,
            "0000000000000001\r\na\r\n0\r\n\r\n",
            (26, "a", true),
        ),
        (
            Chunked,
            "a\r\n0\r\n\r\nGET /\r\n0\r\n\r\n",
            (20, "0\r\n\r\nGET /", true),
        ),
        (Chunked, "3\r\nabc\r\n0\r\n", (11, "abc", false)),
    ] {
        check(length, bytes, Ok(expected));
    }
}

#[test]
fn chunks_go_on_as_they_came_and_forbidden_trailers_do_not() {
    for (bytes, expected) in [
        (
            "3;a=b\r\nabc\r\n00\r\n\r\nGET",
            "3;a=b\r\nabc\r\n00\r\n\r\n",
        ),
        ("0;x\r\nA: b\r\n\r\nGET", "0;x\r\nA: b\r\n\r\n"),
        ("0\r\nhost: b\r\n\r\nGET", "0\r\n\r\n"),
        ("0\r\nA: b\r\nTE: c\r\n\r\n", "0\r\nA: b\r\n\r\n"),
        // As far as it came: of a section that is not whole nothing has gone on.
        ("0\r\nA: b\r\n\r", "0\r\n"),
        ("0\r\n\r", "0\r\n\r"),
    ] {
        let relayed = relay_both_ways(BodyLength::Chunked, bytes).unwrap();
        assert_eq!(relayed.sent, expected.as_bytes(), "{bytes:?}");
    }
    let counted = relay_both_ways(BodyLength::Length(3), "abcGET").unwrap();
    assert_eq!(counted.sent, b"abc");
}

#[test]
fn a_chunk_that_two_readers_could_see_differently_is_refused() {
    const NUMBER: &str = "a chunk size that is not a number";
    const LINE: &str = "a chunk line that does not end with CRLF";
    const END: &str = "a chunk that does not end with CRLF";
    const EXTENSION: &str = "a malformed chunk extension";
    const QUOTED: &str = "a malformed quoted chunk extension";
    for (bytes, why) in [
        ("\r\n", NUMBER),
        ("g\r\n", NUMBER),
        ("0x3\r\n", NUMBER),
        ("+3\r\n", NUMBER),
        (" 3\r\n", NUMBER),
        ("3 \r\n", NUMBER),
        ("3 ;a\r\n", NUMBER),
        ("3\nabc", NUMBER),
        ("3\rabc", LINE),
        ("3;a\nabc", EXTENSION),
        // TERM.EXT and EXT.TERM: a reader that ends the line at a bare LF, or passes over it; a
        // quoted value that goes on over the line's end (CVE-2025-55315, "Funky chunks").
        ("3;\nabc\r\n", EXTENSION),
        ("3;a=\0\r\n", EXTENSION),
        ("3;a\rb\r\n", LINE),
        ("3;a=\"b\r\nabc\r\n", QUOTED),
        ("3;a=\"b\\\"\r\nabc\r\n", QUOTED),
        ("3;a=\"b\\\r\nabc\r\n", QUOTED),
        // An odd number of quotes, by which a line goes on for a reader that counts them.
        ("1;a=\"\\\"\"\r\n", QUOTED),
        ("1;x\"a=\"\r\n", EXTENSION),
        ("1;x=y\"\r\n", EXTENSION),
        ("1;x=y \"\r\n", EXTENSION),
        ("1;x=\"y\"\"\r\n", EXTENSION),
        ("1;x=\"y\"z\r\n", EXTENSION),
        ("1;\"a\"\r\n", EXTENSION),
        ("1;=\"a\"\r\n", EXTENSION),
        ("1;;;==\"\"x\r\n", EXTENSION),
        ("1;a;\r\n", EXTENSION),
        ("1;a;;b\r\n", EXTENSION),
        ("1;a=\r\n", EXTENSION),
        ("1;a=;b\r\n", EXTENSION),
        ("1;a==b\r\n", EXTENSION),
        ("1;a b\r\n", EXTENSION),
        ("1;a=b c\r\n", EXTENSION),
        ("1;a=b=c\r\n", EXTENSION),
        ("1; \r\n", EXTENSION),
        ("1;\r\n", EXTENSION),
        ("3;a=\u{e9}\r\n", EXTENSION),
        ("3,a\r\n", NUMBER),
        ("-3\r\n", NUMBER),
        ("3_0\r\n", NUMBER),
        ("3.\r\n", NUMBER),
        ("\t3\r\n", NUMBER),
        ("3\t\r\n", NUMBER),
        ("3\u{b}\r\n", NUMBER),
        ("3\0\r\n", NUMBER),
        ("3h\r\n", NUMBER),
        (";a\r\n", NUMBER),
        ("3\r\r\nabc", LINE),
        ("3\r\nabc\r\r\n", END),
        ("3\r\nabc0\r\n\r\n", END),
        ("3\r\nabcd\r\n", END),
        ("3\r\nabc\n0\r\n\r\n", END),
        ("3\r\nabc\r0\r\n\r\n", END),
        (
            "00000000000000003\r\n",
            "a chunk size of more than 16 digits",
        ),
        ("0\r\n A: b\r\n\r\n", "a malformed trailer name"),
        ("0\r\nA : b\r\n\r\n", "a malformed trailer name"),
        ("0\r\nA: b\n\r\n", "a control character in a trailer"),
        ("0\r\nA: b\0\r\n\r\n", "a control character in a trailer"),
        (
            "0\r\nA: b\u{7f}\r\n\r\n",
            "a control character in a trailer",
        ),
        ("0\r\n: b\r\n\r\n", "a malformed trailer name"),
        ("0\r\nA\r\n\r\n", "a malformed trailer name"),
        ("0\r\nA: b\r\n c\r\n\r\n", "a malformed trailer name"),
        (
            "0\r\nA: b\r\r\n\r\n",
            "a trailer that does not end with CRLF",
        ),
        ("0\r\nGET / HTTP/1.1\r\n", "a malformed trailer name"),
        ("0\n\r\n", NUMBER),
        (
            "0\r\nA: b\rc\r\n\r\n",
            "a trailer that does not end with CRLF",
        ),
        ("0\r\n\rG", "trailers that do not end with CRLF"),
        ("0\r\n\n", "a malformed trailer name"),
    ] {
        check(
            BodyLength::Chunked,
            bytes,
            Err(FramingError::Invalid { why }),
        );
    }
}

#[test]
fn a_body_over_a_limit_is_refused_before_its_bytes() {
    check(BodyLength::Length(65), "", Err(FramingError::TooLarge));
    check(BodyLength::Chunked, "41\r\n", Err(FramingError::TooLarge));
    check(
        BodyLength::Chunked,
        "7fffffffffffffff\r\n",
        Err(FramingError::TooLarge),
    );
    let why = "a chunk size that no body has";
    for size in ["8000000000000000\r\n", "ffffffffffffffff\r\n"] {
        check(
            BodyLength::Chunked,
            size,
            Err(FramingError::Invalid { why }),
        );
    }
    check(
        BodyLength::UntilClose,
        &"a".repeat(65),
        Err(FramingError::TooLarge),
    );
    let trailers = "0\r\nAaaaaa: bbbbbbb\r\n\r\n";
    check(
        BodyLength::Chunked,
        trailers,
        Err(FramingError::TrailersTooLarge),
    );
    let extensions = format!("3;{}\r\n", "a".repeat(257));
    let why = "chunk extensions over 256 bytes";
    check(
        BodyLength::Chunked,
        &extensions,
        Err(FramingError::Invalid { why }),
    );
}

#[test]
fn extensions_of_a_body_may_be_as_many_as_its_content_and_16_kib_more() {
    let limits = BodyLimits {
        bytes_max: u64::MAX,
        ..LIMITS
    };
    let refused = Err(FramingError::Invalid {
        why: "more chunk extensions than content",
    });
    let chunk = |size: usize, extension: usize| {
        let extension = "e".repeat(extension);
        format!("{size:x};{extension}\r\n{}\r\n", "a".repeat(size))
    };
    // Each line is within its own bound.
    let mut body = Body::new(BodyLength::Chunked, limits).unwrap();
    let flood = chunk(1, 129).repeat(127);
    assert_eq!(body.pass(flood.as_bytes()).unwrap().taken, flood.len());
    let line = chunk(1, 129);
    assert_eq!(body.pass(line.as_bytes()), refused);
    let mut body = Body::new(BodyLength::Chunked, limits).unwrap();
    for _ in 0..1000 {
        let bytes = chunk(256, 256);
        assert_eq!(body.pass(bytes.as_bytes()).unwrap().taken, bytes.len());
    }
    assert!(body.pass(flood.as_bytes()).is_ok());
    assert_eq!(body.pass(flood.as_bytes()), refused);
}

#[test]
fn a_close_ends_only_the_body_that_it_may_end() {
    for (length, bytes, ends) in [
        (BodyLength::None, "", true),
        (BodyLength::UntilClose, "ab", true),
        (BodyLength::Length(3), "abc", true),
        (BodyLength::Length(3), "ab", false),
        (BodyLength::Chunked, "0\r\n\r", false),
    ] {
        let mut body = Body::new(length, LIMITS).unwrap();
        body.pass(bytes.as_bytes()).unwrap();
        assert_eq!(body.end().is_ok(), ends, "{length:?} {bytes:?}");
        assert_eq!(body.is_done(), ends, "{length:?} {bytes:?}");
    }
}

#[test]
fn the_remaining_bytes_are_known_of_a_length_alone() {
    let mut body = Body::new(BodyLength::Length(5), LIMITS).unwrap();
    body.pass(b"ab").unwrap();
    assert_eq!(body.remaining(), Some(3));
    let chunked = Body::new(BodyLength::Chunked, LIMITS).unwrap();
    assert_eq!(chunked.remaining(), None);
}

/// A chunked body and its content.
fn encoded() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4).prop_map(|chunks| {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend(format!("{:x};e=1\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nA: b\r\n\r\n");
        (bytes, chunks.concat())
    })
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_in_any_split(
        (bytes, content) in encoded(),
        rest in prop::collection::vec(any::<u8>(), 0..5),
        mut cuts in prop::collection::vec(0..80_usize, 0..6),
    ) {
        let whole = [&bytes[..], &rest].concat();
        cuts.retain(|cut| *cut <= whole.len());
        cuts.sort_unstable();
        let relayed = relay(BodyLength::Chunked, &whole, &cuts);
        let expected = (content.len() <= 64).then_some(Relayed {
            taken: bytes.len(),
            sent: bytes,
            content,
            done: true,
        });
        prop_assert_eq!(relayed, expected.ok_or(FramingError::TooLarge));
    }

    #[test]
    fn any_bytes_are_decoded_alike_in_any_split(
        bytes in "[0-9a;\r\nA: ]{0,40}",
        mut cuts in prop::collection::vec(0..40_usize, 0..6),
    ) {
        cuts.retain(|cut| *cut <= bytes.len());
        cuts.sort_unstable();
        let whole = relay(BodyLength::Chunked, bytes.as_bytes(), &[]);
        prop_assert_eq!(relay(BodyLength::Chunked, bytes.as_bytes(), &cuts), whole);
    }
}
