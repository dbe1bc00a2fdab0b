//! The demo's host product: a page whose users are signed in here, and the backend that signs who they are. The identity
//! secret stays in this part of the process; a browser gets tokens, never the secret. Decides nothing for the gateway.
//! Started by `doorward demo`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{jwt, random_hex};
use crate::clock::{self, UnixTime};
use crate::secret::KeyBytes;

/// How long an identity token lasts, in seconds: long enough for a conversation, short enough to see it renewed.
const TOKEN_SECS: u64 = 300;
/// How long ago the token of "expire my token now" was signed: its end lies well beyond the gateway's leeway.
const LONG_AGO_SECS: u64 = 2 * TOKEN_SECS;
/// Signed-in browsers that are remembered; beyond it all start anew.
const MAX_BROWSERS: usize = 1000;
/// The host's own login. Nothing of the gateway's.
const COOKIE: &str = "host_session";

/// What the host's backend knows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The origins under which a browser reaches the page; a request under another host name is refused.
    pub origins: Vec<String>,
    /// The gateway, as the page reaches it: `http://127.0.0.1:8080`.
    pub gateway: String,
    /// The publishable key.
    pub embed_key: String,
    /// Signs identity tokens.
    pub identity: KeyBytes,
}

/// A user of the host product.
struct User {
    key: &'static str,
    id: &'static str,
    name: &'static str,
    email: &'static str,
    role: &'static str,
}

const USERS: [User; 2] = [
    User { key: "ada", id: "user_1815", name: "Ada Lovelace", email: "ada@acme.example", role: "finance" },
    User { key: "grace", id: "user_1906", name: "Grace Hopper", email: "grace@acme.example", role: "engineering" },
];

struct Host {
    settings: Settings,
    page: String,
    policy: HeaderValue,
    /// Who is signed in, by cookie.
    browsers: Mutex<HashMap<String, Option<&'static User>>>,
}

/// Serves until the listener fails.
///
/// # Errors
/// When the gateway's address cannot stand in a header, or the listener cannot accept any more.
pub async fn serve(listener: TcpListener, settings: Settings) -> io::Result<()> {
    axum::serve(listener, router(settings)?).await
}

fn router(settings: Settings) -> io::Result<Router> {
    let gateway = &settings.gateway;
    let page = include_str!("page/index.html").replace("{{gateway}}", gateway).replace("{{embed_key}}", &settings.embed_key);
    let page = page.replace("{{integrity}}", crate::client::at("/doorward.js").map_or("", |script| &script.integrity));
    // What the widget needs, and nothing else: no inline script or style, no other host.
    let policy = format!(
        "default-src 'none'; script-src 'self' {gateway}; style-src 'self'; img-src 'self'; connect-src 'self' {gateway}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let policy = HeaderValue::try_from(policy).map_err(io::Error::other)?;
    let host = Arc::new(Host { settings, page, policy, browsers: Mutex::default() });
    let file = |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    Ok(Router::new()
        .route("/", get(page_of))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("page/page.js")))
        .route("/chat.js", file("text/javascript; charset=utf-8", include_str!("page/chat.js")))
        .route("/told.js", file("text/javascript; charset=utf-8", include_str!("page/told.js")))
        .route("/icon.svg", file("image/svg+xml", include_str!("page/icon.svg")))
        .route("/host/me", get(me))
        .route("/host/sign-in", post(sign_in))
        .route("/host/sign-out", post(sign_out))
        .route("/host/identity-token", post(identity_token))
        .route("/host/confirm", post(confirm))
        .route("/host/expired-token", post(expired_token))
        .layer(middleware::from_fn_with_state(Arc::clone(&host), guard))
        .with_state(host))
}

/// Refuses other host names (a foreign page could rebind its own to this address) and calls from other pages; adds what
/// every answer carries.
async fn guard(State(host): State<Arc<Host>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let name = only(headers, &header::HOST).map(|name| format!("http://{name}"));
    let known = name.as_ref().is_some_and(|name| host.settings.origins.contains(name));
    let own = request.method() == http::Method::GET || only(headers, &header::ORIGIN) == name.as_deref();
    if !known || !own {
        return (StatusCode::FORBIDDEN, "This page answers under its own name, to itself only.\n").into_response();
    }
    let mut answer = next.run(request).await;
    let policy = host.policy.clone();
    answer.headers_mut().extend([
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]);
    answer
}

/// The one value of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

fn browser(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

impl Host {
    fn signed_in(&self, headers: &HeaderMap) -> Option<&'static User> {
        self.browsers.lock().get(browser(headers)?).copied().flatten()
    }

    /// Remembers a browser, which gets a name of its own at each sign-in.
    fn remember(&self, headers: &HeaderMap, user: Option<&'static User>) -> io::Result<HeaderValue> {
        let name = random_hex()?;
        let mut browsers = self.browsers.lock();
        if let Some(old) = browser(headers) {
            browsers.remove(old);
        }
        if browsers.len() >= MAX_BROWSERS {
            browsers.clear();
        }
        browsers.insert(name.clone(), user);
        HeaderValue::try_from(format!("{COOKIE}={name}; Path=/; HttpOnly; SameSite=Strict")).map_err(io::Error::other)
    }

    /// What the host's backend signs: good from `from` for [`TOKEN_SECS`]. `more` goes over the user's own claims.
    fn token(&self, user: &User, from: u64, more: Value) -> io::Result<String> {
        let exp = from.saturating_add(TOKEN_SECS);
        let mut claims = json!({ "sub": user.id, "name": user.name, "email": user.email, "role": user.role, "iat": from, "exp": exp });
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        jwt(&self.settings.identity, &claims)
    }
}

/// Something that a demo cannot recover from; the page shows it.
struct Broken(io::Error);

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", self.0)).into_response()
    }
}

fn now() -> io::Result<UnixTime> {
    clock::read().map_err(|_| io::Error::other("the clock shows a time before 2020"))
}

/// The page. Whoever comes for the first time is Ada: a demo has nobody to ask for a password.
async fn page_of(State(host): State<Arc<Host>>, headers: HeaderMap) -> Result<Response, Broken> {
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    let known = browser(&headers).is_some_and(|name| host.browsers.lock().contains_key(name));
    let mut answer = (html, host.page.clone()).into_response();
    if !known {
        answer.headers_mut().insert(header::SET_COOKIE, host.remember(&headers, USERS.first())?);
    }
    Ok(answer)
}

async fn me(State(host): State<Arc<Host>>, headers: HeaderMap) -> Json<Value> {
    Json(shown(host.signed_in(&headers)))
}

fn shown(user: Option<&User>) -> Value {
    json!({ "user": user.map(|u| json!({ "key": u.key, "id": u.id, "name": u.name, "email": u.email, "role": u.role })) })
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

async fn sign_in(State(host): State<Arc<Host>>, headers: HeaderMap, Json(wanted): Json<SignIn>) -> Result<Response, Broken> {
    let Some(user) = USERS.iter().find(|u| u.key == wanted.user) else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let cookie = host.remember(&headers, Some(user))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(shown(Some(user)))).into_response())
}

async fn sign_out(State(host): State<Arc<Host>>, headers: HeaderMap) -> Result<Response, Broken> {
    let cookie = host.remember(&headers, None)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(shown(None))).into_response())
}

/// Signs who is signed in; nobody gets no token.
async fn identity_token(State(host): State<Arc<Host>>, headers: HeaderMap) -> Result<Json<Value>, Broken> {
    let now = now()?.secs();
    let token = host.signed_in(&headers).map(|user| host.token(user, now, json!({}))).transpose()?;
    Ok(Json(json!({ "token": token })))
}

/// The user has confirmed again who they are: a real host would have asked for a passkey just now.
async fn confirm(State(host): State<Arc<Host>>, headers: HeaderMap) -> Result<Json<Value>, Broken> {
    let now = now()?.secs();
    let proof = json!({ "amr": ["mfa"], "auth_time": now });
    let token = host.signed_in(&headers).map(|user| host.token(user, now, proof)).transpose()?;
    Ok(Json(json!({ "token": token })))
}

/// A token as it will be when its time is over.
async fn expired_token(State(host): State<Arc<Host>>, headers: HeaderMap) -> Result<Json<Value>, Broken> {
    let from = now()?.secs().saturating_sub(LONG_AGO_SECS);
    let token = host.signed_in(&headers).map(|user| host.token(user, from, json!({}))).transpose()?;
    Ok(Json(json!({ "token": token })))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const OWN: &str = "http://localhost:";

    struct Browser {
        url: String,
        cookie: String,
    }

    /// A page with a secret that would be recognised anywhere.
    async fn open() -> Browser {
        crate::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{OWN}{}", listener.local_addr().unwrap().port());
        let settings = Settings {
            origins: vec![url.clone()],
            gateway: "http://127.0.0.1:8080".to_owned(),
            embed_key: "pk_demo_0123456789abcdef".to_owned(),
            identity: KeyBytes::new(b"THE-SECRET-0123456789-THE-SECRET".to_vec()),
        };
        tokio::spawn(serve(listener, settings));
        Browser { url, cookie: String::new() }
    }

    impl Browser {
        /// Status and text; takes the cookie that comes.
        async fn ask(&mut self, method: &'static str, path: &str, headers: &[(&'static str, &str)], body: &'static str) -> (u16, String) {
            let (url, cookie) = (format!("{}{path}", self.url), self.cookie.clone());
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            let (status, set, text) = tokio::task::spawn_blocking(move || {
                let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
                let mut request =
                    http::Request::builder().method(method).uri(url).header("cookie", cookie).header("content-type", "application/json");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let mut answer = agent.run(request.body(body).unwrap()).unwrap();
                let set = answer.headers().get_all("set-cookie").iter().next().map(|v| v.to_str().unwrap().to_owned());
                (answer.status().as_u16(), set, answer.body_mut().read_to_string().unwrap())
            })
            .await
            .unwrap();
            if let Some(set) = set {
                assert!(set.ends_with("; HttpOnly; SameSite=Strict"), "{set}");
                self.cookie = set.split(';').next().unwrap().to_owned();
            }
            assert!(!text.contains("THE-SECRET"), "{path} shows the secret");
            (status, text)
        }

        async fn post(&mut self, path: &str, body: &'static str) -> Value {
            let own = self.url.clone();
            let (status, text) = self.ask("POST", path, &[("origin", &own)], body).await;
            assert_eq!(status, 200, "{path}: {text}");
            serde_json::from_str(&text).unwrap()
        }
    }

    fn claims(answer: &Value) -> Value {
        let payload = answer["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tokens_are_for_whoever_is_signed_in() {
        let mut browser = open().await;
        assert_eq!(browser.post("/host/identity-token", "{}").await, json!({ "token": null }), "nobody before the page");
        let (_, page) = browser.ask("GET", "/", &[], "").await;
        assert!(page.contains("http://127.0.0.1:8080/doorward.js") && page.contains("pk_demo_0123456789abcdef") && !page.contains("{{"));
        assert_eq!(claims(&browser.post("/host/identity-token", "{}").await)["sub"], "user_1815");
        let confirmed = claims(&browser.post("/host/confirm", "{}").await);
        assert_eq!((&confirmed["amr"], &confirmed["auth_time"]), (&json!(["mfa"]), &confirmed["iat"]));
        let now = clock::read().unwrap().secs();
        let expired = claims(&browser.post("/host/expired-token", "{}").await);
        assert!(expired["exp"].as_u64().unwrap() < now - 120, "{expired}");
        let before = browser.cookie.clone();
        browser.post("/host/sign-in", r#"{"user":"grace"}"#).await;
        assert_ne!(before, browser.cookie, "a sign-in has a cookie of its own");
        assert_eq!(claims(&browser.post("/host/identity-token", "{}").await)["name"], "Grace Hopper");
        let old = Browser { url: browser.url.clone(), cookie: before }.post("/host/identity-token", "{}").await;
        assert_eq!(old, json!({ "token": null }), "the old cookie is nobody's");
        browser.post("/host/sign-out", "{}").await;
        assert_eq!(browser.post("/host/identity-token", "{}").await, json!({ "token": null }));
        browser.ask("GET", "/", &[], "").await;
        assert_eq!(browser.ask("GET", "/host/me", &[], "").await.1, r#"{"user":null}"#, "a reload does not sign in again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_pages_and_other_names_get_nothing() {
        let mut browser = open().await;
        browser.ask("GET", "/", &[], "").await;
        for origin in [&[("origin", "http://evil.test")][..], &[], &[("origin", "null")]] {
            assert_eq!(browser.ask("POST", "/host/identity-token", origin, "{}").await.0, 403, "{origin:?}");
        }
        assert_eq!(browser.ask("GET", "/host/me", &[("host", "evil.test")], "").await.0, 403);
        let own = browser.url.clone();
        assert_eq!(browser.ask("POST", "/host/sign-in", &[("origin", &own)], r#"{"user":"root"}"#).await.0, 404);
    }
}
