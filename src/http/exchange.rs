//! What takes both messages of an exchange to decide: the joint state of its two sides.
//!
//! Pure: no I/O, no clock. Whoever relays the bytes tells what happened on either side, and asks
//! what becomes of what the client still sends ([`Progress::rest`]), what a fault means for the
//! client ([`Progress::broken`]), and what the two connections may carry next.
//!
//! ```text
//!   request:   Withheld -> Sending -> Sent
//!                              |----> Refused     the endpoint takes no more of it
//!                              '----> Failed      the client's fault
//!
//!   response:  Silent -> Begun -> Answering -> Whole
//!                 |         |           '------> Told, or Cut where only a reset tells
//!                 |         '------------------> Told      ringmain has answered
//!                 '----------------------------> Lost      the request is sent once more
//! ```
//!
//! Invariants: a request is only replayed from `Silent`; a client that was told of an end by the
//! framing alone (`Cut`) is told by a reset that it is none; an endpoint that answered before it
//! had the request keeps no connection.

use std::cell::Cell;

use super::framing::BodyLength;
use super::hop::ClientConnection;
use crate::fault::Fault;

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

/// How far one try of an exchange is, on both sides.
///
/// The two directions of a relay share it; each writes its own side and reads the other's.
#[derive(Debug)]
pub struct Progress {
    request: Cell<RequestSide>,
    response: Cell<ResponseSide>,
    /// The response's final head came before the request had been sent whole.
    early: Cell<bool>,
    /// `100 Continue` was said by ringmain itself.
    continued: Cell<bool>,
    /// The request expects `100 Continue`, and the endpoint has not said it.
    unwelcome: Cell<bool>,
    /// All that has come of the request is kept, so that it can be sent once more.
    kept: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestSide {
    /// Its head is with the endpoint, and its client waits for `100 Continue`.
    Withheld,
    /// More of its body is to come.
    Sending,
    /// All of it went to the endpoint.
    Sent,
    /// The endpoint takes no more of it; an answer may still come.
    Refused,
    /// It will never be whole.
    Failed(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseSide {
    /// Nothing of it was relayed.
    Silent,
    /// An endpoint has begun one; interim responses at most have gone to the client.
    Begun,
    /// It goes to the client.
    Answering(Reach),
    /// It was delivered to its end.
    Whole,
    /// The endpoint's connection died before a response; nobody was told.
    Lost,
    /// There will be no more of it, and the client can tell from what it has.
    Told(Reach),
    /// There will be no more of it, and only a reset tells the client.
    Cut,
}

/// How much of an answer has gone to the client of a failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: it can still be answered, and the request sent once more.
    Nothing,
    /// Begun responses at most, of an endpoint that has begun an answer: it can still be
    /// answered.
    Begun,
    /// Part of an endpoint's answer, whose framing shows that it is not whole.
    Part,
    /// Part of an endpoint's answer that only the close ends.
    Unmarked,
    /// An answer of ringmain's own.
    OwnAnswer,
}

/// An exchange that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Why.
    pub fault: Fault,
    /// What the client has seen by then.
    pub reach: Reach,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        let reach = Reach::Nothing;
        Self { fault, reach }
    }
}

/// What becomes of what the client still sends of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It goes to the endpoint.
    Forward,
    /// It is kept for the next try; this one is over.
    Keep,
    /// It does not go to the endpoint, which takes no more and whose answer is still awaited; it is
    /// kept as long as all is, and dropped then.
    Discard,
    /// It is read away for a while, so that the close does not reset away what the client was told
    /// (RFC 9112 section 9.6).
    ReadAway,
    /// It is not read: the client is to be told by a reset.
    Leave,
}

impl Progress {
    /// A try for `facts` of which nothing has happened yet; `whole` when all of the request is at
    /// hand, and `withheld` when its client has sent nothing of the body and waits for `100
    /// Continue`.
    pub const fn new(facts: &RequestFacts, whole: bool, withheld: bool) -> Self {
        let request = match (whole, withheld) {
            (true, _) => RequestSide::Sent,
            (false, true) => RequestSide::Withheld,
            (false, false) => RequestSide::Sending,
        };
        Self {
            request: Cell::new(request),
            response: Cell::new(ResponseSide::Silent),
            early: Cell::new(false),
            continued: Cell::new(false),
            unwelcome: Cell::new(facts.expects_continue),
            kept: Cell::new(true),
        }
    }

    /// True exactly when ringmain itself has said `100 Continue`.
    pub fn has_said_continue(&self) -> bool {
        self.continued.get()
    }

    /// What has come of the request is not kept any more.
    pub fn request_not_kept(&self) {
        self.kept.set(false);
    }

    /// True exactly when all that has come of the request is kept.
    pub fn is_kept(&self) -> bool {
        self.kept.get()
    }

    /// Bytes of the body came, asked for or not.
    pub fn body_comes(&self) {
        let is_open = !self.is_over() && self.response.get() != ResponseSide::Whole;
        if is_open && self.request.get() == RequestSide::Withheld {
            self.request.set(RequestSide::Sending);
        }
    }

    /// All of the request went to the endpoint.
    pub fn request_sent(&self) {
        self.request.set(RequestSide::Sent);
    }

    /// The endpoint takes no more of the request.
    pub fn request_refused(&self) {
        self.request.set(RequestSide::Refused);
    }

    /// The client will not send the rest of its request, or not as it must.
    pub fn request_failed(&self, fault: Fault) {
        self.request.set(RequestSide::Failed(fault));
    }

    /// ringmain itself says `100 Continue`, for the endpoint has not.
    pub fn continue_said(&self) {
        self.continued.set(true);
        self.body_comes();
    }

    /// An interim response came. True when it is to be relayed: RFC 9110 section 15.2 has all of
    /// them passed on but what the proxy has asked for or said itself.
    pub fn interim(&self, status: u16) -> bool {
        self.response.set(ResponseSide::Begun);
        if status == 100 {
            self.unwelcome.set(false);
            self.body_comes();
        }
        !(status == 100 && self.continued.get())
    }

    /// The head of the final response is understood.
    pub fn answer_begins(&self) {
        self.early.set(self.request.get() != RequestSide::Sent);
        self.response.set(ResponseSide::Begun);
    }

    /// The response goes to the client from now on; `unchunked` where it loses its chunks.
    pub fn answer_goes_out(&self, body: BodyLength, unchunked: bool) {
        let marked = !unchunked && body != BodyLength::UntilClose;
        let reach = if marked { Reach::Part } else { Reach::Unmarked };
        self.response.set(ResponseSide::Answering(reach));
    }

    /// The response was delivered to its end.
    pub fn answer_ends(&self) {
        self.response.set(ResponseSide::Whole);
    }

    /// No response comes, and the request is to be sent once more.
    pub fn answer_lost(&self) {
        debug_assert_eq!(self.response.get(), ResponseSide::Silent);
        self.response.set(ResponseSide::Lost);
    }

    /// No more of a response comes; `reach` is what the client has by now.
    pub fn answer_fails(&self, reach: Reach) {
        self.response.set(match reach {
            Reach::Unmarked => ResponseSide::Cut,
            reach => ResponseSide::Told(reach),
        });
    }

    /// What `fault` of the response's side means: the fault of the exchange, which is the request's
    /// where that failed first, and how much of an answer has gone out.
    pub fn broken(&self, fault: Fault) -> Broken {
        let fault = match self.request.get() {
            RequestSide::Failed(fault) => fault,
            _ => fault,
        };
        let reach = match self.response.get() {
            ResponseSide::Silent | ResponseSide::Lost => Reach::Nothing,
            ResponseSide::Begun => Reach::Begun,
            ResponseSide::Answering(reach) | ResponseSide::Told(reach) => reach,
            ResponseSide::Whole => Reach::Part,
            ResponseSide::Cut => Reach::Unmarked,
        };
        Broken { fault, reach }
    }

    /// What becomes of what the client still sends.
    pub fn rest(&self) -> Rest {
        use RequestSide::{Failed, Refused, Sending, Sent, Withheld};
        use ResponseSide::{Answering, Begun, Cut, Lost, Silent, Told, Whole};
        match (self.request.get(), self.response.get()) {
            (Sending, Silent | Begun | Answering(_) | Whole) => Rest::Forward,
            (Withheld, Silent | Begun | Answering(_)) => Rest::Forward,
            (Refused, Silent | Begun | Answering(_)) => Rest::Discard,
            (Withheld | Sending | Refused, Lost) => Rest::Keep,
            // RFC 9110 section 10.1.1: a client that was answered instead of told to go on may
            // never send its body, and what it sends next would be taken for it.
            (Withheld, Whole) => Rest::ReadAway,
            (Refused, Whole) => Rest::ReadAway,
            (Withheld | Sending | Refused, Told(_)) => Rest::ReadAway,
            (Withheld | Sending | Refused, Cut) => Rest::Leave,
            (Failed(fault), response) if response != Cut && !ends_client(fault) => Rest::ReadAway,
            // Nothing of the request is to come.
            (Sent | Failed(_), _) => Rest::Leave,
        }
    }

    /// True exactly while the client waits to be told to go on and nobody has answered it.
    pub fn is_withheld(&self) -> bool {
        self.request.get() == RequestSide::Withheld && !self.is_answered()
    }

    /// True exactly when all of the request went to the endpoint.
    pub fn is_sent(&self) -> bool {
        self.request.get() == RequestSide::Sent
    }

    /// True exactly when the request failed on its way.
    pub fn is_failed(&self) -> bool {
        matches!(self.request.get(), RequestSide::Failed(_))
    }

    /// True exactly when something of a response has come.
    pub fn is_begun(&self) -> bool {
        self.response.get() != ResponseSide::Silent
    }

    /// True exactly when the final response goes out or has, or there will be none.
    pub fn is_answered(&self) -> bool {
        use ResponseSide::{Begun, Silent};
        !matches!(self.response.get(), Silent | Begun)
    }

    /// True exactly when there will be no response, or no more of it.
    pub fn is_over(&self) -> bool {
        use ResponseSide::{Cut, Lost, Told};
        matches!(self.response.get(), Lost | Told(_) | Cut)
    }

    /// What becomes of the client's connection when a response with `status` and `body` is over.
    pub fn client_connection(
        &self,
        request: &RequestFacts,
        status: u16,
        body: BodyLength,
        draining: bool,
    ) -> ClientConnection {
        if status == 101 {
            // What was offered was taken, and stands also while draining.
            return ClientConnection::Tunnel;
        }
        // What comes next on it could be the body, or the next request.
        let ambiguous = self.request.get() == RequestSide::Withheld;
        let unchunked = unchunk(request.minor, body);
        // RFC 9112 section 6.3 rule 8: only the close can end it.
        let until_close = unchunked || body == BodyLength::UntilClose;
        if ambiguous || draining || until_close || !request.keep_alive {
            ClientConnection::Close
        } else {
            ClientConnection::KeepAlive
        }
    }

    /// True exactly when the endpoint's connection may carry another exchange, as far as the order
    /// of the messages says. An endpoint that answered before it had all of the request, or without
    /// the `100 Continue` that it was asked for, may have taken the rest for the next request: its
    /// answer to that would be taken for ours.
    pub fn endpoint_in_step(&self) -> bool {
        self.is_sent() && !self.early.get() && !self.unwelcome.get()
    }
}

/// True exactly when nothing more comes from the client of a request that failed with `fault`.
const fn ends_client(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::RequestTimeout | Fault::RequestIncomplete | Fault::ClientGone
    )
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
mod tests;
