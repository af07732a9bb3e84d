//! What the admin API answers, and to whom.
//!
//! To whoever may open the socket's file; on the loopback interface to whoever names it so (a page
//! in a browser can send requests there under a name of its own, but not under ours); on any other
//! address to nobody, since nothing tells people apart there.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{mpsc, oneshot};

use super::{ReportQuery, Wanted};
use crate::config::AdminAddress;
use crate::tally::report::Format;

/// From where the socket can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// From where the file system allows it.
    File,
    /// From this machine.
    Loopback,
    /// From other machines.
    Others,
}

impl Reach {
    pub(super) fn of(address: &AdminAddress) -> Self {
        match address {
            AdminAddress::Tcp(address) if is_loopback(address.ip()) => Self::Loopback,
            AdminAddress::Tcp(_) => Self::Others,
            AdminAddress::Unix(_) | AdminAddress::Off => Self::File,
        }
    }
}

/// All there is; reports are asked for through `wanted`.
pub(super) fn router(reach: Reach, wanted: mpsc::Sender<Wanted>) -> Router {
    Router::new()
        .route("/report", get(report))
        .method_not_allowed_fallback(only_get)
        .fallback(nothing_here)
        .layer(from_fn_with_state(reach, admit))
        .layer(map_response(sign))
        .with_state(wanted)
}

/// By this `ringmain report` knows that it has asked a ringmain.
async fn sign(mut answer: Response) -> Response {
    let ours = HeaderValue::from_static("ringmain");
    answer.headers_mut().insert(header::SERVER, ours);
    answer
}

/// Lets in who may ask.
async fn admit(State(reach): State<Reach>, request: Request, next: Next) -> Response {
    let refusal = match reach {
        Reach::File => None,
        Reach::Loopback => is_foreign(request.headers(), request.uri()).then_some(
            "refused: Host is not a name of the loopback interface; \
             allowed: localhost, 127.0.0.1, [::1]\n",
        ),
        Reach::Others => Some(
            "refused: this address can be reached from other machines, and nothing is known here \
             of who may ask; bind [admin] address to 127.0.0.1 or to unix:/path\n",
        ),
    };
    match refusal {
        Some(reason) => (StatusCode::FORBIDDEN, reason).into_response(),
        None => next.run(request).await,
    }
}

async fn report(
    State(wanted): State<mpsc::Sender<Wanted>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let query = match ReportQuery::parse(&parameters) {
        Ok(query) => query,
        Err(reason) => return bad_request(&reason),
    };
    let format = query.format;
    let (answer, answered) = oneshot::channel();
    // It fails when control has left its loop.
    let _sent = wanted.send(Wanted { query, answer }).await;
    match answered.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, media_type(format))], text).into_response(),
        Ok(Err(error)) => bad_request(&error.to_string()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the process ends\n").into_response(),
    }
}

async fn only_get() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "allowed: GET\n").into_response()
}

async fn nothing_here() -> Response {
    (StatusCode::NOT_FOUND, "allowed: /report\n").into_response()
}

fn bad_request(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

const fn media_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Text | Format::Hgrm | Format::Hlog => "text/plain; charset=utf-8",
    }
}

/// True exactly when the request was not meant for the loopback interface by name, or does not say
/// for whom it is.
fn is_foreign(fields: &HeaderMap, target: &Uri) -> bool {
    let mut hosts = fields.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return true;
    };
    // RFC 9112 section 3.2.2: the authority of an absolute target is in Host's place.
    let authority = target
        .authority()
        .map_or(host, |authority| authority.as_str());
    second.is_some() || !names_loopback(host) || !names_loopback(authority)
}

/// `host` with or without a port.
fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_the_loopback_interface_are_known() {
        for host in [
            "localhost",
            "LOCALHOST:9901",
            "127.0.0.1",
            "127.0.0.1:9901",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:9901",
            "[::ffff:127.0.0.1]:9901",
        ] {
            assert!(names_loopback(host), "{host}");
        }
        for host in [
            "",
            ":9901",
            "localhost.evil.test",
            "evil.test:9901",
            "10.0.0.1:9901",
            "127.0.0.1.evil.test",
            "0.0.0.0:9901",
            "[::]:9901",
            "127.0.0.1:x",
        ] {
            assert!(!names_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_address_says_from_where_it_is_reached() {
        let cases = [
            ("127.0.0.1:9901", Reach::Loopback),
            ("[::1]:0", Reach::Loopback),
            ("0.0.0.0:9901", Reach::Others),
            ("10.0.0.1:9901", Reach::Others),
            ("unix:/run/ringmain.sock", Reach::File),
        ];
        for (address, reach) in cases {
            let address = address.parse().expect("it is an address");
            assert_eq!(Reach::of(&address), reach, "{address}");
        }
    }
}
