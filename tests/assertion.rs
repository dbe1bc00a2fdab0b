//! What [`Signer`] signs for real decisions, judged by verifiers that nobody here wrote, by our examples for backends, and
//! by the demo's agent over a socket. Every request is also judged with one thing changed, whatever it is. `backends` makes the
//! vectors that the examples share.

#![allow(clippy::panic, clippy::unwrap_used)] // in a test a panic is the answer

mod backends;
mod verifiers;

use std::sync::Arc;
use std::time::Duration;

use doorward::admission::{self, Admitted, Body, Decision, Rules};
use doorward::assertion::{AssertionKey, AssertionSettings, KeyAlgorithm, Mapped, Scheme, Signer, Target};
use doorward::clock::{self, UnixTime};
use doorward::demo::{agent, verify};
use doorward::limits::meter::Meter;
use doorward::policy::{Audience, Mode, Policy, UpstreamId};
use doorward::request::RequestHead;
use doorward::request::embed_key::EmbedKey;
use doorward::request::origin::OriginRule;
use doorward::revocations::Revocations;
use doorward::secret::KeyBytes;
use doorward::tenant::{Place, Places, Tenant, Tenants};
use doorward::token::FormatName;
use doorward::token::claims::{ClaimRules, StepUpClaim};
use doorward::token::keys::{IdentityKey, KeyRing};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use verifiers::{Captured, Verifier, assert_bound, changes, covered, verify_all};

const ASSERTION_SECRET: &str = "assertion_secret_0123456789abcdef";
const IDENTITY_SECRET: &str = "test_secret_0123456789abcdef0123";
const EMBED_KEY: &str = "pk_live_0123456789abcdef";
const P256: &str = include_str!("verifiers/p256.pem");
const ED25519: &str = include_str!("verifiers/ed25519.pem");
const BODY: &[u8] = b"{\"message\":\"hi\"}";

/// Who calls, by what the request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    Claimed,
    Verified,
}

fn tenants() -> Tenants {
    let header = |name: &'static str| Place::Header(HeaderName::from_static(name));
    let key = IdentityKey::secret("s1", &KeyBytes::new(IDENTITY_SECRET.as_bytes()), vec![FormatName::Jwt], Algorithm::HS256);
    let step_up = StepUpClaim { claim: "amr".to_owned(), values: vec!["mfa".to_owned()], time_claim: "auth_time".to_owned() };
    let tenant = Tenant {
        id: "acme".to_owned(),
        source: None,
        preset: "none".to_owned(),
        mode: Mode::Enforce,
        names: Vec::new(),
        embed_keys: vec![EmbedKey::parse(EMBED_KEY).unwrap()],
        origins: vec![OriginRule::parse("https://app.example.com").unwrap()],
        missing_origin: Default::default(),
        unsigned_id: doorward::tenant::UnsignedId::Claimed,
        on_expired: Default::default(),
        exempt_ids: Vec::new(),
        places: Places {
            embed_key: vec![header("x-embed-key")],
            token: Vec::new(),
            asserted_id: vec![header("x-user-id")],
            ..Places::default()
        },
        keys: KeyRing::new(vec![Arc::new(key)]),
        claims: ClaimRules { step_up: vec![step_up], ..ClaimRules::default() },
        policy: Policy {
            audience: Audience::Anyone,
            routes: Vec::new(),
            step_up_max_age: Duration::from_secs(300),
            upstream: UpstreamId::of("default"),
            ways: Vec::new(),
        },
        answers: Default::default(),
        cors: Default::default(),
        endpoints: Default::default(),
        sessions: Default::default(),
        streams: Default::default(),
        limits: Default::default(),
    };
    Tenants::new(vec![Arc::new(tenant)]).unwrap()
}

fn admitted(who: Who, now: UnixTime) -> Admitted {
    let mut request =
        Request::post("/chat").header("host", "gw").header("origin", "https://app.example.com").header("x-embed-key", EMBED_KEY);
    match who {
        Who::Anonymous => {}
        Who::Claimed => request = request.header("x-user-id", "user 123%"),
        Who::Verified => {
            let claims = json!({ "sub": "Ada Lövelace", "email": "ada@example.com", "exp": now.secs() + 60 });
            let token = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(IDENTITY_SECRET.as_bytes())).unwrap();
            request = request.header("authorization", format!("Bearer {token}"));
        }
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let (tenants, revocations) = (tenants(), Revocations::default());
    let meter = Meter::unlimited();
    let rules = Rules { tenants: &tenants, revocations: &revocations, sessions: &Default::default(), meter: &meter, request_id: "r" };
    match admission::decide(&RequestHead::parse(&parts).unwrap(), Body::NotRead, rules, now) {
        Decision::Forward(admitted) => admitted,
        other => panic!("{who:?}: {other:?}"),
    }
}

fn signer(schemes: &[Scheme], algorithm: KeyAlgorithm, material: &str) -> Signer {
    Signer::new(AssertionSettings {
        schemes: schemes.to_vec(),
        audience: "agent".to_owned(),
        issuer: "doorward".to_owned(),
        lifetime_secs: 30,
        keys: vec![AssertionKey { id: "a1".to_owned(), algorithm, material: KeyBytes::new(material.as_bytes()) }],
        mapped: vec![(HeaderName::from_static("x-user-email"), Mapped::Claim("email".to_owned()))],
        elsewhere: Vec::new(),
        removed: Vec::new(),
    })
    .unwrap()
}

/// What an upstream gets from this signer, beside what the client sent.
fn captured(signer: &Signer, who: Who, query: Option<&str>, body: Option<&[u8]>, algorithm: &str) -> Captured {
    let now = clock::read().unwrap();
    let target = Target { method: "POST", path: "/caf%C3%A9/chat", query, body, request_id: "0123abcd" };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-identity-subject", HeaderValue::from_static("victim"));
    headers.insert("signature-input", HeaderValue::from_static("evil=()"));
    signer.sign(&admitted(who, now), &target, now).unwrap().apply(signer.reserved(), &mut headers);
    let jwks = json!({ "keys": signer.published().collect::<Vec<_>>() });
    Captured {
        method: "POST".to_owned(),
        target: format!("/caf%C3%A9/chat{}", query.map(|q| format!("?{q}")).unwrap_or_default()),
        host: "127.0.0.1:3000".to_owned(),
        headers: headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect(),
        body_b64: String::new(),
        key_id: "a1".to_owned(),
        key_b64: None,
        jwks: (jwks != json!({ "keys": [] })).then_some(jwks),
        algorithm: algorithm.to_owned(),
    }
    .with_body(body.unwrap_or_default())
    .with_secret(ASSERTION_SECRET.as_bytes())
}

#[test]
fn message_signatures_hold_elsewhere_and_any_change_breaks_them() {
    let signer = signer(&[Scheme::HttpMessageSignatures], KeyAlgorithm::Hs256, ASSERTION_SECRET);
    for (who, query, body) in [
        (Who::Anonymous, None, None),
        (Who::Claimed, Some("a=1&b=%20"), None),
        (Who::Verified, Some("a=1"), Some(BODY)),
        (Who::Verified, Some(""), Some(&b""[..])),
    ] {
        let request = captured(&signer, who, query, body, "HS256");
        let mut changed = changes(&request, &covered(&request));
        // RFC 9421 §2.2.7: an empty query and none are the same.
        changed.retain(|(what, _)| !(what == "no query" && query == Some("")));
        if body.is_some() {
            changed.push(("another body".to_owned(), request.clone().with_body(b"{\"message\":\"ho\"}")));
        }
        changed.push(("another secret".to_owned(), request.clone().with_secret(b"another_secret_0123456789abcdefgh")));
        assert_bound(&Verifier::SIGNATURES, &request, &changed);
    }
}

/// What an ingress sets one by one holds elsewhere, empty headers and all; no value can take the place of an empty one.
#[test]
fn empty_headers_hold_elsewhere_and_any_change_breaks_them() {
    let signer = signer(&[Scheme::HttpMessageSignatures], KeyAlgorithm::Hs256, ASSERTION_SECRET);
    for (who, empty) in [(Who::Anonymous, 10), (Who::Claimed, 9), (Who::Verified, 6)] {
        let now = clock::read().unwrap();
        let target = Target { method: "POST", path: "/caf%C3%A9/chat", query: None, body: None, request_id: "0123abcd" };
        let signed = signer.sign_every(&admitted(who, now), &target, now).unwrap();
        let headers = signed.fields().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        let request = Captured { headers, ..captured(&signer, who, None, None, "HS256") };
        let mut changed = changes(&request, &covered(&request));
        let empties: Vec<_> = request.headers.iter().enumerate().filter(|(_, (_, value))| value.is_empty()).collect();
        assert_eq!(empties.len(), empty, "{who:?}: {:?}", request.headers);
        for (index, (name, _)) in empties {
            let mut filled = request.clone();
            filled.headers[index].1 = "victim".to_owned();
            changed.push((format!("{name}: victim"), filled));
        }
        assert_bound(&Verifier::SIGNATURES, &request, &changed);
    }
}

#[test]
fn both_schemes_hold_together() {
    let signer = signer(&[Scheme::Jwt, Scheme::HttpMessageSignatures], KeyAlgorithm::Hs256, ASSERTION_SECRET);
    let request = captured(&signer, Who::Verified, Some("a=1"), Some(BODY), "HS256");
    assert!(covered(&request).contains(&"x-identity-assertion".to_owned()));
    for verifier in Verifier::SIGNATURES.into_iter().chain(Verifier::JWTS) {
        assert_eq!(verifiers::verify(verifier, &request), Ok(()), "{verifier:?}");
    }
}

#[test]
fn jwts_hold_elsewhere_and_any_change_breaks_them() {
    for (algorithm, name, material) in
        [(KeyAlgorithm::Hs256, "HS256", ASSERTION_SECRET), (KeyAlgorithm::Es256, "ES256", P256), (KeyAlgorithm::EdDsa, "EdDSA", ED25519)]
    {
        let signer = signer(&[Scheme::Jwt], algorithm, material);
        for who in [Who::Anonymous, Who::Claimed, Who::Verified] {
            let request = captured(&signer, who, Some("a=1"), None, name);
            let names = ["x-identity-assertion", "x-identity-request-id"].map(str::to_owned);
            let mut changed = changes(&request, &names);
            let other = Captured { key_id: "a2".to_owned(), ..request.clone() };
            changed.push(("another key id".to_owned(), other));
            assert_bound(&Verifier::JWTS, &request, &changed);
        }
    }
}

/// `threats` 3: no signature shows what was added to a request; a backend must look for it.
#[test]
fn our_examples_refuse_identity_that_is_not_covered() {
    let signer = signer(&[Scheme::HttpMessageSignatures], KeyAlgorithm::Hs256, ASSERTION_SECRET);
    let request = captured(&signer, Who::Anonymous, None, None, "HS256");
    let added = |name: &str, value: &str| {
        let mut changed = request.clone();
        changed.headers.push((name.to_owned(), value.to_owned()));
        (format!("{name}: {value}"), changed)
    };
    let level = request.headers.iter().find(|(n, _)| n == "x-identity-level").unwrap().1.clone();
    let changed = [
        added("X-Identity-Subject", "victim"),
        added("x_identity_subject", "victim"),
        added("X-Identity.Subject", "victim"),
        added("x-identity-claims", "e30"),
        added("x-identity-level", "verified"),
        added("x-identity-level", &level),
        added("Signature-Input", "evil=(\"x-identity-subject\")"),
        added("Signature", "evil=:AAAA:"),
    ];
    assert_bound(&Verifier::EXAMPLES, &request, &changed);
    let harmless = added("x-other", "victim").1;
    for verifier in Verifier::EXAMPLES {
        assert_eq!(verify_all(verifier, std::slice::from_ref(&harmless)), [Ok(())], "{verifier:?}");
    }
}

/// A capture is worth nothing once it has expired, by anybody's clock.
#[test]
fn old_assertions_are_refused_everywhere() {
    let minute_ago = UnixTime::from_secs(clock::read().unwrap().secs() - 61);
    let signer = signer(&[Scheme::Jwt, Scheme::HttpMessageSignatures], KeyAlgorithm::Hs256, ASSERTION_SECRET);
    let target = Target { method: "POST", path: "/chat", query: None, body: None, request_id: "0123abcd" };
    let signed = signer.sign(&admitted(Who::Anonymous, minute_ago), &target, minute_ago).unwrap();
    let headers = signed.fields().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let fresh = captured(&signer, Who::Anonymous, None, None, "HS256");
    let old = Captured { headers, target: "/chat".to_owned(), ..fresh };
    for verifier in Verifier::SIGNATURES.into_iter().chain(Verifier::JWTS) {
        let why = verifiers::verify(verifier, &old).unwrap_err();
        assert!(why.to_lowercase().contains("expire") || why.contains("past") || why.contains("\"exp\""), "{verifier:?}: {why}");
    }
}

/// The demo's agent over a socket: words to whom it verified, nothing to anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_agent_answers_to_a_verified_identity_only() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let verifier = verify::Verifier::new("a1", &KeyBytes::new(ASSERTION_SECRET.as_bytes()), "agent").unwrap();
    let serving = tokio::spawn(agent::serve(listener, verifier));
    let signer = signer(&[Scheme::HttpMessageSignatures], KeyAlgorithm::Hs256, ASSERTION_SECRET);
    let asked = tokio::task::spawn_blocking(move || {
        let client: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build().into();
        let post = |request: &Captured| {
            let mut call = client.post(format!("http://{address}{}", request.target));
            for (name, value) in &request.headers {
                call = call.header(name, value);
            }
            let mut response = call.send(BODY).unwrap();
            (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
        };
        let words = |text: &str| text.lines().filter_map(|l| l.strip_prefix("data: ")).collect::<Vec<_>>().join(" ");
        for (who, expected) in [
            (Who::Anonymous, "Hello stranger (nobody vouches for you)."),
            (Who::Claimed, "Hello, you say you are user 123% (nobody vouches for it)."),
            (Who::Verified, "Hello Ada Lövelace (verified by jwt)."),
        ] {
            let request = captured(&signer, who, Some("a=1"), Some(BODY), "HS256");
            let (status, text) = post(&request);
            let said = words(&text).split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(status, 200, "{text}");
            assert!(said.starts_with(expected) && said.contains("You said: hi"), "{said}");
            let mut forged = request.clone();
            forged.headers.retain(|(name, _)| name != "x-identity-level");
            forged.headers.push(("x-identity-level".to_owned(), "stepped_up".to_owned()));
            let (status, text) = post(&forged);
            assert_eq!(status, 401, "{text}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "refused": "the signature does not match" }));
        }
        let mut health = client.get(format!("http://{address}/healthz")).call().unwrap();
        assert_eq!(health.body_mut().read_to_string().unwrap(), "ok\n");
    });
    asked.await.unwrap();
    serving.abort();
}
