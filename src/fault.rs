//! Why an exchange failed: the one table that turns a cause into side, status, label and word.
//!
//! Words are the error types of RFC 9209 section 2.3 (`Proxy-Status: ringmain; error=WORD`).
//! Several causes may share a word (every 4xx of our own is `http_request_error` there, as the RFC
//! has it); labels are unique, and are what counters and the report are keyed by. Where one cause
//! has an RFC word for itself, its label is that word.

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What the client sent, did not send, or did not take.
    Client,
    /// What an endpoint did or did not do.
    Upstream,
    /// ringmain itself, its configuration or one of its limits.
    Ringmain,
}

impl Side {
    /// The side's name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Ringmain => "ringmain",
        }
    }
}

/// The cause of one failed exchange.
///
/// In the order of an exchange's life: the request arrives, is routed, an endpoint is connected,
/// answers, and the client takes the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// The request's head, framing or body broke a rule of RFC 9112; answered with 400 and close.
    RequestInvalid,
    /// The client began a request and did not finish it in time; answered with 408.
    RequestTimeout,
    /// The client closed before its request was whole; answered with 400, for perhaps it
    /// closed its own direction alone.
    RequestIncomplete,
    /// The request target alone is over the head's limit; answered with 414.
    RequestTargetTooLong,
    /// The head is over its limit in bytes or fields; answered with 431.
    RequestHeadTooLarge,
    /// The body is over its limit; answered with 413.
    RequestBodyTooLarge,
    /// An expectation other than 100-continue; answered with 417.
    ExpectationUnsupported,
    /// A method or transfer coding that ringmain does not implement; answered with 501.
    RequestUnsupported,
    /// A major version other than 1; answered with 505.
    VersionUnsupported,
    /// No route and no service for the request; answered with 404.
    DestinationNotFound,
    /// The request came back to us: our own name stands in its Via.
    LoopDetected,
    /// The client's address has sent more requests than `client_rate` lets it; answered with 429.
    ClientRateExceeded,
    /// The client's address has as many exchanges as `client_concurrent` lets it; answered with
    /// 429.
    ClientConcurrencyExceeded,
    /// The service has got more requests than its `rate` lets in; answered with 429.
    ServiceRateExceeded,
    /// No endpoint may be picked; answered with 503.
    DestinationUnavailable,
    /// The service has no endpoint, for no name of its backends was ever resolved; answered with
    /// 502.
    DnsError,
    /// Fewer backends have succeeded than a fan-out requires, and no more can; answered with 502
    /// and what came of each.
    FanoutUnmet,
    /// A limit of ours was reached; answered with 503.
    ConnectionLimitReached,
    /// The endpoint refused the connection; nothing was sent, so any request may be tried
    /// elsewhere.
    ConnectionRefused,
    /// The endpoint did not accept the connection in time; nothing was sent.
    ConnectionTimeout,
    /// No way to the endpoint's address; nothing was sent.
    DestinationUnroutable,
    /// The endpoint took none of the request for the upstream `send_idle`.
    ConnectionWriteTimeout,
    /// The connection ended before the first byte of the response.
    ConnectionTerminated,
    /// The response head did not arrive within `response`.
    ResponseTimeout,
    /// The try took longer than `attempt`, and there was no further one.
    AttemptTimeout,
    /// The exchange took longer than `total`.
    ExchangeTimeout,
    /// The response's head or framing broke a rule of RFC 9112.
    ResponseInvalid,
    /// The response's transfer coding is not one that can be framed.
    ResponseTransferCoding,
    /// The response head is over its limit in bytes or fields.
    ResponseHeadTooLarge,
    /// The endpoint sent nothing of a begun response for `receive_idle`.
    ConnectionReadTimeout,
    /// The connection ended inside the response's head or body.
    ResponseIncomplete,
    /// The client closed or reset its connection before it had its answer.
    ClientGone,
    /// The client took nothing of its answer for the listener's `send_idle`.
    ClientSendTimeout,
    /// The drain's time was over before the exchange was.
    DrainTimeout,
    /// A panic inside ringmain.
    Internal,
}

/// One row of the table.
struct Row {
    side: Side,
    retryable: bool,
    status: u16,
    label: &'static str,
    word: &'static str,
}

impl Fault {
    /// How many causes there are; labels are indexed `0..COUNT`.
    pub const COUNT: usize = Self::ALL.len();

    /// Every cause, in the order of its index.
    pub const ALL: [Self; 35] = [
        Self::RequestInvalid,
        Self::RequestTimeout,
        Self::RequestIncomplete,
        Self::RequestTargetTooLong,
        Self::RequestHeadTooLarge,
        Self::RequestBodyTooLarge,
        Self::ExpectationUnsupported,
        Self::RequestUnsupported,
        Self::VersionUnsupported,
        Self::DestinationNotFound,
        Self::LoopDetected,
        Self::ClientRateExceeded,
        Self::ClientConcurrencyExceeded,
        Self::ServiceRateExceeded,
        Self::DestinationUnavailable,
        Self::DnsError,
        Self::FanoutUnmet,
        Self::ConnectionLimitReached,
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::DestinationUnroutable,
        Self::ConnectionWriteTimeout,
        Self::ConnectionTerminated,
        Self::ResponseTimeout,
        Self::AttemptTimeout,
        Self::ExchangeTimeout,
        Self::ResponseInvalid,
        Self::ResponseTransferCoding,
        Self::ResponseHeadTooLarge,
        Self::ConnectionReadTimeout,
        Self::ResponseIncomplete,
        Self::ClientGone,
        Self::ClientSendTimeout,
        Self::DrainTimeout,
        Self::Internal,
    ];

    /// The cause's place in [`Fault::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Who is to blame.
    pub const fn side(self) -> Side {
        self.row().side
    }

    /// True exactly when another try may succeed without the request having been processed twice:
    /// at once for causes before anything was sent ([`Fault::nothing_sent`]), else for idempotent
    /// methods only (RFC 9110 section 9.2.2).
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// True exactly when the cause precedes the first byte sent to the endpoint.
    pub const fn nothing_sent(self) -> bool {
        matches!(
            self,
            Self::ConnectionRefused | Self::ConnectionTimeout | Self::DestinationUnroutable
        )
    }

    /// True exactly when nobody is left to be answered.
    pub const fn is_unanswerable(self) -> bool {
        matches!(self, Self::ClientGone | Self::ClientSendTimeout)
    }

    /// The status of the answer, where one can still be given; 499 where the client is gone and
    /// none is sent.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The unique name in counters, metrics, logs and the report.
    pub const fn label(self) -> &'static str {
        self.row().label
    }

    /// The error type of RFC 9209 section 2.3 for `Proxy-Status`.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    const fn row(self) -> Row {
        use Side::{Client, Ringmain, Upstream};
        const REQUEST: &str = "http_request_error";
        const LATE: &str = "http_response_timeout";
        const DENIED: &str = "http_request_denied";
        match self {
            Self::RequestInvalid => own(Client, false, 400, REQUEST),
            Self::RequestTimeout => row(Client, false, 408, "http_request_timeout", REQUEST),
            Self::RequestIncomplete => row(Client, false, 400, "http_request_incomplete", REQUEST),
            Self::RequestTargetTooLong => {
                row(Client, false, 414, "http_request_target_size", REQUEST)
            }
            Self::RequestHeadTooLarge => row(
                Client,
                false,
                431,
                "http_request_header_section_size",
                REQUEST,
            ),
            Self::RequestBodyTooLarge => row(Client, false, 413, "http_request_body_size", REQUEST),
            Self::ExpectationUnsupported => {
                row(Client, false, 417, "http_request_expectation", REQUEST)
            }
            Self::RequestUnsupported => {
                row(Client, false, 501, "http_request_unsupported", REQUEST)
            }
            Self::VersionUnsupported => row(Client, false, 505, "http_request_version", REQUEST),
            Self::DestinationNotFound => own(Client, false, 404, "destination_not_found"),
            Self::LoopDetected => own(Client, false, 502, "proxy_loop_detected"),
            Self::ClientRateExceeded => row(Client, false, 429, "client_rate_exceeded", DENIED),
            Self::ClientConcurrencyExceeded => {
                row(Client, false, 429, "client_concurrency_exceeded", DENIED)
            }
            Self::ServiceRateExceeded => row(Ringmain, false, 429, "service_rate_exceeded", DENIED),
            Self::DestinationUnavailable => own(Upstream, false, 503, "destination_unavailable"),
            Self::DnsError => own(Upstream, false, 502, "dns_error"),
            Self::FanoutUnmet => row(
                Upstream,
                false,
                502,
                "fanout_unmet",
                "destination_unavailable",
            ),
            Self::ConnectionLimitReached => own(Ringmain, false, 503, "connection_limit_reached"),
            Self::ConnectionRefused => own(Upstream, true, 502, "connection_refused"),
            Self::ConnectionTimeout => own(Upstream, true, 504, "connection_timeout"),
            Self::DestinationUnroutable => own(Upstream, true, 502, "destination_ip_unroutable"),
            Self::ConnectionWriteTimeout => own(Upstream, false, 504, "connection_write_timeout"),
            Self::ConnectionTerminated => own(Upstream, true, 502, "connection_terminated"),
            Self::ResponseTimeout => own(Upstream, false, 504, LATE),
            Self::AttemptTimeout => row(Upstream, true, 504, "attempt_timeout", LATE),
            Self::ExchangeTimeout => row(Ringmain, false, 504, "exchange_timeout", LATE),
            Self::ResponseInvalid => own(Upstream, false, 502, "http_protocol_error"),
            Self::ResponseTransferCoding => {
                own(Upstream, false, 502, "http_response_transfer_coding")
            }
            Self::ResponseHeadTooLarge => {
                own(Upstream, false, 502, "http_response_header_section_size")
            }
            Self::ConnectionReadTimeout => own(Upstream, false, 504, "connection_read_timeout"),
            Self::ResponseIncomplete => own(Upstream, false, 502, "http_response_incomplete"),
            Self::ClientGone => row(Client, false, 499, "client_gone", REQUEST),
            Self::ClientSendTimeout => row(Client, false, 499, "client_send_timeout", REQUEST),
            Self::DrainTimeout => row(
                Ringmain,
                false,
                503,
                "drain_timeout",
                "destination_unavailable",
            ),
            Self::Internal => own(Ringmain, false, 500, "proxy_internal_error"),
        }
    }
}

/// A row whose label is its word.
const fn own(side: Side, retryable: bool, status: u16, word: &'static str) -> Row {
    row(side, retryable, status, word, word)
}

const fn row(
    side: Side,
    retryable: bool,
    status: u16,
    label: &'static str,
    word: &'static str,
) -> Row {
    Row {
        side,
        retryable,
        status,
        label,
        word,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_index_of_a_cause_is_its_place_in_the_list() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault.index(), place, "{fault:?}");
        }
    }

    #[test]
    fn labels_are_unique_and_statuses_are_errors() {
        let labels: HashSet<_> = Fault::ALL.into_iter().map(Fault::label).collect();
        assert_eq!(labels.len(), Fault::COUNT);
        for fault in Fault::ALL {
            assert!((400..600).contains(&fault.status()), "{fault:?}");
            assert!(fault.retryable() || !fault.nothing_sent(), "{fault:?}");
        }
    }
}
