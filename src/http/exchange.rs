//! What takes both messages of an exchange to decide.

use super::framing::BodyLength;
use super::hop::ClientConnection;

/// What outlives a request's head, which is gone from the buffer when the response comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    pub minor: u8,
    /// The client means to send another request on this connection.
    pub keep_alive: bool,
    /// The method is HEAD.
    pub head_method: bool,
    /// The method is idempotent.
    pub idempotent: bool,
    /// How the request's body is framed.
    pub body: BodyLength,
    /// The client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
}

/// What becomes of the client's connection when the response is over.
pub const fn client_connection(
    request: &RequestFacts,
    status: u16,
    response_body: BodyLength,
    draining: bool,
) -> ClientConnection {
    if status == 101 {
        // What was offered was taken, and stands also while draining.
        return ClientConnection::Tunnel;
    }
    match (request.keep_alive && !draining, response_body) {
        (false, _) => ClientConnection::Close,
        // RFC 9112 section 6.3 rule 8: only the close can end it.
        (true, BodyLength::UntilClose) => ClientConnection::Close,
        (true, BodyLength::Chunked) if unchunk(request.minor, response_body) => {
            ClientConnection::Close
        }
        (true, BodyLength::None | BodyLength::Length(_) | BodyLength::Chunked) => {
            ClientConnection::KeepAlive
        }
    }
}

/// RFC 9112 section 7: chunks are not sent to a HTTP/1.0 client; it gets the content, and the close
/// ends it.
pub const fn unchunk(client_minor: u8, response_body: BodyLength) -> bool {
    client_minor == 0 && matches!(response_body, BodyLength::Chunked)
}

/// RFC 9110 section 15.2: no interim response is sent to a HTTP/1.0 client.
pub const fn relays_interim(client_minor: u8) -> bool {
    1 <= client_minor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn answered(
        status: u16,
        minor: u8,
        keep_alive: bool,
        body: BodyLength,
        draining: bool,
    ) -> ClientConnection {
        let request = RequestFacts {
            minor,
            keep_alive,
            head_method: false,
            idempotent: true,
            body: BodyLength::None,
            expects_continue: false,
        };
        client_connection(&request, status, body, draining)
    }

    fn check(minor: u8, keep_alive: bool, body: BodyLength, draining: bool) -> ClientConnection {
        answered(200, minor, keep_alive, body, draining)
    }

    #[test]
    fn a_101_makes_a_tunnel_whatever_was_to_become_of_the_connection() {
        for (keep_alive, draining) in [(true, false), (false, false), (true, true)] {
            let connection = answered(101, 1, keep_alive, BodyLength::None, draining);
            assert_eq!(connection, ClientConnection::Tunnel);
        }
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
            let connection = check(minor, true, body, false);
            assert_eq!(
                connection == ClientConnection::KeepAlive,
                kept,
                "{minor} {body:?}"
            );
            assert_eq!(check(minor, false, body, false), ClientConnection::Close);
            assert_eq!(check(minor, true, body, true), ClientConnection::Close);
        }
    }
}
