//! Bytes as a script writes them: quoted terms with escapes, repeats, and names for what is known
//! only when it is played.

/// One or more terms, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(Vec<Term>);

/// `"..."`, or `"..."*N`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    pieces: Vec<Piece>,
    times: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Name(Name),
}

/// What `$NAME` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// The domain of the script's service.
    Host,
    /// A whole request for `/marker` at that domain.
    Marker,
    /// The address of the script's first backend.
    Endpoint,
    /// The address that the script's clients connect to.
    Listener,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Word(&'a str),
    Text(Text),
}

impl Text {
    /// The bytes, with `value` saying what names stand for.
    pub(crate) fn bytes(&self, value: impl Fn(Name) -> String) -> Vec<u8> {
        let mut bytes = Vec::new();
        for term in &self.0 {
            let mut once = Vec::new();
            for piece in &term.pieces {
                match piece {
                    Piece::Bytes(piece) => once.extend_from_slice(piece),
                    Piece::Name(name) => once.extend_from_slice(value(*name).as_bytes()),
                }
            }
            bytes.extend(once.repeat(term.times));
        }
        bytes
    }

    /// Puts `other` behind it.
    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// The words and texts of one line.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn tokens(line: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let token;
        (token, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (term, rest) = term(quoted)?;
                (Token::Text(Text(vec![term])), rest)
            }
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                (Token::Word(&rest[..end]), &rest[end..])
            }
        };
        tokens.push(token);
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// The term whose first quote was taken from the front of `text`, and what follows it.
fn term(text: &str) -> Result<(Term, &str), String> {
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text;
    loop {
        let mut characters = rest.chars();
        let character = characters.next().ok_or("a quote does not end")?;
        rest = characters.as_str();
        match character {
            '"' => break,
            '\\' => {
                let byte;
                (byte, rest) = escape(rest)?;
                bytes.push(byte);
            }
            '$' => {
                let name;
                (name, rest) = named(rest)?;
                pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                pieces.push(Piece::Name(name));
            }
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    pieces.push(Piece::Bytes(bytes));
    let mut times = 1;
    if let Some(repeat) = rest.strip_prefix('*') {
        let end = repeat.find(' ').unwrap_or(repeat.len());
        let number = &repeat[..end];
        times = number
            .parse()
            .map_err(|error| format!("repeat {number:?}: {error}"))?;
        rest = &repeat[end..];
    }
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(format!("{rest:?} follows a quote"));
    }
    Ok((Term { pieces, times }, rest))
}

/// The byte behind a backslash.
fn escape(text: &str) -> Result<(u8, &str), String> {
    let rest = |length: usize| text.get(length..).unwrap_or_default();
    let byte = match text.as_bytes() {
        [b'r', ..] => b'\r',
        [b'n', ..] => b'\n',
        [b't', ..] => b'\t',
        [same @ (b'"' | b'\\' | b'$'), ..] => *same,
        [b'x', ..] => {
            let digits = text.get(1..3).ok_or("\\x without two digits")?;
            let byte = u8::from_str_radix(digits, 16);
            let byte = byte.map_err(|error| format!("\\x{digits}: {error}"))?;
            return Ok((byte, rest(3)));
        }
        _ => return Err("an escape other than \\r \\n \\t \\\" \\\\ \\$ \\xNN".to_owned()),
    };
    Ok((byte, rest(1)))
}

/// The name behind a dollar.
fn named(text: &str) -> Result<(Name, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_uppercase());
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let name = match name {
        "HOST" => Name::Host,
        "MARKER" => Name::Marker,
        "ENDPOINT" => Name::Endpoint,
        "LISTENER" => Name::Listener,
        _ => return Err(format!("${name} is none of HOST MARKER ENDPOINT LISTENER")),
    };
    Ok((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_words_and_texts() {
        let line = "  c1 sends \"a\\r\\n\\x00\\xff\" \"bc\"*3 \"<$HOST>\"*2 x";
        let tokens = tokens(line).unwrap();
        assert_eq!(tokens[..2], [Token::Word("c1"), Token::Word("sends")]);
        assert_eq!(tokens[5..], [Token::Word("x")]);
        let texts = tokens[2..5].iter().map(|token| match token {
            Token::Text(text) => text.bytes(|_| "h".to_owned()),
            Token::Word(word) => panic!("{word}"),
        });
        let bytes: Vec<u8> = texts.flatten().collect();
        assert_eq!(bytes, b"a\r\n\0\xffbcbcbc<h><h>");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for (line, why) in [
            ("\"a", "a quote does not end"),
            ("\"a\"b", "\"b\" follows a quote"),
            (
                "\"\\q\"",
                "an escape other than \\r \\n \\t \\\" \\\\ \\$ \\xNN",
            ),
            ("\"\\x1\"", "\\x1\": invalid digit found in string"),
            ("\"$A\"", "$A is none of HOST MARKER ENDPOINT LISTENER"),
            ("\"a\"*b", "repeat \"b\": invalid digit found in string"),
        ] {
            assert_eq!(tokens(line).unwrap_err(), why, "{line}");
        }
    }
}
