//! What the gateway signs is accepted; that with any one change is refused.

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::assertion::{AssertionKey, AssertionSettings, Identity, KeyAlgorithm, Mapped, Scheme, Signer, Target, Verified as Vouched, Who};
use crate::token::claims::SteppedUp;

const SECRET: &[u8] = b"assertion_secret_0123456789abcdef";
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const BODY: &[u8] = b"{\"message\":\"hi\"}";

fn signer(id: &str, secret: &[u8], audience: &str) -> Signer {
    Signer::new(AssertionSettings {
        schemes: vec![Scheme::HttpMessageSignatures],
        audience: audience.to_owned(),
        issuer: "doorward".to_owned(),
        lifetime_secs: 30,
        keys: vec![AssertionKey { id: id.to_owned(), algorithm: KeyAlgorithm::Hs256, material: KeyBytes::new(secret) }],
        mapped: vec![(HeaderName::from_static("x-user-email"), Mapped::Claim("email".to_owned()))],
        elsewhere: Vec::new(),
        removed: Vec::new(),
    })
    .unwrap()
}

fn verifier() -> Verifier {
    Verifier::new("a1", &KeyBytes::new(SECRET), "agent").unwrap().reading(vec![HeaderName::from_static("x-user-email")])
}

fn signed_by(signer: &Signer, stepped_up: bool) -> HeaderMap {
    let Value::Object(claims) = json!({ "email": "ada@example.com", "name": "Ada" }) else { unreachable!() };
    let at = SteppedUp { at: 1_799_999_990.0, aal: Some("mfa".to_owned()) };
    let claims_json = serde_json::to_string(&claims).unwrap().into();
    let vouched = Vouched { subject: "user 123", claims: &claims, claims_json, method: "jwt", stepped_up: stepped_up.then_some(&at) };
    let identity = Identity { tenant: "acme", origin: Some("https://app.example.com"), session: None, who: Who::Verified(vouched) };
    signed_as(signer, &identity)
}

fn signed_as(signer: &Signer, identity: &Identity<'_>) -> HeaderMap {
    let target = Target { method: "POST", path: "/chat", query: Some("a=1"), body: Some(BODY), request_id: "r-1" };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    signer.sign_identity(identity, &target, NOW).unwrap().apply(signer.reserved(), &mut headers);
    headers
}

fn received(headers: &HeaderMap) -> Received<'_> {
    Received { method: "POST", path: "/chat", query: Some("a=1"), headers, body: BODY }
}

fn refused(headers: &HeaderMap) -> &'static str {
    verifier().verify(&received(headers), NOW).unwrap_err().0
}

#[test]
fn what_the_gateway_signs_is_read_back() {
    let headers = signed_by(&signer("a1", SECRET, "agent"), true);
    let told = verifier().verify(&received(&headers), NOW).unwrap();
    let Value::Object(claims) = json!({ "email": "ada@example.com", "name": "Ada" }) else { unreachable!() };
    let expected = Verified {
        level: Level::SteppedUp,
        tenant: "acme".to_owned(),
        request_id: "r-1".to_owned(),
        origin: Some("https://app.example.com".to_owned()),
        subject: Some("user 123".to_owned()),
        claims,
        method: Some("jwt".to_owned()),
        stepped_up_at: Some(1_799_999_990),
        aal: Some("mfa".to_owned()),
        claimed_subject: None,
        body_covered: true,
    };
    assert_eq!(told, expected);
    let claimed =
        signed_as(&signer("a1", SECRET, "agent"), &Identity { tenant: "acme", origin: None, session: None, who: Who::Claimed("ada") });
    let told = verifier().verify(&received(&claimed), NOW).unwrap();
    assert_eq!((told.level, told.subject, told.claimed_subject.as_deref()), (Level::Claimed, None, Some("ada")));
}

#[test]
fn another_request_is_refused() {
    let headers = signed_by(&signer("a1", SECRET, "agent"), false);
    let good = received(&headers);
    let changes = [
        Received { method: "GET", ..good },
        Received { path: "/chat/", ..good },
        Received { query: None, ..good },
        Received { query: Some("a=2"), ..good },
        Received { body: b"{}", ..good },
    ];
    for changed in changes {
        assert!(verifier().verify(&changed, NOW).is_err(), "{changed:?}");
    }
    assert!(verifier().verify(&good, NOW).is_ok());
}

#[test]
fn another_time_key_or_audience_is_refused() {
    let headers = signed_by(&signer("a1", SECRET, "agent"), false);
    let at = |secs: u64| verifier().verify(&received(&headers), UnixTime::from_secs(secs)).map(drop).map_err(|r| r.0);
    let signed = NOW.secs();
    assert_eq!(at(signed - 6), Err("signed in the future"));
    assert_eq!(at(signed - 5), Ok(()));
    assert_eq!(at(signed + 35), Ok(()));
    assert_eq!(at(signed + 36), Err("expired"));
    assert_eq!(refused(&signed_by(&signer("a2", SECRET, "agent"), false)), "an unknown key");
    assert_eq!(refused(&signed_by(&signer("a1", SECRET, "other"), false)), "made for another audience");
    assert_eq!(refused(&signed_by(&signer("a1", b"another_secret_0123456789abcdefgh", "agent"), false)), "the signature does not match");
}

/// `threats` 3: what no signature can show, the rule about uncovered names does.
#[test]
fn an_added_identity_header_is_refused() {
    let signer = signer("a1", SECRET, "agent");
    let anonymous = signed_as(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Anonymous });
    assert!(verifier().verify(&received(&anonymous), NOW).is_ok());
    for name in
        ["x-identity-subject", "x_identity_subject", "x.identity.new", "xidentitylevel", "x-user-email", "x_user_email", "x-doorward-x"]
    {
        let mut headers = anonymous.clone();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("victim"));
        assert_eq!(refused(&headers), "an identity header is not covered", "{name}");
    }
    let mut harmless = anonymous;
    harmless.insert("x-other", HeaderValue::from_static("victim"));
    assert!(verifier().verify(&received(&harmless), NOW).is_ok());
}

#[test]
fn a_removed_or_doubled_header_is_refused() {
    let headers = signed_by(&signer("a1", SECRET, "agent"), true);
    for name in headers.keys().filter(|name| *name != "content-type") {
        let mut without = headers.clone();
        without.remove(name);
        assert!(verifier().verify(&received(&without), NOW).is_err(), "without {name}");
        let mut twice = headers.clone();
        twice.append(name.clone(), one(&headers, name.as_str()).unwrap().unwrap().parse().unwrap());
        assert!(verifier().verify(&received(&twice), NOW).is_err(), "{name} twice");
    }
}

/// RFC 9421 §4.3 lets a client add a label of its own; a backend that took it would believe the client.
#[test]
fn another_label_is_refused() {
    let headers = signed_by(&signer("a1", SECRET, "agent"), false);
    for name in ["signature-input", "signature"] {
        let text = one(&headers, name).unwrap().unwrap();
        for changed in [format!("{text}, evil=()"), format!("evil=(), {text}"), text.replacen("doorward=", "evil=", 1), format!("{text} ")]
        {
            let mut headers = headers.clone();
            headers.insert(name, changed.parse().unwrap());
            assert!(verifier().verify(&received(&headers), NOW).is_err(), "{changed}");
        }
    }
}

#[test]
fn a_nonce_counts_once_where_asked() {
    let headers = signed_by(&signer("a1", SECRET, "agent"), false);
    let once = verifier().once();
    assert!(once.verify(&received(&headers), NOW).is_ok());
    assert_eq!(once.verify(&received(&headers), NOW).unwrap_err().0, "the nonce was seen before");
    assert!(once.verify(&received(&signed_by(&signer("a1", SECRET, "agent"), false)), NOW).is_ok());
    assert!(verifier().verify(&received(&headers), NOW).is_ok(), "without a cache a retry passes");
}

/// The key's owner signs too little: a verifier that took the list of components from the signer would be satisfied.
#[test]
fn a_signature_that_covers_too_little_is_refused() {
    let names = ["x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id"];
    let attempt = |skipped: Option<&str>, lifetime: u64| {
        let mut headers = HeaderMap::new();
        let mut base = Base::new();
        for (name, value) in [("@method", "POST"), ("@path", "/chat"), ("@query", "?a=1")] {
            if skipped != Some(name) {
                base.cover(name, value);
            }
        }
        for (name, value) in names.into_iter().zip(["anonymous", "acme", "agent", "r-1"]) {
            if skipped != Some(name) {
                headers.insert(name, HeaderValue::from_static(value));
                base.cover(name, value);
            }
        }
        let (created, expires) = (NOW.secs(), NOW.secs() + lifetime);
        let (input, base) =
            base.finish(format_args!(";created={created};expires={expires};nonce=\"n\";keyid=\"a1\";alg=\"hmac-sha256\";tag=\"doorward\""));
        let mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap().chain_update(base).finalize().into_bytes();
        let mac = base64::engine::general_purpose::STANDARD.encode(mac);
        headers.insert("signature-input", format!("doorward={input}").parse().unwrap());
        headers.insert("signature", format!("doorward=:{mac}:").parse().unwrap());
        verifier().verify(&received(&headers), NOW).map(drop).map_err(|r| r.0)
    };
    assert_eq!(attempt(None, 60), Ok(()));
    assert_eq!(attempt(None, 61), Err("lives too long"));
    for name in REQUIRED {
        assert_eq!(attempt(Some(name), 60), Err("a required component is not covered"), "{name}");
    }
}

proptest! {
    /// Any byte of any header that the gateway added, changed to any other visible one.
    #[test]
    fn any_changed_byte_is_refused(field in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in 0x20u8..0x7f) {
        let headers = signed_by(&signer("a1", SECRET, "agent"), true);
        let names: Vec<_> = headers.keys().filter(|n| *n != "content-type").cloned().collect();
        let name = field.get(&names);
        let mut bytes = one(&headers, name.as_str()).unwrap().unwrap().as_bytes().to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let mut changed = headers.clone();
        changed.insert(name, HeaderValue::from_bytes(&bytes).unwrap());
        prop_assert!(verifier().verify(&received(&changed), NOW).is_err(), "{}: {:?}", name, changed);
    }
}

/// Behind a forward-auth listener every name is there: an empty one says nothing, and only where it is covered.
#[test]
fn what_is_empty_and_covered_does_not_apply() {
    let signer = signer("a1", SECRET, "agent");
    let target = Target { method: "POST", path: "/chat", query: Some("a=1"), body: None, request_id: "r-1" };
    let sign = |who: Who<'_>| {
        let mut headers = HeaderMap::new();
        let identity = Identity { tenant: "acme", origin: None, session: None, who };
        signer.sign_fields(&identity, &target, NOW, true).unwrap().apply(signer.reserved(), &mut headers);
        headers
    };
    let anonymous = sign(Who::Anonymous);
    assert_eq!(anonymous["x-identity-subject"], "");
    let told = verifier().verify(&received(&anonymous), NOW).unwrap();
    assert_eq!((told.level, told.subject, told.claimed_subject, told.origin), (Level::Anonymous, None, None, None));
    assert_eq!((told.claims.len(), told.stepped_up_at, told.aal, told.method), (0, None, None, None));
    let told = verifier().verify(&received(&sign(Who::Claimed("ada"))), NOW).unwrap();
    assert_eq!((told.subject, told.claimed_subject.as_deref()), (None, Some("ada")));
    // A value in the empty one's place, or a second one, is somebody else's.
    for name in ["x-identity-subject", "x-identity-level", "x-user-email"] {
        let mut changed = anonymous.clone();
        changed.insert(name, HeaderValue::from_static("victim"));
        assert_eq!(refused(&changed), "the signature does not match", "{name}");
        let mut doubled = anonymous.clone();
        doubled.append(name, HeaderValue::from_static(""));
        assert_eq!(refused(&doubled), "a covered header was sent twice", "{name}");
    }
    // One that is not covered is none of ours, empty or not.
    let mut added = signed_as(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Anonymous });
    added.insert("x-identity-subject", HeaderValue::from_static(""));
    assert_eq!(refused(&added), "an identity header is not covered");
}
