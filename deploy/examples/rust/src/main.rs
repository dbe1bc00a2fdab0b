//! axum behind Doorward: the middleware, and an application that says who is talking.
//!
//! ```sh
//! DOORWARD_ASSERTION_KEY=… cargo run -- 127.0.0.1:3000
//! ```
//! A request that the gateway did not sign is answered 401 and reaches no handler. A body is held here only where its digest
//! was signed, up to `MAX_BODY`; any other streams through as it comes. What must answer without the gateway (a health
//! check) is a route that is added after the layer.

mod identity;
mod signature;
#[cfg(test)]
mod vectors;
mod verify;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, OriginalUri, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Json, Response};
use axum::{Router, routing::any};
use http_body_util::BodyExt as _;
use identity::Identity;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;
use verify::Verifier;

/// The largest body that is held: the gateway's `server.body_hold`.
const MAX_BODY: usize = 1024 * 1024;

/// After it, an `Extension<Identity>` says who is talking.
async fn doorward(State(verifier): State<Arc<Verifier>>, OriginalUri(uri): OriginalUri, request: Request, next: Next) -> Response {
    let (mut parts, mut body) = request.into_parts();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let who = match verifier.head(parts.method.as_str(), uri.path(), uri.query(), &parts.headers, now) {
        Ok(who) => who,
        Err(why) => return refuse(StatusCode::UNAUTHORIZED, &why.0),
    };
    if who.body_digest.is_some() {
        let Ok(held) = to_bytes(body, MAX_BODY).await else {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or never ended");
        };
        if let Err(why) = who.check_body(&held) {
            return refuse(StatusCode::UNAUTHORIZED, &why.0);
        }
        body = Body::from(held);
    }
    parts.extensions.insert(who);
    next.run(Request::from_parts(parts, body)).await
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "refused": why }))).into_response()
}

async fn whoami(Extension(who): Extension<Identity>, mut body: Body) -> Result<Json<Value>, StatusCode> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        bytes += frame.data_ref().map_or(0, |data| data.len());
    }
    let tenant = &who.told["x-identity-tenant"];
    Ok(Json(json!({ "level": who.level, "tenant": tenant, "subject": who.subject, "claims": who.claims, "bytes": bytes })))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = std::env::var("DOORWARD_ASSERTION_KEY")?.into_bytes();
    let mapped = vec!["X-User-Email".to_owned()];
    let verifier = Verifier { key_id: "a1".to_owned(), key, audience: "agent".to_owned(), mapped };
    let layer = middleware::from_fn_with_state(Arc::new(verifier), doorward);
    let routes = Router::new().route("/", any(whoami)).route("/{*path}", any(whoami)).layer(layer);
    let listener = tokio::net::TcpListener::bind(std::env::args().nth(1).ok_or("which address?")?).await?;
    Ok(axum::serve(listener, routes).await?)
}
