//! The joint state of both sides, by table.

use super::*;

const FACTS: RequestFacts = RequestFacts {
    minor: 1,
    keep_alive: true,
    head_method: false,
    idempotent: true,
    body: BodyLength::None,
    expects_continue: false,
};

/// A try whose request is in the state that `request` brings about and whose response is in the one
/// that `response` does.
fn progress(request: &str, response: &str) -> Progress {
    let progress = Progress::new(&FACTS, request == "sent", request == "withheld");
    let answering = |body| {
        progress.answer_begins();
        progress.answer_goes_out(body, false);
    };
    match response {
        "silent" => {}
        "interim" => assert!(progress.interim(103)),
        "answering" => answering(BodyLength::Length(3)),
        "whole" => {
            answering(BodyLength::Length(3));
            progress.answer_ends();
        }
        "lost" => progress.answer_lost(),
        "told" => progress.answer_fails(Reach::Nothing),
        "cut" => {
            answering(BodyLength::UntilClose);
            progress.answer_fails(progress.broken(Fault::ResponseIncomplete).reach);
        }
        unknown => panic!("{unknown}"),
    }
    match request {
        "refused" => progress.request_refused(),
        "failed" => progress.request_failed(Fault::RequestTimeout),
        "malformed" => progress.request_failed(Fault::RequestInvalid),
        _ => {}
    }
    progress
}

#[test]
fn what_the_client_still_sends_depends_on_both_sides() {
    const RESPONSES: [&str; 7] = [
        "silent",
        "interim",
        "answering",
        "whole",
        "lost",
        "told",
        "cut",
    ];
    use Rest::{Discard, Forward, Keep, Leave, ReadAway};
    for (request, expected) in [
        (
            "withheld",
            [Forward, Forward, Forward, ReadAway, Keep, ReadAway, Leave],
        ),
        (
            "sending",
            [Forward, Forward, Forward, Forward, Keep, ReadAway, Leave],
        ),
        (
            "refused",
            [Discard, Discard, Discard, ReadAway, Keep, ReadAway, Leave],
        ),
        ("sent", [Leave; 7]),
        ("failed", [Leave; 7]),
        (
            "malformed",
            [
                ReadAway, ReadAway, ReadAway, ReadAway, ReadAway, ReadAway, Leave,
            ],
        ),
    ] {
        for (response, expected) in RESPONSES.into_iter().zip(expected) {
            let rest = progress(request, response).rest();
            assert_eq!(rest, expected, "{request}, {response}");
        }
    }
}

#[test]
fn a_fault_says_how_much_of_an_answer_went_out_and_whose_it_is() {
    use Reach::{Begun, Nothing, Part, Unmarked};
    for (response, reach) in [
        ("silent", Nothing),
        ("lost", Nothing),
        ("interim", Begun),
        ("answering", Part),
        ("cut", Unmarked),
    ] {
        let fault = Fault::ResponseIncomplete;
        let broken = progress("sending", response).broken(fault);
        assert_eq!(broken, Broken { fault, reach });
        let broken = progress("failed", response).broken(fault);
        let fault = Fault::RequestTimeout;
        assert_eq!(broken, Broken { fault, reach });
    }
    let unchunked = progress("sent", "silent");
    unchunked.answer_begins();
    unchunked.answer_goes_out(BodyLength::Chunked, true);
    assert_eq!(unchunked.broken(Fault::ClientGone).reach, Unmarked);
}

#[test]
fn a_client_is_kept_where_it_asks_and_the_body_ends_by_itself() {
    use BodyLength::{Chunked, Length, None, UntilClose};
    for (minor, body, kept) in [
        (1, None, true),
        (1, Length(3), true),
        (1, Chunked, true),
        (1, UntilClose, false),
        (0, Length(3), true),
        (0, Chunked, false),
    ] {
        let check = |request: &str, keep_alive, draining| {
            let facts = RequestFacts {
                minor,
                keep_alive,
                ..FACTS
            };
            let progress = progress(request, "silent");
            progress.client_connection(&facts, 200, body, draining) == ClientConnection::KeepAlive
        };
        assert_eq!(check("sent", true, false), kept, "{minor} {body:?}");
        assert_eq!(check("sending", true, false), kept, "{minor} {body:?}");
        assert!(!check("sent", false, false));
        assert!(!check("sent", true, true));
        assert!(!check("withheld", true, false));
    }
}

#[test]
fn a_101_makes_a_tunnel_whatever_was_to_become_of_the_connection() {
    for (keep_alive, draining) in [(true, false), (false, false), (true, true)] {
        let facts = RequestFacts {
            keep_alive,
            ..FACTS
        };
        let progress = progress("sent", "silent");
        let connection = progress.client_connection(&facts, 101, BodyLength::None, draining);
        assert_eq!(connection, ClientConnection::Tunnel);
    }
}

#[test]
fn an_endpoint_that_answered_too_early_keeps_no_connection() {
    let in_order = progress("sent", "whole");
    assert!(in_order.endpoint_in_step());
    let early = progress("sending", "whole");
    early.request_sent();
    assert!(!early.endpoint_in_step());
    assert!(!progress("refused", "whole").endpoint_in_step());
}

#[test]
fn an_endpoint_that_answered_an_expectation_with_more_than_continue_keeps_no_connection() {
    let facts = RequestFacts {
        expects_continue: true,
        ..FACTS
    };
    for (says, kept) in [(None, false), (Some(103), false), (Some(100), true)] {
        let progress = Progress::new(&facts, true, false);
        if let Some(status) = says {
            assert!(progress.interim(status));
        }
        progress.answer_begins();
        progress.answer_goes_out(BodyLength::None, false);
        progress.answer_ends();
        assert_eq!(progress.endpoint_in_step(), kept, "{says:?}");
    }
}

#[test]
fn a_client_that_waits_is_told_once() {
    let told_by_endpoint = progress("withheld", "silent");
    assert!(told_by_endpoint.is_withheld());
    assert!(told_by_endpoint.interim(103));
    assert!(told_by_endpoint.is_withheld());
    assert!(told_by_endpoint.interim(100));
    assert!(!told_by_endpoint.is_withheld());
    assert!(told_by_endpoint.interim(100));

    let told_by_us = progress("withheld", "silent");
    told_by_us.continue_said();
    assert!(!told_by_us.is_withheld());
    assert!(!told_by_us.interim(100));
    assert!(told_by_us.interim(103));

    assert!(!progress("withheld", "answering").is_withheld());
    let unasked = progress("withheld", "silent");
    unasked.body_comes();
    assert!(!unasked.is_withheld());
}
