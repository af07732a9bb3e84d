//! What the admin API answers. `admit.rs` says to whom.

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::admit::{Reach, refusal};
use super::{HEAD, PlanFormat, Reply, ReportQuery, Wanted, WantedReport};
use crate::control::compile::Override;
use crate::tally::report::Format;

/// All there is, in the order of `docs/ADMIN.md`.
pub const ROUTES: [(&str, &str); 9] = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/plan"),
    ("GET", "/report"),
    ("POST", "/reload"),
    ("POST", "/drain"),
    ("POST", "/service/{service}/backend/{backend}/ready"),
    ("POST", "/service/{service}/backend/{backend}/drain"),
    ("POST", "/service/{service}/backend/{backend}/down"),
];

/// Nothing here needs a body; one of so many bytes is read and left alone.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// How handlers reach control.
type Control = State<mpsc::Sender<Wanted>>;

type Parameters = Query<Vec<(String, String)>>;

/// All there is; what control is asked for goes through `wanted`.
pub(super) fn router(reach: Reach, wanted: mpsc::Sender<Wanted>) -> Router {
    let mut router = Router::new();
    for (_, path) in ROUTES {
        router = router.route(path, handler(path));
    }
    router
        .fallback(nothing_here)
        .layer(from_fn(take_body))
        .layer(from_fn_with_state(reach, admit))
        .layer(map_response(sign))
        .with_state(wanted)
}

fn handler(path: &str) -> MethodRouter<mpsc::Sender<Wanted>> {
    let only_get = || async { not_allowed("GET") };
    let only_post = || async { not_allowed("POST") };
    match path {
        "/healthz" => get(healthz).fallback(only_get),
        "/readyz" => get(readyz).fallback(only_get),
        "/plan" => get(plan).fallback(only_get),
        "/report" => get(report).fallback(only_get),
        "/reload" => post(reload).fallback(only_post),
        "/drain" => post(drain).fallback(only_post),
        set => {
            let (_, word) = set.rsplit_once('/').expect("a path begins with one");
            let state = Override::of_label(word).expect("the last word of such a path is a state");
            let set = move |control, backend| set_state(control, backend, state);
            post(set).fallback(only_post)
        }
    }
}

/// By this `ringmain report` knows that it has asked a ringmain.
async fn sign(mut answer: Response) -> Response {
    let ours = HeaderValue::from_static("ringmain");
    answer.headers_mut().insert(header::SERVER, ours);
    let never = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(header::CACHE_CONTROL, never);
    answer
}

/// Lets in who may ask.
async fn admit(State(reach): State<Reach>, request: Request, next: Next) -> Response {
    match refusal(reach, request.method(), request.uri(), request.headers()) {
        Some(reason) => line(StatusCode::FORBIDDEN, reason),
        None => next.run(request).await,
    }
}

/// Reads a body away, so that whoever sends one gets the answer and no reset.
async fn take_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let too_large = || {
        let reason = format!("a body is not needed; allowed: up to {BODY_BYTES_MAX} bytes");
        line(StatusCode::PAYLOAD_TOO_LARGE, &reason)
    };
    if (BODY_BYTES_MAX as u64) < body.size_hint().lower() {
        return too_large();
    }
    match timeout(HEAD, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(_unread)) => next.run(Request::from_parts(head, Body::empty())).await,
        Ok(Err(_)) => too_large(),
        Err(_) => line(
            StatusCode::REQUEST_TIMEOUT,
            "a body is not needed, and this one takes too long",
        ),
    }
}

async fn healthz() -> Response {
    line(StatusCode::OK, "ok")
}

async fn readyz(State(control): Control, Query(parameters): Parameters) -> Response {
    match one_parameter(parameters, "service") {
        Ok(service) => ask(&control, |answer| Wanted::Ready { service, answer }).await,
        Err(reason) => line(StatusCode::BAD_REQUEST, &reason),
    }
}

async fn plan(State(control): Control, Query(parameters): Parameters) -> Response {
    let format = one_parameter(parameters, "format").and_then(|format| match format {
        Some(label) => PlanFormat::of_label(&label),
        None => Ok(PlanFormat::Json),
    });
    let format = match format {
        Ok(format) => format,
        Err(reason) => return line(StatusCode::BAD_REQUEST, &reason),
    };
    let (answer, answered) = oneshot::channel();
    match asked(&control, Wanted::Plan { format, answer }, answered).await {
        Some(text) => ([(header::CONTENT_TYPE, format.media_type())], text).into_response(),
        None => ends(),
    }
}

async fn report(State(control): Control, Query(parameters): Parameters) -> Response {
    let query = match ReportQuery::parse(&parameters) {
        Ok(query) => query,
        Err(reason) => return line(StatusCode::BAD_REQUEST, &reason),
    };
    let media_type = match query.format {
        Format::Json => "application/json",
        Format::Text | Format::Hgrm | Format::Hlog => "text/plain; charset=utf-8",
    };
    let (answer, answered) = oneshot::channel();
    let wanted = Wanted::Report(WantedReport { query, answer });
    match asked(&control, wanted, answered).await {
        Some(Ok(text)) => ([(header::CONTENT_TYPE, media_type)], text).into_response(),
        Some(Err(error)) => line(StatusCode::BAD_REQUEST, &error.to_string()),
        None => ends(),
    }
}

async fn reload(State(control): Control) -> Response {
    let (answer, answered) = oneshot::channel();
    match asked(&control, Wanted::Reload { answer }, answered).await {
        Some(Ok(difference)) => (StatusCode::OK, difference).into_response(),
        Some(Err(reason)) => {
            let text = format!("refused; nothing is changed: {reason}");
            line(StatusCode::UNPROCESSABLE_ENTITY, &text)
        }
        None => ends(),
    }
}

async fn drain(State(control): Control) -> Response {
    ask(&control, |answer| Wanted::Drain { answer }).await
}

async fn set_state(
    State(control): Control,
    Path((service, backend)): Path<(String, String)>,
    state: Override,
) -> Response {
    let wanted = |answer| Wanted::Set {
        service,
        backend,
        state,
        answer,
    };
    ask(&control, wanted).await
}

/// Asks control for what `wanted` makes, and says what it replies.
async fn ask(
    control: &mpsc::Sender<Wanted>,
    wanted: impl FnOnce(oneshot::Sender<Reply>) -> Wanted,
) -> Response {
    let (answer, answered) = oneshot::channel();
    match asked(control, wanted(answer), answered).await {
        Some(Reply { status, text }) => line(status, &text),
        None => ends(),
    }
}

/// `None` where control has left its loop.
async fn asked<T>(
    control: &mpsc::Sender<Wanted>,
    wanted: Wanted,
    answered: oneshot::Receiver<T>,
) -> Option<T> {
    // An error drops what was wanted, and with it the sender of the answer.
    let _sent = control.send(wanted).await;
    answered.await.ok()
}

fn ends() -> Response {
    line(StatusCode::SERVICE_UNAVAILABLE, "the process ends")
}

fn not_allowed(method: &str) -> Response {
    line(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("allowed: {method}"),
    )
}

async fn nothing_here() -> Response {
    let all = ROUTES.map(|(method, path)| format!("{method} {path}"));
    let all = format!("there is no such path; allowed: {}", all.join(", "));
    line(StatusCode::NOT_FOUND, &all)
}

/// The value of the parameter `name`, where it is there and not empty; there is no other.
fn one_parameter(parameters: Vec<(String, String)>, name: &str) -> Result<Option<String>, String> {
    let mut found = None;
    for (given, value) in parameters {
        if given != name {
            return Err(format!("{given:?} is not a parameter; allowed: {name}"));
        }
        if found.replace(value).is_some() {
            return Err(format!("{name}: it is there twice; allowed: once"));
        }
    }
    Ok(found.filter(|value| !value.is_empty()))
}

fn line(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}
