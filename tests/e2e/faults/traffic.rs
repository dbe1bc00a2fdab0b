//! Good and bad requests of every kind, each with what must come of it: by the decision table, written by hand, for tenants of
//! several presets and modes.

use std::net::SocketAddr;

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::json;

use crate::gateway::{KEY, ORIGIN, in_seconds, jwt_with};

/// A configuration for these tenants on `upstream`, with a TLS listener beside the plain one. `mode` is the tenant's `flip`.
pub fn config(upstream: SocketAddr, mode: &str, comment: &str) -> String {
    format!(
        r#"# {comment}
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
threads = 2
drain_delay = "0s"
limits = {{ keepalive_requests = 100000 }}

[[server.listener]]
address = "127.0.0.1:0"
[server.listener.tls]
certificates = [{{ certificate = "a.pem", key = "a.key" }}]

[upstream]
address = "{upstream}"
connect_timeout = "5s"
read_timeout = "20s"

[assertion]
audience = "agent"
keys = [{{ id = "a1", file = "assertion.key" }}]

[session]
keys = [{{ id = "n1", file = "session.key" }}]
lifetime = "1h"

[[tenant]]
id = "halo"
preset = "halo"
embed_keys = ["ab_live_halo_0123456789"]
origins = ["https://halo.example.com"]
secrets = [{{ id = "h1", file = "halo.key" }}]

[[tenant]]
id = "acme"
preset = "halo"
embed_keys = ["{KEY}"]
origins = ["{ORIGIN}"]
secrets = [{{ id = "s1", file = "identity.key" }}]

[[tenant]]
id = "monitor"
mode = "monitor"
embed_keys = ["pk_live_monitor_0123456789"]
origins = ["https://monitor.example.com"]
secrets = [{{ id = "m1", file = "monitor.key", format = "jwt" }}]

[[tenant]]
id = "off"
mode = "off"
embed_keys = ["pk_live_off_0123456789"]
origins = ["https://off.example.com"]
secrets = [{{ id = "o1", file = "off.key", format = "jwt" }}]

[[tenant]]
id = "karta"
preset = "karta"
embed_keys = ["pk_live_karta_0123456789"]
origins = ["https://karta.example.com"]
names = ["org/agent"]
secrets = [{{ id = "k1", file = "karta.key", format = "hmac" }}]

[[tenant]]
id = "users"
audience = "users"
embed_keys = ["pk_live_users_0123456789"]
origins = ["https://users.example.com", "https://*.preview.example.com"]
secrets = [{{ id = "u1", file = "users.key", format = "jwt" }}]
claims.step_up = [{{ claim = "amr", values = ["mfa"] }}]
[[tenant.route]]
path = "/admin/*"
require = "verified"
require_claims = {{ role = ["admin"] }}
[[tenant.route]]
path = "/approvals/*"
require = "stepped_up"

[[tenant]]
id = "trust"
preset = "agentic-trust-hmac"
embed_keys = ["lum_pk_trust_0123456789"]
origins = ["https://trust.example.com"]
secrets = [{{ id = "t1", file = "trust.key" }}]

[[tenant]]
id = "flip"
mode = "{mode}"
embed_keys = ["pk_live_flip_0123456789"]
origins = ["https://flip.example.com"]
secrets = [{{ id = "f1", file = "flip.key", format = "jwt" }}]
"#
    )
}

/// The files beside it.
pub fn files() -> Vec<(String, String)> {
    let secret = |tenant: &str| (format!("{tenant}.key"), secret(tenant));
    let mut files: Vec<_> = ["halo", "monitor", "off", "karta", "users", "trust", "flip"].into_iter().map(secret).collect();
    files.push(("session.key".to_owned(), "session_key_0123456789abcdef0123".to_owned()));
    files
}

fn secret(tenant: &str) -> String {
    format!("{tenant}_secret_0123456789abcdef0123456789")
}

/// A request, and what must come of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub want: Want,
    /// Whose session it asks for.
    mints: String,
}

/// What must come of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Forwarded, and the agent was told exactly this.
    Told { tenant: &'static str, level: &'static str, subject: String, claimed: String },
    /// Stopped.
    Denied(u16, &'static str),
    /// Answered by the gateway.
    Answered(u16),
    /// One of these, as the configuration that is in force says.
    Either(Box<[Want; 2]>),
}

/// Writes cases.
pub struct Author {
    rng: SmallRng,
    /// Makes subjects different between authors.
    name: String,
    count: u64,
    /// Sessions of `karta` and their subjects.
    sessions: Vec<(String, String)>,
}

/// How many sessions an author asks for.
const SESSIONS: usize = 8;
const MINT: &str = "mint";

impl Author {
    pub fn new(nth: u64) -> Self {
        Self { rng: rand::SeedableRng::seed_from_u64(nth), name: format!("w{nth}"), count: 0, sessions: Vec::new() }
    }

    /// A subject that nobody else has.
    fn subject(&mut self) -> String {
        self.count += 1;
        format!("{}_{}", self.name, self.count)
    }

    /// The next request: for sessions first.
    pub fn next(&mut self) -> Case {
        let subject = self.subject();
        if self.sessions.len() < SESSIONS {
            return mint(&subject);
        }
        let (session, whose) = self.sessions[self.rng.random_range(0..SESSIONS)].clone();
        let pick = self.rng.random_range(0..36);
        let size = self.rng.random_range(1..40_000);
        case(pick, &subject, (&session, &whose), size)
    }

    /// Keeps the session that an answer to [`Case`] brought, if it did.
    pub fn keep(&mut self, case: &Case, body: &[u8]) {
        let token = || serde_json::from_slice::<serde_json::Value>(body).ok()?["token"].as_str().map(str::to_owned);
        if case.name == MINT
            && let Some(token) = token()
        {
            self.sessions.push((token, case.mints.clone()));
        }
    }
}

fn token(tenant: &str, claims: &serde_json::Value) -> String {
    jwt_with(&secret(tenant), claims)
}

/// A good token of a tenant whose subjects stand in `sub`.
fn good(tenant: &str, subject: &str) -> String {
    token(tenant, &json!({ "sub": subject, "exp": in_seconds(600) }))
}

const KEYS: [(&str, &str, &str); 7] = [
    ("halo", "ab_live_halo_0123456789", "https://halo.example.com"),
    ("monitor", "pk_live_monitor_0123456789", "https://monitor.example.com"),
    ("off", "pk_live_off_0123456789", "https://off.example.com"),
    ("karta", "pk_live_karta_0123456789", "https://karta.example.com"),
    ("users", "pk_live_users_0123456789", "https://users.example.com"),
    ("trust", "lum_pk_trust_0123456789", "https://trust.example.com"),
    ("flip", "pk_live_flip_0123456789", "https://flip.example.com"),
];

fn ask(name: &'static str, tenant: &'static str, subject: &str, more: &[(&'static str, &str)], want: Want) -> Case {
    let (_, key, origin) = KEYS.iter().find(|(id, ..)| *id == tenant).expect("a tenant");
    let header = if tenant == "trust" { "x-api-key" } else { "x-embed-key" };
    let mut headers = vec![(header, (*key).to_owned()), ("origin", (*origin).to_owned())];
    for (name, value) in more {
        headers.retain(|(present, _)| present != name);
        headers.push((name, (*value).to_owned()));
    }
    Case { name, method: "GET", target: format!("/ask/{subject}?q={subject}"), headers, body: Vec::new(), want, mints: String::new() }
}

fn told(tenant: &'static str, level: &'static str, subject: &str) -> Want {
    let (subject, claimed) = if level == "claimed" { ("", subject) } else { (subject, "") };
    Want::Told { tenant, level, subject: subject.to_owned(), claimed: claimed.to_owned() }
}

/// One of many. What is wanted stands beside it.
#[allow(clippy::too_many_lines)] // a table
fn case(pick: u32, me: &str, (session, whose): (&str, &str), size: usize) -> Case {
    use Want::{Answered, Denied, Either};
    let bearer = |token: String| format!("Bearer {token}");
    let halo = |subject: &str, seconds: i64| token("halo", &json!({ "user_id": subject, "exp": in_seconds(seconds) }));
    let chat = |case: Case, body: serde_json::Value| Case {
        method: "POST",
        target: "/api/sdk/chat".to_owned(),
        body: body.to_string().into_bytes(),
        ..case
    };
    match pick {
        0 => ask("good", "halo", me, &[("authorization", &bearer(halo(me, 600)))], told("halo", "verified", me)),
        1 => ask("good in its own header", "halo", me, &[("x-user-token", &halo(me, 600))], told("halo", "verified", me)),
        2 => ask("nothing", "halo", me, &[], told("halo", "anonymous", "")),
        3 => chat(
            ask("good in a body", "halo", me, &[], told("halo", "verified", me)),
            json!({ "user_token": halo(me, 600), "user_id": me, "message": "x".repeat(size) }),
        ),
        4 => chat(
            ask("a body about somebody else", "halo", me, &[], Denied(403, "subject_mismatch")),
            json!({ "user_token": halo(me, 600), "user_id": "victim", "message": "x".repeat(size) }),
        ),
        5 => Case {
            body: b"{\"user_id\":\"a\",\"user_id\":\"b\"}".to_vec(),
            ..chat(ask("a body with two readings", "halo", me, &[], Denied(400, "body_ambiguous")), json!({}))
        },
        6 => {
            Case { body: b"{\"user_id\":".to_vec(), ..chat(ask("half a body", "halo", me, &[], Denied(400, "body_malformed")), json!({})) }
        }
        7 => ask(
            "forged",
            "halo",
            me,
            &[("authorization", &bearer(token("off", &json!({ "user_id": me, "exp": in_seconds(600) }))))],
            Denied(403, "token_signature_invalid"),
        ),
        8 => ask("another tenant's", "halo", me, &[("authorization", &bearer(good("users", me)))], Denied(403, "token_signature_invalid")),
        9 => ask("expired", "halo", me, &[("authorization", &bearer(halo(me, -600)))], Denied(403, "token_expired")),
        10 => ask("no token", "halo", me, &[("x-user-token", "undefined")], Denied(403, "token_malformed")),
        11 => ask("an id and no token", "halo", me, &[("x-user-id", me)], Denied(403, "token_missing")),
        12 => ask(
            "spoofed headers",
            "halo",
            me,
            &[("x-identity-subject", "victim"), ("x-identity-level", "verified"), ("signature", "sig=:aaaa:")],
            told("halo", "anonymous", ""),
        ),
        13 => ask(
            "spoofed headers and a token",
            "halo",
            me,
            &[("x-identity-subject", "victim"), ("authorization", &bearer(halo(me, 600)))],
            told("halo", "verified", me),
        ),
        14 => ask("another tenant's origin", "halo", me, &[("origin", "https://users.example.com")], Denied(403, "origin_not_allowed")),
        15 => ask("a key that nobody has", "halo", me, &[("x-embed-key", "ab_live_nobody_0123456789")], Denied(403, "embed_key_unknown")),
        16 => Case { method: "OPTIONS", ..ask("preflight", "halo", me, &[("access-control-request-method", "POST")], Answered(204)) },
        17 => ask("good", "monitor", me, &[("x-user-token", &good("monitor", me))], told("monitor", "verified", me)),
        18 => ask("forged", "monitor", me, &[("x-user-token", &good("users", me))], told("monitor", "anonymous", "")),
        19 => ask(
            "forged, with an id",
            "monitor",
            me,
            &[("x-user-token", &good("users", me)), ("x-user-id", me)],
            told("monitor", "claimed", me),
        ),
        20 => ask("good", "off", me, &[("x-user-token", &good("off", me))], told("off", "anonymous", "")),
        21 => ask("an id", "off", me, &[("x-user-id", me)], told("off", "claimed", me)),
        22 => ask("nothing", "users", me, &[], Denied(401, "token_missing")),
        23 => ask(
            "good, of another origin",
            "users",
            me,
            &[("x-user-token", &good("users", me)), ("origin", "https://a.preview.example.com")],
            told("users", "verified", me),
        ),
        24 => ask(
            "an origin too deep",
            "users",
            me,
            &[("x-user-token", &good("users", me)), ("origin", "https://a.b.preview.example.com")],
            Denied(403, "origin_not_allowed"),
        ),
        25 => {
            let token = token("users", &json!({ "sub": me, "exp": in_seconds(600), "role": "admin" }));
            Case {
                target: format!("/admin/{me}"),
                ..ask("an admin", "users", me, &[("x-user-token", &token)], told("users", "verified", me))
            }
        }
        26 => Case {
            target: format!("/ADMIN/{me}"),
            ..ask("no admin", "users", me, &[("x-user-token", &good("users", me))], Denied(403, "claim_not_allowed"))
        },
        27 => {
            let token = token("users", &json!({ "sub": me, "exp": in_seconds(600), "amr": "mfa", "auth_time": in_seconds(-5) }));
            Case {
                target: format!("/approvals/{me}"),
                ..ask("stepped up", "users", me, &[("x-user-token", &token)], told("users", "stepped_up", me))
            }
        }
        28 => Case {
            target: format!("/approvals/{me}"),
            ..ask("not stepped up", "users", me, &[("x-user-token", &good("users", me))], Denied(401, "step_up_required"))
        },
        29 => ask("a session", "karta", me, &[("authorization", &bearer(session.to_owned()))], told("karta", "verified", whose)),
        30 => {
            let forged = format!("{}AAAAAA", &session[..session.len() - 6]);
            ask("a forged session", "karta", me, &[("authorization", &bearer(forged))], Denied(401, "session_invalid"))
        }
        31 => ask(
            "an hmac",
            "karta",
            me,
            &[("x-user-token", &doorward::token::mint::hmac(secret("karta").as_bytes(), me)), ("x-user-id", me)],
            told("karta", "verified", me),
        ),
        32 => ask(
            "an hmac of somebody else",
            "karta",
            me,
            &[("x-user-token", &doorward::token::mint::hmac(secret("karta").as_bytes(), me)), ("x-user-id", "victim")],
            Denied(401, "token_signature_invalid"),
        ),
        33 => ask("an id alone", "karta", me, &[("x-user-id", me)], told("karta", "claimed", me)),
        34 => {
            let forged = doorward::token::mint::hmac(b"another_secret_0123456789abcdef0123", me);
            let body = json!({ "userId": me, "hmac": forged }).to_string().into_bytes();
            Case {
                method: "POST",
                target: "/identity/verify".to_owned(),
                body,
                ..ask("a forged hmac", "trust", me, &[], Denied(401, "token_signature_invalid"))
            }
        }
        _ => {
            let either = Either(Box::new([told("flip", "anonymous", ""), Denied(401, "token_signature_invalid")]));
            ask("forged, while the mode changes", "flip", me, &[("x-user-token", &good("users", me))], either)
        }
    }
}

/// A request for a session of `karta`.
fn mint(subject: &str) -> Case {
    let hmac = doorward::token::mint::hmac(secret("karta").as_bytes(), subject);
    let body = json!({ "embed_key": KEYS[3].1, "user_id": subject, "identity_token": hmac }).to_string().into_bytes();
    let case = ask(MINT, "karta", subject, &[], Want::Answered(200));
    Case { method: "POST", target: "/v1/embed/session-tokens".to_owned(), body, mints: subject.to_owned(), ..case }
}
