//! One log record becomes one line: text, JSON, or JSON in the Elastic Common Schema. Pure: the
//! stamp is an argument.
//!
//! Whatever a value holds, it can neither end its line nor begin another key: a client chooses
//! hosts and paths, and a forged line is an old way to hide (CWE-117). Controls and the characters
//! that reorder a terminal's text are escaped everywhere, so that a log read with `cat` is safe
//! too.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::Timestamp;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use crate::config::LogFormat;

/// A message or value is cut here, so that a ring of lines has a bounded size.
const VALUE_BYTES_MAX: usize = 4096;

/// The version of the Elastic Common Schema whose field names we write.
const ECS_VERSION: &str = "8.17.0";

/// Appends `record` to `out` as one line that ends in `\n`:
///
/// - text: `2026-11-21T12:00:00.123Z INFO  listening listener=web address=127.0.0.1:8080`
/// - JSON: an object of `time`, `level`, `target`, `message`, and each key beside them
/// - ECS: an object in the Elastic Common Schema, each key under `ringmain`
pub fn write_record(out: &mut Vec<u8>, format: LogFormat, stamp: Timestamp, record: &Record<'_>) {
    match format {
        LogFormat::Text => write_text(out, stamp, record),
        LogFormat::Json => write_json(out, stamp, record),
        LogFormat::Ecs => write_ecs(out, stamp, record),
    }
    out.push(b'\n');
}

/// Appends `text` to `out` as a JSON string (RFC 8259 section 7), with its quotes.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            unsafe_one if is_unsafe(unsafe_one) => {
                append(out, format_args!("\\u{:04x}", u32::from(unsafe_one)));
            }
            plain => push_char(out, plain),
        }
    }
    out.push(b'"');
}

fn write_text(out: &mut Vec<u8>, stamp: Timestamp, record: &Record<'_>) {
    append(out, format_args!("{stamp:.3} {:<5} ", record.level()));
    let message = Bounded::of(record.args());
    write_escaped(out, &message);
    visit(record, &mut TextPairs { out });
}

fn write_json(out: &mut Vec<u8>, stamp: Timestamp, record: &Record<'_>) {
    append(
        out,
        format_args!(
            "{{\"time\":\"{stamp:.3}\",\"level\":\"{}\"",
            name(record.level())
        ),
    );
    out.extend_from_slice(b",\"target\":");
    write_json_string(out, record.target());
    out.extend_from_slice(b",\"message\":");
    write_json_string(out, &Bounded::of(record.args()));
    visit(record, &mut JsonPairs { out, first: false });
    out.push(b'}');
}

fn write_ecs(out: &mut Vec<u8>, stamp: Timestamp, record: &Record<'_>) {
    let level = name(record.level());
    append(
        out,
        format_args!("{{\"@timestamp\":\"{stamp:.3}\",\"log.level\":\"{level}\""),
    );
    out.extend_from_slice(b",\"message\":");
    write_json_string(out, &Bounded::of(record.args()));
    append(
        out,
        format_args!(",\"ecs.version\":\"{ECS_VERSION}\",\"log.logger\":"),
    );
    write_json_string(out, record.target());
    // Fields that the schema does not know stand under a name of their own, as it asks.
    if record.key_values().count() != 0 {
        out.extend_from_slice(b",\"ringmain\":{");
        visit(record, &mut JsonPairs { out, first: true });
        out.push(b'}');
    }
    out.push(b'}');
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn visit<'kvs>(record: &'kvs Record<'kvs>, visitor: &mut dyn VisitSource<'kvs>) {
    // Our visitors never fail; a value's own Display may, and then the pairs before it stand.
    let _ = record.key_values().visit(visitor);
}

/// Writes ` key=value` for each pair.
struct TextPairs<'a> {
    out: &'a mut Vec<u8>,
}

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.out.push(b' ');
        write_escaped(self.out, key.as_str());
        self.out.push(b'=');
        let value = Bounded::of(&value);
        if value.is_empty() || value.chars().any(needs_quotes) {
            self.out.push(b'"');
            write_escaped_quoted(self.out, &value);
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(value.as_bytes());
        }
        Ok(())
    }
}

/// Writes `"key":value` for each pair, with a comma before all but the first.
struct JsonPairs<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        write_json_string(self.out, key.as_str());
        self.out.push(b':');
        value.visit(JsonValue { out: self.out })
    }
}

/// Writes numbers and booleans as they are and everything else as a string.
struct JsonValue<'a> {
    out: &'a mut Vec<u8>,
}

impl VisitValue<'_> for JsonValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        write_json_string(self.out, &Bounded::of(&value));
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        append(self.out, format_args!("{value}"));
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        append(self.out, format_args!("{value}"));
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        // JSON knows neither NaN nor the infinities (RFC 8259 section 6).
        if value.is_finite() {
            append(self.out, format_args!("{value}"));
            return Ok(());
        }
        self.visit_null()
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        append(self.out, format_args!("{value}"));
        Ok(())
    }
}

/// Text that stopped growing at [`VALUE_BYTES_MAX`].
struct Bounded {
    text: String,
}

impl Bounded {
    fn of(value: &impl fmt::Display) -> String {
        let mut bounded = Self {
            text: String::new(),
        };
        // The error says that the text was cut, and the text says so itself.
        let _ = write!(bounded, "{value}");
        bounded.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = VALUE_BYTES_MAX - self.text.len().min(VALUE_BYTES_MAX);
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..part.floor_char_boundary(room)]);
        self.text.push_str("...");
        Err(fmt::Error)
    }
}

fn needs_quotes(character: char) -> bool {
    matches!(character, ' ' | '=' | '"' | '\\') || is_unsafe(character)
}

/// Controls, line separators, and the marks that change the direction of text (Unicode TR 36).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Outside of quotes: a backslash stays, since messages are our own words.
fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match is_unsafe(character) {
            true => append(out, format_args!("{}", character.escape_default())),
            false => push_char(out, character),
        }
    }
}

fn write_escaped_quoted(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            unsafe_one if is_unsafe(unsafe_one) => {
                append(out, format_args!("{}", unsafe_one.escape_default()));
            }
            plain => push_char(out, plain),
        }
    }
}

fn push_char(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn append(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use log::kv::Source;

    use super::*;

    #[track_caller]
    fn check(format: LogFormat, message: &str, pairs: &[(&str, Value<'_>)], expected: &str) {
        let stamp = "2026-11-21T12:00:00.1239Z".parse().expect("a stamp");
        let mut line = Vec::new();
        let pairs: &dyn Source = &pairs;
        write_record(
            &mut line,
            format,
            stamp,
            &Record::builder()
                .level(Level::Info)
                .target("ringmain::boot")
                .args(format_args!("{message}"))
                .key_values(&pairs)
                .build(),
        );
        assert_eq!(String::from_utf8(line).expect("lines are UTF-8"), expected);
    }

    #[test]
    fn a_text_line_is_stamp_level_message_and_pairs() {
        check(
            LogFormat::Text,
            "listening",
            &[
                ("listener", "web".into()),
                ("address", "127.0.0.1:8080".into()),
            ],
            "2026-11-21T12:00:00.123Z INFO  listening listener=web address=127.0.0.1:8080\n",
        );
    }

    #[test]
    fn a_text_value_is_quoted_exactly_when_it_needs_to_be() {
        for (value, expected) in [
            ("web", "v=web"),
            ("/a?b&c", "v=/a?b&c"),
            ("", r#"v="""#),
            ("a b", r#"v="a b""#),
            ("a=b", r#"v="a=b""#),
            (r#"say "hi""#, r#"v="say \"hi\"""#),
            (r"a\b", r#"v="a\\b""#),
            ("é", "v=é"),
        ] {
            let line = format!("2026-11-21T12:00:00.123Z INFO  m {expected}\n");
            check(LogFormat::Text, "m", &[("v", value.into())], &line);
        }
    }

    #[test]
    fn a_clients_bytes_can_not_forge_a_line() {
        check(
            LogFormat::Text,
            "bad\nhost",
            &[(
                "host",
                "x\n2026-11-21T12:00:00.123Z ERROR forged\u{1b}[2J\u{202e}".into(),
            )],
            "2026-11-21T12:00:00.123Z INFO  bad\\nhost \
             host=\"x\\n2026-11-21T12:00:00.123Z ERROR forged\\u{1b}[2J\\u{202e}\"\n",
        );
        check(
            LogFormat::Json,
            "bad",
            &[("host", "x\"}\n{\u{7f}\u{2028}".into())],
            "{\"time\":\"2026-11-21T12:00:00.123Z\",\"level\":\"info\",\
             \"target\":\"ringmain::boot\",\
             \"message\":\"bad\",\"host\":\"x\\\"}\\n{\\u007f\\u2028\"}\n",
        );
    }

    #[test]
    fn json_keeps_numbers_and_booleans() {
        check(
            LogFormat::Json,
            "m",
            &[
                ("a", 1u64.into()),
                ("b", (-1i64).into()),
                ("c", 0.5.into()),
                ("d", f64::NAN.into()),
                ("e", true.into()),
            ],
            "{\"time\":\"2026-11-21T12:00:00.123Z\",\"level\":\"info\",\
             \"target\":\"ringmain::boot\",\
             \"message\":\"m\",\"a\":1,\"b\":-1,\"c\":0.5,\"d\":null,\"e\":true}\n",
        );
    }

    #[test]
    fn ecs_keeps_our_pairs_under_our_name() {
        check(
            LogFormat::Ecs,
            "m",
            &[("listener", "web".into())],
            "{\"@timestamp\":\"2026-11-21T12:00:00.123Z\",\"log.level\":\"info\",\"message\":\"m\",\
             \"ecs.version\":\"8.17.0\",\"log.logger\":\"ringmain::boot\",\
             \"ringmain\":{\"listener\":\"web\"}}\n",
        );
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        let cut = format!("{}...", "é".repeat(VALUE_BYTES_MAX / 2));
        let line = format!("2026-11-21T12:00:00.123Z INFO  m v={cut}\n");
        check(LogFormat::Text, "m", &[("v", long.as_str().into())], &line);
    }
}
