//! Mutations of valid messages: a few bytes, lines or numbers are changed where parsers are known
//! to differ.

use rand::{Rng, RngExt};

/// What two parsers may take for something else.
const BYTES: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\r",
    b"\r\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xff",
    b" ",
    b"\t",
    b"  ",
    b":",
    b",",
    b";",
    b"\"",
    b"\\",
    b"_",
    b"-",
    b"+",
    b"/",
    b"?",
    b"#",
    b"*",
    b"@",
    b"=",
    b"0",
    b"1",
    b"9",
    b"a",
    b"F",
    b"x",
    b"0x",
    b"\r\n ",
    b"\r\n\t",
    b"%0d%0a",
    b"\xe2\x80\xa8",
    b"\xc4\x8d\xc4\x8a",
];

/// Fields that frame, in every spelling that somebody has smuggled a request by; `#` stands for a
/// number.
const FIELDS: &[&str] = &[
    "Content-Length: #",
    "Content-Length : #",
    "Content-Length\t: #",
    "Content-Length\u{b}: #",
    "Content-Length: #\u{b}",
    "Content-Length: #\0",
    "Content-Length:#",
    "Content-Length: +#",
    "Content-Length: -#",
    "Content-Length: 0x#",
    "Content-Length: 0#",
    "Content-Length: # ",
    "Content-Length: #, #",
    "Content-Length: #,",
    "Content-Length: #;",
    "Content-Length: #.0",
    "Content-Length: # #",
    "Content-Length: \"#\"",
    "Content-Length:",
    "Content-Length: 0",
    "Content-Length: 99999999999999999999",
    "Content-Length: 18446744073709551616",
    "Content-Length: 9223372036854775808",
    " Content-Length: #",
    "\tContent-Length: #",
    "Content_Length: #",
    "content-length: #",
    "CONTENT-LENGTH: #",
    "Content-Length\r\n : #",
    "Content-Length:\r\n #",
    "X: y\rContent-Length: #",
    "X: y\nContent-Length: #",
    "X: y\0Content-Length: #",
    "X-Content-Length: #",
    "Content-Lengths: #",
    "Content Length: #",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding\u{b}: chunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked\u{c}",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding:\tchunked\t",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding:",
    " Transfer-Encoding: chunked",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding\r\n : chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chun\u{212a}ed",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Content-Length",
    "Connection: Transfer-Encoding, Host",
    "Connection: close, X-Forwarded-For",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Host: b.test",
    "Host : b.test",
    " Host: b.test",
    "Host: a.test, b.test",
    "Trailer: Content-Length",
    "TE: trailers",
    "X-Forwarded-For: 192.0.2.1",
    "Max-Forwards: 0",
    ": empty",
    "\u{e9}: name",
    "no colon",
    "Folded: a\r\n b",
];

/// Sizes of chunks that readers read differently; `#` stands for a size.
const SIZES: &[&str] = &[
    "#\n",
    " #\r\n",
    "#  \r\n",
    "\t#\r\n",
    "+#\r\n",
    "-#\r\n",
    "0x#\r\n",
    "0#\r\n",
    "000000000000#\r\n",
    "0000000000000000#\r\n",
    "1000000000000000#\r\n",
    "f000000000000000#\r\n",
    "#_0\r\n",
    "#;\r\n",
    "#;a=b\r\n",
    "#;a\n",
    "#;a\r",
    "#;\n0\r\n\r\n",
    "#;a=\"b;c\"\r\n",
    "#;a=\"\r\n",
    "#;a=\"\\\"\r\n",
    "#;a=\"\\\"\"\r\n",
    "#;x\"a=\"\r\n",
    "#;\0\r\n",
    "#\r\r\n",
    "#\r",
    "#,\r\n",
    "#.0\r\n",
    "g\r\n",
    "\r\n",
    "#\u{b}\r\n",
    "#\u{85}\r\n",
    "-1\r\n",
    "0\r\n\r\n",
    "#:a\r\n",
];

const VERSIONS: &[&str] = &[
    "HTTP/1.0",
    "HTTP/1.1 ",
    " HTTP/1.1",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.10",
    "HTTP/01.1",
    "HTTP/1",
    "HTTP/1,1",
    "",
    "ICY",
];

/// How many mutations a message gets.
pub(crate) fn count(generator: &mut impl Rng) -> usize {
    match generator.random_range(0..100) {
        0..12 => 0,
        12..57 => 1,
        57..82 => 2,
        82..93 => 3,
        _ => 4,
    }
}

/// Changes something in `bytes`. `decoy` is put where it may be taken for a message.
pub(crate) fn mutate(generator: &mut impl Rng, bytes: &mut Vec<u8>, decoy: &[u8]) {
    match generator.random_range(0..16) {
        0..3 => {
            let at = place(generator, bytes);
            splice(bytes, at..at, one(generator, BYTES));
        }
        3..5 => {
            let at = place(generator, bytes);
            splice(bytes, at..at + 1, one(generator, BYTES));
        }
        5 => {
            let at = place(generator, bytes);
            let end = at + generator.random_range(1..4);
            splice(bytes, at..end, b"");
        }
        6..10 => add_field(generator, bytes),
        10 => change_line(generator, bytes),
        11 => change_case(generator, bytes),
        12 | 13 => change_size(generator, bytes),
        14 => change_number(generator, bytes),
        _ => match generator.random_range(0..3) {
            0 => {
                let at = place(generator, bytes);
                splice(bytes, at..at, decoy);
            }
            1 => change_version(generator, bytes),
            _ => change_line_end(generator, bytes),
        },
    }
}

/// Cuts `bytes` where the parts are written one by one; mostly nowhere, at times everywhere.
pub(crate) fn cuts(generator: &mut impl Rng, length: usize) -> Vec<usize> {
    let count = match generator.random_range(0..10) {
        0..4 => 0,
        4..9 => generator.random_range(1..4),
        _ => 30,
    };
    let mut cuts: Vec<usize> = (0..count)
        .map(|_| generator.random_range(0..=length))
        .collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

pub(crate) fn one<'a, T: ?Sized>(generator: &mut impl Rng, of: &[&'a T]) -> &'a T {
    of[generator.random_range(0..of.len())]
}

fn splice(bytes: &mut Vec<u8>, range: std::ops::Range<usize>, with: &[u8]) {
    let end = range.end.min(bytes.len());
    bytes.splice(range.start.min(end)..end, with.iter().copied());
}

/// Where something is likely to matter: at a delimiter, beside one, or anywhere.
fn place(generator: &mut impl Rng, bytes: &[u8]) -> usize {
    if bytes.is_empty() || generator.random_range(0..4) == 0 {
        return generator.random_range(0..=bytes.len());
    }
    let delimits = |byte: &u8| {
        matches!(
            byte,
            b'\r' | b'\n' | b' ' | b':' | b',' | b';' | b'/' | b'.'
        )
    };
    let places = bytes.iter().enumerate().filter(|(_, byte)| delimits(byte));
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    if places.is_empty() {
        return 0;
    }
    let at = places[generator.random_range(0..places.len())];
    (at + generator.random_range(0..3)).saturating_sub(1)
}

/// Where each line begins.
fn lines(bytes: &[u8]) -> Vec<usize> {
    let feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0)
        .chain(feeds.map(|(at, _)| at + 1))
        .collect()
}

/// A line that begins behind the first one and, mostly, in the head.
fn field_line(generator: &mut impl Rng, bytes: &[u8]) -> usize {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let within = match head {
        Some(end) if generator.random_range(0..8) != 0 => &bytes[..end + 2],
        _ => bytes,
    };
    let lines = lines(within);
    lines[generator
        .random_range(0..lines.len())
        .max(lines.len().min(2) - 1)]
}

/// A number that may be the length of something that is there.
fn number(generator: &mut impl Rng, bytes: &[u8]) -> usize {
    let lines = lines(bytes);
    let begin = lines[generator.random_range(0..lines.len())];
    match generator.random_range(0..3) {
        0 => bytes.len() - begin,
        1 => generator.random_range(0..10),
        _ => generator.random_range(0..=bytes.len()),
    }
}

fn add_field(generator: &mut impl Rng, bytes: &mut Vec<u8>) {
    let number = number(generator, bytes).to_string();
    let field = one(generator, FIELDS).replace('#', &number) + "\r\n";
    let at = field_line(generator, bytes);
    splice(bytes, at..at, field.as_bytes());
}

/// Repeats a line, or takes it away.
fn change_line(generator: &mut impl Rng, bytes: &mut Vec<u8>) {
    let begin = field_line(generator, bytes);
    let length = bytes[begin..].iter().position(|byte| *byte == b'\n');
    let end = length.map_or(bytes.len(), |length| begin + length + 1);
    if generator.random_range(0..2) == 0 {
        splice(bytes, begin..end, b"");
    } else {
        let line = bytes[begin..end].to_vec();
        splice(bytes, begin..begin, &line);
    }
}

fn change_case(generator: &mut impl Rng, bytes: &mut [u8]) {
    let begin = generator.random_range(0..=bytes.len());
    for byte in bytes[begin..].iter_mut().take(12) {
        if byte.is_ascii_alphabetic() {
            *byte ^= 0x20;
        }
    }
}

/// Writes the size of a chunk, or what stands where one could, in another way.
fn change_size(generator: &mut impl Rng, bytes: &mut Vec<u8>) {
    let of_size = |at: usize| {
        let digits = bytes[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let ends = matches!(bytes.get(at + digits), Some(b'\r' | b';'));
        (0 < digits && ends).then_some(at..at + digits)
    };
    let sizes: Vec<_> = lines(bytes).into_iter().filter_map(of_size).collect();
    if sizes.is_empty() {
        return add_field(generator, bytes);
    }
    let range = sizes[generator.random_range(0..sizes.len())].clone();
    let digits = String::from_utf8_lossy(&bytes[range.clone()]).into_owned();
    let length = bytes[range.start..].iter().position(|byte| *byte == b'\n');
    let end = length.map_or(bytes.len(), |length| range.start + length + 1);
    let size = one(generator, SIZES).replace('#', &digits);
    splice(bytes, range.start..end, size.as_bytes());
}

/// Counts a number up or down, or writes it longer.
fn change_number(generator: &mut impl Rng, bytes: &mut Vec<u8>) {
    let digits = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_digit());
    let digits: Vec<usize> = digits.map(|(at, _)| at).collect();
    if digits.is_empty() {
        return;
    }
    let at = digits[generator.random_range(0..digits.len())];
    let digit = b'0' + generator.random_range(0..10);
    let end = at + usize::from(generator.random_range(0..3) != 0);
    splice(bytes, at..end, &[digit]);
}

fn change_version(generator: &mut impl Rng, bytes: &mut Vec<u8>) {
    let version = bytes
        .windows(8)
        .position(|window| window.starts_with(b"HTTP/1."));
    if let Some(at) = version {
        splice(bytes, at..at + 8, one(generator, VERSIONS).as_bytes());
    }
}

fn change_line_end(generator: &mut impl Rng, bytes: &mut Vec<u8>) {
    let ends = bytes
        .windows(2)
        .enumerate()
        .filter(|(_, window)| window == b"\r\n");
    let ends: Vec<usize> = ends.map(|(at, _)| at).collect();
    if !ends.is_empty() {
        let at = ends[generator.random_range(0..ends.len())];
        let other: &[&[u8]] = &[
            b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\n", b"", b"\r\n ", b" \r\n",
        ];
        splice(bytes, at..at + 2, one(generator, other));
    }
}
