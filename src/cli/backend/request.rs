//! Requests of one connection, read by monoio-http's `RequestDecoder` behind the caps that it
//! lacks.
//!
//! The decoder waits for a head of any length, panics on a field name of 64 KiB, reads the first
//! `Content-Length` of several, and holds a whole body in memory. So the reader under it has an
//! allowance: when so many bytes have come and the decoder still asks for more, the request is
//! refused. Bodies over [`BODY_BYTES_MAX`] are refused before they are read; a field name that
//! comes whole behind a large body can still make the decoder panic, which `server.rs` contains.
//! The decoder's counterpart, `GenericEncoder`, is not used: it sends a body in answer to HEAD,
//! knows no HTTP/1.0, and can't stream a body of a known length.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use monoio::BufResult;
use monoio::buf::{IoBufMut, IoVecBufMut, IoVecWrapperMut};
use monoio::io::stream::Stream;
use monoio::io::{AsyncReadRent, OwnedReadHalf};
use monoio::net::TcpStream;
use monoio_http::common::request::Request;
use monoio_http::h1::codec::decoder::{FillPayload, RequestDecoder};
use monoio_http::h1::payload::Payload;

/// Bytes read for one head before it is refused; the last read may go over it.
const HEAD_BYTES_MAX: usize = 24 * 1024;

/// The largest body that is taken.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Refused bytes that are read and dropped, so that the client can read why.
const DISCARD_BYTES_MAX: usize = 1024 * 1024;

/// The requests of one connection, in order.
pub(super) struct Requests {
    decoder: RequestDecoder<CappedReader>,
    source: Rc<Source>,
}

/// Why a connection gets one last answer, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It can't be read as a request: 400.
    Malformed,
    /// The body is over [`BODY_BYTES_MAX`]: 413.
    BodyTooLarge,
    /// The head is over [`HEAD_BYTES_MAX`]: 431.
    HeadTooLarge,
    /// The client has gone in the middle of a request: nobody is left to answer.
    Gone,
}

/// One request; its body comes from [`Requests::body`].
pub(super) struct Head {
    request: Request<Payload>,
}

impl Requests {
    /// Those that arrive on `io`.
    pub(super) fn new(io: OwnedReadHalf<TcpStream>) -> Self {
        let source = Rc::new(Source {
            io: Cell::new(Some(io)),
            allowance: Cell::new(0),
        });
        let decoder = RequestDecoder::new(CappedReader {
            source: Rc::clone(&source),
        });
        Self { decoder, source }
    }

    /// The next request's head; none at the end of the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Head>, Refusal> {
        self.source.allowance.set(HEAD_BYTES_MAX);
        match self.decoder.next().await {
            None => Ok(None),
            Some(Ok(request)) => Head { request }.with_sound_framing().map(Some),
            Some(Err(_)) => Err(self.refusal(Refusal::HeadTooLarge)),
        }
    }

    /// The body of `head`, which [`Requests::next`] gave last; empty where there is none.
    pub(super) async fn body(&mut self, head: &mut Head) -> Result<Vec<u8>, Refusal> {
        let mut body = Vec::new();
        if matches!(head.request.body(), Payload::None) {
            return Ok(body);
        }
        self.source
            .allowance
            .set(head.length().unwrap_or(BODY_BYTES_MAX));
        if self.decoder.fill_payload().await.is_err() {
            return Err(self.refusal(Refusal::BodyTooLarge));
        }
        // Everything has been fed by now, so that none of these waits.
        match head.request.body_mut() {
            Payload::None => {}
            Payload::Fixed(payload) => {
                while let Some(Ok(part)) = payload.next().await {
                    body.extend_from_slice(&part);
                }
            }
            Payload::Stream(payload) => {
                while let Some(Ok(part)) = payload.next().await {
                    body.extend_from_slice(&part);
                }
            }
        }
        Ok(body)
    }

    /// Reads what the client still sends and drops it, for a second at most. Closing with bytes
    /// unread would reset the connection, and the client might never see the answer that it is
    /// owed.
    pub(super) async fn discard(self) {
        let Some(mut io) = self.source.io.take() else {
            return;
        };
        let read_on = async {
            let mut left = DISCARD_BYTES_MAX;
            let mut buffer = vec![0; 16 * 1024];
            while 0 < left {
                let (outcome, same_buffer) = io.read(buffer).await;
                buffer = same_buffer;
                match outcome {
                    Ok(read) if 0 < read => left = left.saturating_sub(read),
                    _ => return,
                }
            }
        };
        // The connection ends after this in either case.
        let _ = monoio::time::timeout(Duration::from_secs(1), read_on).await;
    }

    /// What an error of the decoder means, where `exhausted` is the word for an allowance used up.
    fn refusal(&self, exhausted: Refusal) -> Refusal {
        match (self.source.allowance.get(), self.source.ended()) {
            (0, _) => exhausted,
            (_, true) => Refusal::Gone,
            (_, false) => Refusal::Malformed,
        }
    }
}

impl Head {
    /// The method, as it came.
    pub(super) fn method(&self) -> &str {
        self.request.method().as_str()
    }

    /// The target's path, without its query.
    pub(super) fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// The whole target.
    pub(super) fn target(&self) -> String {
        self.request.uri().to_string()
    }

    /// Whether this is HTTP/1.1; otherwise it is HTTP/1.0.
    pub(super) fn is_http_1_1(&self) -> bool {
        // The type's default is HTTP/1.1, and the decoder knows one other.
        self.request.version() == Default::default()
    }

    /// Whether the connection lives on after the answer (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        match self.is_http_1_1() {
            true => !self.has_connection_option("close"),
            false => {
                self.has_connection_option("keep-alive") && !self.has_connection_option("close")
            }
        }
    }

    /// Whether the client waits for our word before it sends the body (RFC 9110 section 10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        self.is_http_1_1()
            && !matches!(self.request.body(), Payload::None)
            && self
                .field("expect")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// The first field of that name; `name` is in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        self.request
            .headers()
            .get(name)
            .map(|value| value.as_bytes())
    }

    /// Every field; names are in lower case, because monoio-http keeps them so.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn has_connection_option(&self, option: &str) -> bool {
        let values = self.request.headers().get_all("connection");
        let mut options = values
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    }

    /// `Content-Length`, where it is the framing.
    fn length(&self) -> Option<usize> {
        match self.request.body() {
            Payload::Stream(_) => None,
            _ => std::str::from_utf8(self.field("content-length")?)
                .ok()?
                .parse()
                .ok(),
        }
    }

    /// Refuses what the decoder lets pass: framing that two readers could take differently (RFC
    /// 9112 section 6.3).
    fn with_sound_framing(self) -> Result<Self, Refusal> {
        let fields = self.request.headers();
        let lengths = fields.get_all("content-length").iter().count();
        let codings = fields.get_all("transfer-encoding").iter().count();
        if 1 < lengths + codings || (0 < codings && !self.is_http_1_1()) {
            return Err(Refusal::Malformed);
        }
        match self.length() {
            Some(length) if BODY_BYTES_MAX < length => Err(Refusal::BodyTooLarge),
            _ => Ok(self),
        }
    }
}

/// The read half of the connection, which the decoder and we share.
struct Source {
    /// None exactly while a read is under way, and after it has ended.
    io: Cell<Option<OwnedReadHalf<TcpStream>>>,
    /// Bytes that may still be read before the next step.
    allowance: Cell<usize>,
}

impl Source {
    /// Whether nothing more can be read.
    fn ended(&self) -> bool {
        let io = self.io.take();
        let ended = io.is_none();
        self.io.set(io);
        ended
    }
}

/// What the decoder reads from: the connection, cut off when the allowance is used up.
struct CappedReader {
    source: Rc<Source>,
}

impl AsyncReadRent for CappedReader {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        let allowance = self.source.allowance.get();
        if allowance == 0 {
            return (Err(io::ErrorKind::FileTooLarge.into()), buffer);
        }
        let Some(mut io) = self.source.io.take() else {
            return (Ok(0), buffer);
        };
        let (outcome, buffer) = io.read(buffer).await;
        if let Ok(read) = outcome
            && 0 < read
        {
            self.source.allowance.set(allowance.saturating_sub(read));
            self.source.io.set(Some(io));
        }
        (outcome, buffer)
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        let slice = match IoVecWrapperMut::new(buffer) {
            Ok(slice) => slice,
            Err(buffer) => return (Ok(0), buffer),
        };
        let (outcome, slice) = self.read(slice).await;
        (outcome, slice.into_inner())
    }
}
