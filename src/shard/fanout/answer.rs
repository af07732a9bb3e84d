//! What a client is told of each backend, in JSON.
//!
//! ```text
//! {"service":"all","backends":[
//!     {"backend":"127.0.0.1:9090","status":201,"attempts":3,"milliseconds":412}]}
//! ```
//!
//! In the order of the file. `status` is that of the last answer, and `null` where the last attempt
//! had none; then `fault` says why. `pending` stands at a leg that is not through. Pure.

use std::io::Write;

use super::leg::{Leg, State};

/// What has come at `now` of `legs`, which began at `begun` (nanoseconds).
pub(super) fn json(service: &str, legs: &[Leg], (begun, now): (u64, u64)) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + legs.len() * 96);
    out.extend_from_slice(b"{\"service\":");
    write_string(&mut out, service);
    out.extend_from_slice(b",\"backends\":[");
    for (place, leg) in legs.iter().enumerate() {
        if 0 < place {
            out.push(b',');
        }
        write_leg(&mut out, leg, (begun, now));
    }
    out.extend_from_slice(b"]}");
    out
}

fn write_leg(out: &mut Vec<u8>, leg: &Leg, (begun, now): (u64, u64)) {
    out.extend_from_slice(b"{\"backend\":");
    write_string(out, &leg.backend);
    match leg.last {
        Some(Ok(status)) => write(out, format_args!(",\"status\":{status}")),
        Some(Err(fault)) => write(
            out,
            format_args!(",\"status\":null,\"fault\":\"{}\"", fault.label()),
        ),
        None => out.extend_from_slice(b",\"status\":null"),
    }
    let (ended, is_pending) = match leg.state {
        State::Succeeded(at) | State::Failed(at) => (at, false),
        State::Running(_) | State::Asleep => (now, true),
    };
    let milliseconds = ended.saturating_sub(begun) / 1_000_000;
    let attempts = leg.attempts;
    write(
        out,
        format_args!(",\"attempts\":{attempts},\"milliseconds\":{milliseconds}"),
    );
    if is_pending {
        out.extend_from_slice(b",\"pending\":true");
    }
    out.push(b'}');
}

/// RFC 8259 section 7.
fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => write(out, format_args!("\\u{byte:04x}")),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn each_backend_has_its_status_attempts_and_milliseconds() {
        let leg = |backend: &str, state, attempts, last| Leg {
            state,
            attempts,
            last,
            ..Leg::new(backend.into(), 0)
        };
        let legs = [
            leg(
                "127.0.0.1:1",
                State::Succeeded(413_000_000),
                3,
                Some(Ok(201)),
            ),
            leg(
                "b",
                State::Failed(2_000_000),
                1,
                Some(Err(Fault::ConnectionRefused)),
            ),
            leg("c\"\n", State::Asleep, 2, Some(Ok(503))),
            leg("d", State::Running(None), 1, None),
        ];
        let text = json("all", &legs, (1_000_000, 900_999_999));
        let expected = r#"{"service":"all","backends":[
            {"backend":"127.0.0.1:1","status":201,"attempts":3,"milliseconds":412},
            {"backend":"b","status":null,"fault":"connection_refused",
            "attempts":1,"milliseconds":1},
            {"backend":"c\"\u000a","status":503,"attempts":2,"milliseconds":899,"pending":true},
            {"backend":"d","status":null,"attempts":1,"milliseconds":899,"pending":true}]}"#;
        let expected: String = expected.lines().map(str::trim).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
