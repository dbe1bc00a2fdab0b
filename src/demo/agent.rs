//! The demo's agent: a chat backend of a few lines that answers, word by word over SSE, to whoever the gateway says is
//! talking. Believes nothing but a verified assertion. Started by `doorward demo`, and by tests as an upstream.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

use super::verify::{Received, Refused, Verified, Verifier};
use crate::clock;
use crate::policy::Level;

/// A pause between words, so that buffering anywhere on the way would show.
const WORD_PAUSE: Duration = Duration::from_millis(40);
/// Largest body that the agent reads: as much as the gateway holds by default.
const MAX_BODY: usize = 1024 * 1024;

/// Serves until the listener fails: `/healthz` to anybody, `/echo` what it sees as JSON, any other path an answer in
/// words.
///
/// # Errors
/// When the listener cannot accept any more.
pub async fn serve(listener: TcpListener, verifier: Verifier) -> io::Result<()> {
    let app =
        Router::new().route("/healthz", get(|| async { "ok\n" })).route("/echo", any(echo)).fallback(chat).with_state(Arc::new(verifier));
    axum::serve(listener, app).await
}

/// A request that was verified, and what it carried.
struct Heard {
    who: Verified,
    parts: axum::http::request::Parts,
    body: Vec<u8>,
}

async fn hear(verifier: &Verifier, request: Request) -> Result<Heard, Response> {
    let (parts, body) = request.into_parts();
    let body = read(body).await?;
    let received =
        Received { method: parts.method.as_str(), path: parts.uri.path(), query: parts.uri.query(), headers: &parts.headers, body: &body };
    let judged = clock::read().map_err(|_| Refused("this machine's clock is wrong")).and_then(|now| verifier.verify(&received, now));
    match judged {
        Ok(who) => Ok(Heard { who, parts, body }),
        Err(Refused(why)) => Err((StatusCode::UNAUTHORIZED, Json(json!({ "refused": why }))).into_response()),
    }
}

async fn read(body: Body) -> Result<Vec<u8>, Response> {
    let bytes = to_bytes(body, MAX_BODY).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
    Ok(bytes.to_vec())
}

async fn chat(State(verifier): State<Arc<Verifier>>, request: Request) -> Response {
    let heard = match hear(&verifier, request).await {
        Ok(heard) => heard,
        Err(refusal) => return refusal,
    };
    let mut words: Vec<_> = greeting(&heard.who).split_inclusive(' ').map(str::to_owned).collect();
    if let Some(message) = message(&heard.body) {
        words.extend(format!(" You said: {message}").split_inclusive(' ').map(str::to_owned));
    }
    let events = words.into_iter().map(|word| Event::default().data(word.replace(['\r', '\n'], " ")));
    let done = Event::default().event("done").data(heard.who.level.as_str());
    let stream = tokio_stream::iter(events.chain([done])).throttle(WORD_PAUSE).map(Ok::<_, Infallible>);
    Sse::new(stream).into_response()
}

async fn echo(State(verifier): State<Arc<Verifier>>, request: Request) -> Response {
    let Heard { who, parts, body } = match hear(&verifier, request).await {
        Ok(heard) => heard,
        Err(refusal) => return refusal,
    };
    let headers: Vec<_> =
        parts.headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
    Json(json!({
        "level": who.level.as_str(),
        "tenant": who.tenant,
        "subject": who.subject,
        "claimed_subject": who.claimed_subject,
        "claims": who.claims,
        "method": who.method,
        "stepped_up_at": who.stepped_up_at,
        "aal": who.aal,
        "origin": who.origin,
        "request": format!("{} {}", parts.method, parts.uri),
        "body_bytes": body.len(),
        "body_covered": who.body_covered,
        "headers": headers,
    }))
    .into_response()
}

/// What the agent says first. Only a verified subject is called by name.
fn greeting(who: &Verified) -> String {
    let name = who.claims.get("name").and_then(Value::as_str).or(who.subject.as_deref()).unwrap_or_default();
    let method = who.method.as_deref().unwrap_or_default();
    match who.level {
        Level::Anonymous => "Hello stranger (nobody vouches for you).".to_owned(),
        Level::Claimed => {
            let id = who.claimed_subject.as_deref().unwrap_or_default();
            format!("Hello, you say you are {id} (nobody vouches for it).")
        }
        Level::Verified => format!("Hello {name} (verified by {method})."),
        Level::SteppedUp => format!("Hello {name} (verified by {method}, stepped up{}).", with(who.aal.as_deref())),
    }
}

fn with(aal: Option<&str>) -> String {
    aal.map(|aal| format!(" with {aal}")).unwrap_or_default()
}

/// What the caller said. The body is read for this only, never for who they are.
fn message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.get("message")?.as_str()?.chars().take(500).collect())
}
