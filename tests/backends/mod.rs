//! The vectors that every example for backends runs (`deploy/examples/vectors.json`): requests as the gateway signs them, and
//! copies with one thing changed each, with what a backend must say. `UPDATE_VECTORS=1 cargo test --test assertion` rewrites
//! them. Nonces, and what is signed over them, differ from run to run; all else is compared.

#![allow(clippy::indexing_slicing, clippy::string_slice)] // in a test a panic is the answer

mod bad;

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::admission::{self, Admitted, Body, Decision, Rules};
use doorward::assertion::{AssertionKey, AssertionSettings, KeyAlgorithm, Mapped, Scheme, Signer, Target};
use doorward::clock::UnixTime;
use doorward::demo::verify::{Received, Verified, Verifier};
use doorward::limits::meter::Meter;
use doorward::request::RequestHead;
use doorward::revocations::Revocations;
use doorward::secret::KeyBytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{ASSERTION_SECRET, BODY, EMBED_KEY, IDENTITY_SECRET, tenants};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/vectors.json");
const NOW: u64 = 1_800_000_000;

/// The file. Backends are configured with what stands before the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Vectors {
    about: Vec<String>,
    key_id: String,
    key_base64: String,
    audience: String,
    mapped: Vec<String>,
    requests: Vec<Vector>,
}

/// A request as a backend gets it, and what the backend must make of it: `accepted` or `refused`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    name: String,
    now: u64,
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body_base64: String,
    /// A backend that is configured with another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<Accepted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// What the backend reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Accepted {
    level: String,
    tenant: String,
    subject: Option<String>,
    claimed_subject: Option<String>,
    claims: Map<String, Value>,
}

/// How the gateway is asked to sign: what most vectors have in common.
#[derive(Clone)]
struct Ask<'a> {
    claims: Option<Value>,
    id: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    /// The body, and whether it was held.
    body: (&'a [u8], bool),
    every: bool,
    schemes: &'a [Scheme],
    key: (&'a str, &'a str),
    audience: &'a str,
    lifetime: u64,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            claims: None,
            id: None,
            method: "POST",
            path: "/chat",
            query: Some("a=1"),
            body: (BODY, true),
            every: false,
            schemes: &[Scheme::HttpMessageSignatures],
            key: ("a1", ASSERTION_SECRET),
            audience: "agent",
            lifetime: 30,
        }
    }
}

impl Ask<'_> {
    fn signed(&self, name: &str) -> Vector {
        let signer = Signer::new(AssertionSettings {
            schemes: self.schemes.to_vec(),
            audience: self.audience.to_owned(),
            issuer: "doorward".to_owned(),
            lifetime_secs: self.lifetime,
            keys: vec![AssertionKey {
                id: self.key.0.to_owned(),
                algorithm: KeyAlgorithm::Hs256,
                material: KeyBytes::new(self.key.1.as_bytes()),
            }],
            mapped: vec![(HeaderName::from_static("x-user-email"), Mapped::Claim("email".to_owned()))],
            elsewhere: Vec::new(),
            removed: Vec::new(),
        })
        .unwrap();
        let now = UnixTime::from_secs(NOW);
        let (bytes, held) = self.body;
        let target =
            Target { method: self.method, path: self.path, query: self.query, body: held.then_some(bytes), request_id: "0123abcd" };
        let who = self.admitted(now);
        let signed = if self.every { signer.sign_every(&who, &target, now) } else { signer.sign(&who, &target, now) }.unwrap();
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        headers.extend(signed.fields().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())));
        Vector {
            name: name.to_owned(),
            now: NOW,
            method: self.method.to_owned(),
            path: self.path.to_owned(),
            query: self.query.map(str::to_owned),
            headers,
            body_base64: STANDARD.encode(bytes),
            key_base64: None,
            accepted: None,
            refused: None,
        }
    }

    fn admitted(&self, now: UnixTime) -> Admitted {
        let mut request =
            Request::post("/chat").header("host", "gw").header("origin", "https://app.example.com").header("x-embed-key", EMBED_KEY);
        if let Some(claims) = &self.claims {
            let key = EncodingKey::from_secret(IDENTITY_SECRET.as_bytes());
            let token = jsonwebtoken::encode(&Header::default(), claims, &key).unwrap();
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(id) = self.id {
            request = request.header("x-user-id", id);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let (tenants, revocations, meter) = (tenants(), Revocations::default(), Meter::unlimited());
        let rules = Rules { tenants: &tenants, revocations: &revocations, sessions: &Default::default(), meter: &meter, request_id: "r" };
        match admission::decide(&RequestHead::parse(&parts).unwrap(), Body::NotRead, rules, now) {
            Decision::Forward(admitted) => admitted,
            other => panic!("{other:?}"),
        }
    }
}

impl Vector {
    fn accepted(mut self, level: &str, subject: Option<&str>, claims: Value) -> Self {
        let Value::Object(claims) = claims else { panic!("{claims}") };
        let subject = subject.map(str::to_owned);
        self.accepted = Some(Accepted { level: level.to_owned(), tenant: "acme".to_owned(), subject, claimed_subject: None, claims });
        self
    }

    fn refused(mut self, why: &str) -> Self {
        (self.accepted, self.refused) = (None, Some(why.to_owned()));
        self
    }

    /// A copy with one thing changed.
    fn but(&self, name: &str, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = Self { name: name.to_owned(), ..self.clone() };
        change(&mut changed);
        changed
    }

    fn header(&mut self, name: &str) -> &mut String {
        &mut self.headers.iter_mut().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| n != name);
    }

    fn body(&mut self, body: &[u8]) {
        self.body_base64 = STANDARD.encode(body);
    }

    /// What does not differ from run to run.
    fn settled(&self) -> Self {
        let mut settled = self.clone();
        for (name, value) in &mut settled.headers {
            match name.to_ascii_lowercase().as_str() {
                "x-identity-assertion" => "*".clone_into(value),
                "signature" => *value = without_mac(value),
                "signature-input" => *value = masked(value, "nonce=\"", "\""),
                _ => {}
            }
        }
        settled
    }
}

/// Replaces what stands between `start` and the next `end` by its length.
fn masked(text: &str, start: &str, end: &str) -> String {
    let mut pieces = text.split(start);
    let mut masked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let length = piece.find(end).unwrap_or(piece.len());
        masked.push_str(&format!("{start}{length}{}", &piece[length..]));
    }
    masked
}

/// Replaces a MAC by its length.
fn without_mac(text: &str) -> String {
    let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    let settled = text.split_inclusive(|c| !is_digit(c)).map(|piece| {
        let digits = piece.trim_end_matches(|c| !is_digit(c));
        if digits.len() > 40 { piece.replace(digits, &digits.len().to_string()) } else { piece.to_owned() }
    });
    settled.collect()
}

/// The claims of `user_123`'s token, and those that the backend is told.
fn user(more: Value) -> (Option<Value>, Value) {
    let (mut token, Value::Object(more)) = (json!({ "sub": "user_123", "exp": NOW + 60 }), more) else { unreachable!() };
    let mut told = json!({ "sub": "user_123" });
    for (name, value) in more {
        token[&name] = value.clone();
        told[&name] = value;
    }
    (Some(token), told)
}

/// What the gateway signs, as it comes.
fn good() -> Vec<Vector> {
    let nobody = Ask::default();
    let (claims, told) = user(json!({ "email": "ann@example.com", "plan": "pro" }));
    let ann = Ask { claims, ..Ask::default() };
    let ann_is = |vector: Vector| vector.accepted("verified", Some("user_123"), told.clone());
    let mut all = vec![
        Ask { method: "GET", query: None, body: (b"", false), ..nobody.clone() }.signed("nobody").accepted("anonymous", None, json!({})),
        nobody.signed("nobody, with a body that was held").accepted("anonymous", None, json!({})),
        ann_is(ann.signed("a verified user")),
        ann_is(Ask { query: None, ..ann.clone() }.signed("no query")),
        ann_is(Ask { query: Some(""), ..ann.clone() }.signed("an empty query")),
        ann_is(Ask { query: Some("a=%20b&c&a=?%FF+/"), ..ann.clone() }.signed("a query as it was sent")),
        ann_is(Ask { path: "/caf%C3%A9/%FF/a%2Fb/", ..ann.clone() }.signed("a path as it was sent")),
        ann_is(Ask { method: "DELETE", ..ann.clone() }.signed("another method, which was signed")),
        ann_is(Ask { body: (b"", true), ..ann.clone() }.signed("an empty body that was held")),
        ann_is(Ask { body: (b"\x00\xFF\xFE\r\n", true), ..ann.clone() }.signed("a body that is no text")),
        ann_is(Ask { body: (b"streamed", false), ..ann.clone() }.signed("a body that was not held is not covered")),
        ann_is(Ask { lifetime: 60, ..ann.clone() }.signed("the longest life")),
        ann_is(Ask { every: true, ..ann.clone() }.signed("every name, as behind forward-auth")),
        Ask { every: true, ..nobody.clone() }.signed("every name, and nobody").accepted("anonymous", None, json!({})),
        ann_is(Ask { schemes: &[Scheme::Jwt, Scheme::HttpMessageSignatures], ..ann.clone() }.signed("beside a JWT")),
    ];
    all.push(ann_is(all[2].but("at the last second, and the clocks differ", |v| v.now += 35)));
    all.push(ann_is(all[2].but("in the first second, and the clocks differ", |v| v.now -= 5)));
    all.push(ann_is(all[2].but("names in capitals", |v| v.headers.iter_mut().for_each(|(n, _)| n.make_ascii_uppercase()))));
    all.push(ann_is(all[2].but("headers that say nothing about identity", |v| {
        for (name, value) in [("x-other", "victim"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-ident", "1")] {
            v.add(name, value);
        }
    })));
    all.push(ann_is(all[10].but("a digest of the client's own, which was not signed", |v| v.add("content-digest", "sha-256=:AAAA:"))));

    for id in ["user 123%", "ann@example.com"] {
        let mut claimed = Ask { id: Some(id), ..nobody.clone() }.signed("an id that nobody signed").accepted("claimed", None, json!({}));
        claimed.accepted.as_mut().unwrap().claimed_subject = Some(id.to_owned());
        claimed.name = format!("an id that nobody signed: {id}");
        all.push(claimed);
    }
    for subject in ["Ada Lövelace", "100% 🦀\n\"x\"", "42"] {
        let claims = json!({ "sub": subject, "exp": NOW + 60 });
        let ask = Ask { claims: Some(claims), ..nobody.clone() };
        all.push(ask.signed(&format!("a subject that is encoded: {subject:?}")).accepted(
            "verified",
            Some(subject),
            json!({ "sub": subject }),
        ));
    }
    let (claims, told) = user(json!({
        "email": "Zoë <zoë@example.com>", "n": [1, -2, 0.5], "yes": true, "none": null, "deep": { "a": { "b": ["ü", "/", "\u{0}"] } }
    }));
    all.push(Ask { claims, ..nobody.clone() }.signed("claims of every kind").accepted("verified", Some("user_123"), told));
    let (claims, told) = user(json!({ "amr": ["mfa"], "auth_time": NOW - 10 }));
    all.push(Ask { claims, ..nobody }.signed("stepped up").accepted("stepped_up", Some("user_123"), told));
    all
}

fn made() -> Vectors {
    let mut requests = good();
    requests.extend(bad::all(&requests));
    let about = [
        "Made by the gateway's own code (tests/backends), one request a line; UPDATE_VECTORS=1 cargo test --test assertion rewrites them.",
        "A backend with this key id, key, audience and mapped names, at the time `now` (Unix seconds), accepts a request and reads",
        "what `accepted` says, or refuses it for what `refused` says. Header values hold one byte a character.",
    ];
    Vectors {
        about: about.map(str::to_owned).to_vec(),
        key_id: "a1".to_owned(),
        key_base64: STANDARD.encode(ASSERTION_SECRET),
        audience: "agent".to_owned(),
        mapped: vec!["X-User-Email".to_owned()],
        requests,
    }
}

/// The file, rewritten first where that is asked for.
fn stored() -> &'static Vectors {
    static STORED: OnceLock<Vectors> = OnceLock::new();
    STORED.get_or_init(|| {
        if std::env::var_os("UPDATE_VECTORS").is_some_and(|v| v == "1") {
            std::fs::write(FILE, written(&made())).unwrap();
        }
        serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
    })
}

/// One request a line.
fn written(vectors: &Vectors) -> String {
    let head = serde_json::to_string_pretty(&vectors.head()).unwrap();
    let lines: Vec<_> = vectors.requests.iter().map(|v| format!("    {}", serde_json::to_string(v).unwrap())).collect();
    format!("{}[\n{}\n  ]\n}}\n", head.strip_suffix("[]\n}").unwrap(), lines.join(",\n"))
}

impl Vectors {
    /// All but the requests.
    fn head(&self) -> Self {
        Self { requests: Vec::new(), ..self.clone() }
    }
}

#[test]
fn the_vectors_are_what_the_gateway_signs() {
    let (made, stored) = (made(), stored());
    let names: Vec<_> = made.requests.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, stored.requests.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), "UPDATE_VECTORS=1 rewrites {FILE}");
    for (made, stored) in made.requests.iter().zip(&stored.requests) {
        assert_eq!(made.settled(), stored.settled(), "{}: UPDATE_VECTORS=1 rewrites {FILE}", made.name);
    }
    assert_eq!(made.head(), stored.head(), "UPDATE_VECTORS=1 rewrites {FILE}");
    names.iter().enumerate().for_each(|(at, name)| assert!(!names[..at].contains(name), "two vectors are called {name}"));
}

/// The reference reads from each what its vector says, so that no vector can be satisfied by refusing everything.
#[test]
fn the_reference_agrees_with_the_vectors() {
    let vectors = stored();
    for vector in &vectors.requests {
        let told = reference(vectors, vector);
        match &vector.accepted {
            Some(accepted) => assert_eq!(told.as_ref(), Ok(accepted), "{}", vector.name),
            None => assert!(told.is_err() && vector.refused.is_some(), "{}: {told:?}", vector.name),
        }
    }
}

fn reference(vectors: &Vectors, vector: &Vector) -> Result<Accepted, String> {
    let key = STANDARD.decode(vector.key_base64.as_ref().unwrap_or(&vectors.key_base64)).unwrap();
    let mapped = vectors.mapped.iter().map(|name| name.parse().unwrap()).collect();
    let verifier = Verifier::new(&vectors.key_id, &KeyBytes::new(key), &vectors.audience).ok_or("no key")?.reading(mapped);
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.headers {
        let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(c).unwrap()).collect();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(&bytes).unwrap());
    }
    let body = STANDARD.decode(&vector.body_base64).unwrap();
    let received = Received { method: &vector.method, path: &vector.path, query: vector.query.as_deref(), headers: &headers, body: &body };
    let told = verifier.verify(&received, UnixTime::from_secs(vector.now)).map_err(|why| why.0.to_owned())?;
    let Verified { level, tenant, subject, claimed_subject, claims, .. } = told;
    Ok(Accepted { level: level.as_str().to_owned(), tenant, subject, claimed_subject, claims })
}
