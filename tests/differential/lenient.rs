//! Lenient readers of HTTP/1.1: what the parsers of this world are known to let pass, one choice of
//! leniency a field, so that two of them differ wherever there is something to differ on.
//!
//! Each choice is one that a reader in use has made, and that somebody has smuggled a request by.
//! Not among them is what would make ordinary messages differ: a reader that ignores the body of a
//! GET, or that counts in 32 bits.

use rand::{Rng, RngExt};

use crate::strict::{Kind, Message, Read};

/// What a reader makes of bytes that the RFC does not allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// What ends a line.
    ends: Ends,
    /// What is cut off around names and values.
    blanks: Blanks,
    /// What becomes of a line that begins with a blank.
    folded: Folded,
    /// `_` in a name is read as `-`, as everything does that passes fields in variables.
    underscores: bool,
    /// Names and values end at a NUL.
    nul_ends: bool,
    /// Of several lengths, lines or elements, the last one counts, else the first.
    last_length: bool,
    /// A length or a size may be hexadecimal where it says `0x`.
    prefixed: bool,
    /// `_` is skipped in numbers.
    skips: bool,
    /// A coding counts beside a length, else the length does.
    coding_wins: bool,
    /// Where `chunked` must stand to count.
    coding: Coding,
    /// What must stand behind the data of a chunk.
    terminator: Terminator,
    /// A line's end inside quotes is none in a chunk's extension.
    quotes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Crlf,
    LfToo,
    CrToo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blanks {
    SpaceAndTab,
    Controls,
    /// NEL and NBSP in Latin-1 too.
    Unicode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folded {
    Joined,
    Field,
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Anywhere,
    First,
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terminator {
    /// CRLF or LF, or nothing.
    Optional,
    /// Two bytes, whatever they are.
    TwoBytes,
}

impl Profile {
    /// The choices that stand for the readers that are best known to differ.
    pub(crate) const KNOWN: [Self; 6] = {
        const PLAIN: Profile = Profile {
            ends: Ends::Crlf,
            blanks: Blanks::SpaceAndTab,
            folded: Folded::Joined,
            underscores: false,
            nul_ends: false,
            last_length: false,
            prefixed: false,
            skips: false,
            coding_wins: true,
            coding: Coding::Last,
            terminator: Terminator::TwoBytes,
            quotes: false,
        };
        [
            PLAIN,
            Self {
                ends: Ends::LfToo,
                coding_wins: false,
                terminator: Terminator::Optional,
                ..PLAIN
            },
            Self {
                ends: Ends::CrToo,
                last_length: true,
                coding: Coding::Anywhere,
                ..PLAIN
            },
            Self {
                blanks: Blanks::Unicode,
                folded: Folded::Field,
                coding: Coding::Anywhere,
                ..PLAIN
            },
            Self {
                nul_ends: true,
                prefixed: true,
                skips: true,
                coding: Coding::First,
                ..PLAIN
            },
            Self {
                blanks: Blanks::Controls,
                underscores: true,
                last_length: true,
                folded: Folded::Dropped,
                quotes: true,
                ..PLAIN
            },
        ]
    };

    /// Any mixture of choices.
    pub(crate) fn drawn(generator: &mut impl Rng) -> Self {
        let mut draw = |choices: u32| generator.random_range(0..choices);
        Self {
            ends: [Ends::Crlf, Ends::LfToo, Ends::CrToo][draw(3) as usize],
            blanks: [Blanks::SpaceAndTab, Blanks::Controls, Blanks::Unicode][draw(3) as usize],
            folded: [Folded::Joined, Folded::Field, Folded::Dropped][draw(3) as usize],
            underscores: draw(2) == 0,
            nul_ends: draw(2) == 0,
            last_length: draw(2) == 0,
            prefixed: draw(2) == 0,
            skips: draw(2) == 0,
            coding_wins: draw(2) == 0,
            coding: [Coding::Anywhere, Coding::First, Coding::Last][draw(3) as usize],
            terminator: [Terminator::Optional, Terminator::TwoBytes][draw(2) as usize],
            quotes: draw(2) == 0,
        }
    }

    /// Reads what stands at the front of `bytes`.
    pub(crate) fn read(&self, kind: Kind, bytes: &[u8]) -> Read {
        let mut at = 0;
        let first = loop {
            match self.line(&bytes[at..]) {
                Some((line, length)) if line.trim_ascii().is_empty() => at += length,
                Some((line, length)) => {
                    at += length;
                    break line;
                }
                None => return Read::Partial(None),
            }
        };
        let Some(start) = words(first) else {
            return Read::Invalid("no start line", None);
        };
        let mut lines: Vec<Vec<u8>> = Vec::new();
        loop {
            let Some((line, length)) = self.line(&bytes[at..]) else {
                return Read::Partial(None);
            };
            at += length;
            match (line.first(), self.folded) {
                (None, _) => break,
                (Some(b' ' | b'\t'), Folded::Dropped) => {}
                (Some(b' ' | b'\t'), Folded::Joined) => match lines.last_mut() {
                    Some(last) => last.extend_from_slice(line),
                    None => lines.push(line.to_vec()),
                },
                _ => lines.push(line.to_vec()),
            }
        }
        let mut message = Message {
            start,
            fields: lines.iter().filter_map(|line| self.field(line)).collect(),
            body: Vec::new(),
            whole: false,
            until_close: false,
        };
        match self.body(kind, &mut message, &bytes[at..]) {
            Some(Ok(taken)) => {
                message.whole = true;
                Read::Whole(message, at + taken)
            }
            Some(Err(why)) => Read::Invalid(why, Some(message)),
            None => Read::Partial(Some(message)),
        }
    }

    /// The line at the front without its end, and its length with it.
    fn line<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], usize)> {
        let feed = |from: usize| {
            let found = bytes[from..].iter().position(|byte| *byte == b'\n');
            found.map(|found| from + found)
        };
        match self.ends {
            Ends::Crlf => {
                let mut end = feed(0)?;
                while !bytes[..end].ends_with(b"\r") {
                    end = feed(end + 1)?;
                }
                Some((&bytes[..end - 1], end + 1))
            }
            Ends::LfToo => {
                let end = feed(0)?;
                let line = &bytes[..end];
                Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
            }
            Ends::CrToo => {
                let end = bytes
                    .iter()
                    .position(|byte| matches!(byte, b'\r' | b'\n'))?;
                let both = bytes[end..].starts_with(b"\r\n");
                Some((&bytes[..end], end + 1 + usize::from(both)))
            }
        }
    }

    fn field(&self, line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let mut name = self.trimmed(&line[..colon]).to_ascii_lowercase();
        if self.underscores {
            for byte in name.iter_mut().filter(|byte| **byte == b'_') {
                *byte = b'-';
            }
        }
        Some((name, self.trimmed(&line[colon + 1..]).to_vec()))
    }

    fn trimmed<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = match bytes.iter().position(|byte| *byte == 0) {
            Some(end) if self.nul_ends => &bytes[..end],
            _ => bytes,
        };
        let blank = |byte: &u8| match self.blanks {
            Blanks::SpaceAndTab => matches!(byte, b' ' | b'\t'),
            Blanks::Controls => *byte <= b' ' || *byte == 0x7f,
            Blanks::Unicode => *byte <= b' ' || matches!(byte, 0x85 | 0xa0),
        };
        let begin = bytes
            .iter()
            .position(|byte| !blank(byte))
            .unwrap_or(bytes.len());
        let end = bytes
            .iter()
            .rposition(|byte| !blank(byte))
            .map_or(begin, |last| last + 1);
        &bytes[begin..end]
    }

    /// Reads the body: how many bytes it stood in, or why it can't be read; `None` where more are
    /// needed.
    fn body(
        &self,
        kind: Kind,
        message: &mut Message,
        bytes: &[u8],
    ) -> Option<Result<usize, &'static str>> {
        if let Kind::Response { to_head } = kind
            && (to_head || message.status() < 200 || matches!(message.status(), 204 | 304))
        {
            return Some(Ok(0));
        }
        let length = self.length(message);
        let chunked = self.is_chunked(message);
        let length = match (length, chunked) {
            (Some(_), true) if self.coding_wins => None,
            (length @ Some(_), _) => length,
            (None, true) => None,
            (None, false) if kind == Kind::Request => Some(0),
            (None, false) => {
                message.until_close = true;
                message.body = bytes.to_vec();
                return None;
            }
        };
        let Some(length) = length else {
            return self.chunks(bytes, &mut message.body);
        };
        message.body = bytes[..length.min(bytes.len())].to_vec();
        (length <= bytes.len()).then_some(Ok(length))
    }

    fn length(&self, message: &Message) -> Option<usize> {
        let mut elements = message.elements("content-length");
        let element = if self.last_length {
            elements.next_back()
        } else {
            elements.next()
        };
        element.map(|element| self.number(element, 10).unwrap_or(0))
    }

    fn is_chunked(&self, message: &Message) -> bool {
        let mut codings = message.elements("transfer-encoding");
        let is = |coding: &[u8]| self.trimmed(coding).eq_ignore_ascii_case(b"chunked");
        match self.coding {
            Coding::First => codings.next().is_some_and(is),
            Coding::Last => codings.next_back().is_some_and(is),
            Coding::Anywhere => codings.any(|coding| {
                let coding = coding.to_ascii_lowercase();
                coding.windows(7).any(|part| part == b"chunked")
            }),
        }
    }

    /// The number at the front of `text`, as strtol(3) and its like read it.
    fn number(&self, text: &[u8], radix: u32) -> Option<usize> {
        let mut text = self.trimmed(text);
        let mut radix = radix;
        text = text.strip_prefix(b"+").unwrap_or(text);
        if self.prefixed
            && let Some(rest) = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X"))
        {
            (text, radix) = (rest, 16);
        }
        let mut number: Option<usize> = None;
        for byte in text {
            match char::from(*byte).to_digit(radix) {
                Some(digit) => {
                    let tens = number.unwrap_or(0).saturating_mul(radix as usize);
                    number = Some(tens.saturating_add(digit as usize));
                }
                None if self.skips && *byte == b'_' => {}
                None => break,
            }
        }
        number
    }

    /// The line of a chunk's size, which lasts as long as its quotes where they count.
    fn chunk_line<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], usize)> {
        let (mut line, mut length) = self.line(bytes)?;
        let quotes = |line: &[u8]| line.iter().filter(|byte| **byte == b'"').count();
        while self.quotes && !quotes(line).is_multiple_of(2) {
            let (_, more) = self.line(&bytes[length..])?;
            length += more;
            line = &bytes[..length];
        }
        Some((line, length))
    }

    fn chunks(&self, bytes: &[u8], body: &mut Vec<u8>) -> Option<Result<usize, &'static str>> {
        let mut at = 0;
        loop {
            let (line, length) = self.chunk_line(&bytes[at..])?;
            at += length;
            let size = match self.number(line, 16) {
                Some(0) => break,
                Some(size) => size,
                None => return Some(Err("no chunk size")),
            };
            let data = &bytes[at..];
            body.extend_from_slice(&data[..size.min(data.len())]);
            at = at.checked_add(size).filter(|end| *end <= bytes.len())?;
            at += match (self.terminator, &bytes[at..]) {
                (_, []) => return None,
                (Terminator::TwoBytes, [_]) => return None,
                (Terminator::TwoBytes, _) | (_, [b'\r', b'\n', ..]) => 2,
                (Terminator::Optional, [b'\n', ..]) => 1,
                (Terminator::Optional, _) => 0,
            };
        }
        loop {
            let (line, length) = self.line(&bytes[at..])?;
            at += length;
            if line.is_empty() {
                return Some(Ok(at));
            }
        }
    }
}

/// The first word, the last one, and what stands between them.
fn words(line: &[u8]) -> Option<[Vec<u8>; 3]> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let (first, second) = (words.next()?, words.next()?);
    let rest = words.collect::<Vec<_>>().join(&b' ');
    Some([first.to_vec(), second.to_vec(), rest])
}
