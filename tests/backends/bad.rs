//! What a backend must refuse: copies of good vectors with one thing changed on the way, and requests that the gateway's key
//! signed although the gateway never would. The second kind shows each rule on its own, since there the MAC is right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::assertion::http_message_signatures::Base;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{ASSERTION_SECRET, Ask, NOW, Vector, user};

const NOT_OURS: &str = "not the gateway's signature";
const TOO_LITTLE: &str = "a required component is not covered";
const STALE: &str = "expired, or signed in the future";
const ADDED: &str = "an identity header is not covered";
const NO_MATCH: &str = "the signature does not match";
const UNKNOWN_KEY: &str = "an unknown key";
const OTHER_BODY: &str = "the body is not the one that was signed";
const UNDECODABLE: &str = "an identity header does not decode";
const CONTRADICTION: &str = "level and subject contradict each other";

pub(super) fn all(good: &[Vector]) -> Vec<Vector> {
    let find = |name: &str| good.iter().find(|v| v.name == name).unwrap();
    let (nobody, ann, every) = (find("nobody"), find("a verified user"), find("every name, and nobody"));
    [headers(ann), added(nobody, every), targets(ann, find("an empty body that was held")), signatures(ann), settings(ann), by_hand(ann)]
        .concat()
}

/// Each header that the gateway set: changed in one byte, gone, and sent twice.
fn headers(ann: &Vector) -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, value) in ann.headers.iter().filter(|(name, _)| name != "content-type") {
        let once = format!("{name} is missing or was sent twice");
        all.push(ann.but(&format!("{name} removed"), |v| v.remove(name)).refused(&once));
        all.push(ann.but(&format!("{name} twice"), |v| v.add(name, value)).refused(&once));
        all.push(ann.but(&format!("{name} twice, then another value"), |v| v.add(name, "victim")).refused(&once));
        if !name.starts_with("signature") {
            all.push(ann.but(&format!("{name} changed"), |v| flip(v.header(name), 0)).refused(NO_MATCH));
            all.push(ann.but(&format!("{name} longer"), |v| v.header(name).push('x')).refused(NO_MATCH));
            all.push(ann.but(&format!("{name} empty"), |v| v.header(name).clear()).refused(NO_MATCH));
        }
    }
    all.push(ann.but("x-identity-subject not ASCII", |v| v.header("x-identity-subject").push('é')).refused(NO_MATCH));
    all.push(ann.but("x-identity-level raised", |v| "stepped_up".clone_into(v.header("x-identity-level"))).refused(NO_MATCH));
    all
}

/// `threats` 3: no signature shows what was added to a request.
fn added(nobody: &Vector, every: &Vector) -> Vec<Vector> {
    let names = [
        "x-identity-subject",
        "X-Identity-Subject",
        "x_identity_subject",
        "X-Identity.Subject",
        "xidentitysubject",
        "x-identity-claims",
        "x-identity-session-id",
        "x-identity-new",
        "x-doorward-subject",
        "X-User-Email",
        "x_user_email",
    ];
    let mut all: Vec<_> = names.iter().map(|name| nobody.but(&format!("{name} added"), |v| v.add(name, "victim")).refused(ADDED)).collect();
    all.push(nobody.but("x-identity-subject added, empty", |v| v.add("x-identity-subject", "")).refused(ADDED));
    all.push(every.but("an empty subject filled", |v| "victim".clone_into(v.header("x-identity-subject"))).refused(NO_MATCH));
    let twice = "x-identity-subject is missing or was sent twice";
    all.push(every.but("an empty subject, then another", |v| v.add("x-identity-subject", "victim")).refused(twice));
    all.push(
        nobody
            .but("x-identity-level added", |v| v.add("x-identity-level", "verified"))
            .refused("x-identity-level is missing or was sent twice"),
    );
    all
}

/// A request that was captured, sent elsewhere or with another body.
fn targets(ann: &Vector, empty: &Vector) -> Vec<Vector> {
    vec![
        ann.but("replayed with another method", |v| "PUT".clone_into(&mut v.method)).refused(NO_MATCH),
        ann.but("replayed with a method in lower case", |v| "post".clone_into(&mut v.method)).refused(NO_MATCH),
        ann.but("replayed on another path", |v| "/admin".clone_into(&mut v.path)).refused(NO_MATCH),
        ann.but("replayed on a path below", |v| "/chat/".clone_into(&mut v.path)).refused(NO_MATCH),
        ann.but("replayed on a path in capitals", |v| "/Chat".clone_into(&mut v.path)).refused(NO_MATCH),
        ann.but("replayed on a path with escapes", |v| "/%63hat".clone_into(&mut v.path)).refused(NO_MATCH),
        ann.but("replayed with another query", |v| v.query = Some("a=2".to_owned())).refused(NO_MATCH),
        ann.but("replayed with a longer query", |v| v.query = Some("a=1&b=2".to_owned())).refused(NO_MATCH),
        ann.but("replayed without its query", |v| v.query = None).refused(NO_MATCH),
        ann.but("another body", |v| v.body(b"{\"message\":\"ho\"}")).refused(OTHER_BODY),
        ann.but("a longer body", |v| v.body(b"{\"message\":\"hi\"}\n")).refused(OTHER_BODY),
        ann.but("no body", |v| v.body(b"")).refused(OTHER_BODY),
        empty.but("a body where an empty one was signed", |v| v.body(b"{}")).refused(OTHER_BODY),
        ann.but("expired", |v| v.now = NOW + 36).refused(STALE),
        ann.but("expired long ago", |v| v.now = NOW + 86_400).refused(STALE),
        ann.but("from the future", |v| v.now = NOW - 6).refused(STALE),
    ]
}

/// The two fields of the signature, written in another way: RFC 9421 would take some of these, and the gateway writes none.
fn signatures(ann: &Vector) -> Vec<Vector> {
    let input = |name: &str, change: &dyn Fn(&str) -> String| {
        ann.but(name, |v| *v.header("signature-input") = change(&v.header("signature-input").clone()))
    };
    let signature =
        |name: &str, change: &dyn Fn(&str) -> String| ann.but(name, |v| *v.header("signature") = change(&v.header("signature").clone()));
    let replaced = |from: &'static str, to: &'static str| move |text: &str| text.replacen(from, to, 1);
    vec![
        signature("signature: first byte changed", &|text| flipped(text, 10)).refused(NO_MATCH),
        signature("signature: a byte in the middle changed", &|text| flipped(text, 30)).refused(NO_MATCH),
        signature("signature: last byte changed", &|text| flipped(text, 52)).refused(NO_MATCH),
        signature("signature: empty", &|_| String::new()).refused(NOT_OURS),
        signature("signature: empty bytes", &|_| "doorward=::".to_owned()).refused(NOT_OURS),
        signature("signature: zeros", &|_| format!("doorward=:{}=:", "A".repeat(43))).refused(NO_MATCH),
        signature("signature: too short", &|_| "doorward=:AAAA:".to_owned()).refused(NOT_OURS),
        signature("signature: too long", &|text| text.replacen("=:", "=:AAAA", 1)).refused(NOT_OURS),
        signature("signature: without padding", &|text| format!("{}:", &text[..53])).refused(NOT_OURS),
        signature("signature: a string", &|text| text.replacen(':', "\"", 1).replace("=:", "=\"")).refused(NOT_OURS),
        signature("signature: another label", &replaced("doorward", "sig1")).refused(NOT_OURS),
        signature("signature: two labels", &|text| format!("{text}, sig1=:AAAA:")).refused(NOT_OURS),
        signature("signature: two labels, ours last", &|text| format!("sig1=:AAAA:, {text}")).refused(NOT_OURS),
        signature("signature: our label twice", &|text| format!("{text}, {text}")).refused(NOT_OURS),
        signature("signature: a parameter", &|text| format!("{text};a")).refused(NOT_OURS),
        signature("signature: more space", &|text| text.replacen('=', " =", 1)).refused(NOT_OURS),
        signature("signature: another field", &|_| "doorward".to_owned()).refused(NOT_OURS),
        input("signature-input: empty", &|_| String::new()).refused(NOT_OURS),
        input("signature-input: nothing covered", &|_| {
            "doorward=();created=1800000000;expires=1800000030;nonce=\"n\";keyid=\"a1\";alg=\"hmac-sha256\";tag=\"doorward\"".to_owned()
        })
        .refused(NOT_OURS),
        input("signature-input: another label", &replaced("doorward=", "sig1=")).refused(NOT_OURS),
        input("signature-input: a label in capitals", &replaced("doorward=", "Doorward=")).refused(NOT_OURS),
        input("signature-input: two labels", &|text| format!("{text}, sig1=()")).refused(NOT_OURS),
        input("signature-input: two labels, ours last", &|text| format!("sig1=(), {text}")).refused(NOT_OURS),
        input("signature-input: another algorithm", &replaced("hmac-sha256", "hmac-sha512")).refused(NOT_OURS),
        input("signature-input: no algorithm", &replaced(";alg=\"hmac-sha256\"", "")).refused(NOT_OURS),
        input("signature-input: another tag", &replaced("tag=\"doorward\"", "tag=\"other\"")).refused(NOT_OURS),
        input("signature-input: no tag", &replaced(";tag=\"doorward\"", "")).refused(NOT_OURS),
        input("signature-input: a parameter more", &|text| format!("{text};a")).refused(NOT_OURS),
        input("signature-input: a component's parameter", &replaced("\"x-identity-level\"", "\"x-identity-level\";sf")).refused(NOT_OURS),
        input("signature-input: a component in capitals", &replaced("x-identity-level", "X-Identity-Level")).refused(NOT_OURS),
        input("signature-input: more space", &replaced("\" \"", "\"  \"")).refused(NOT_OURS),
        input("signature-input: a nonce changed", &|text| flipped(text, text.find("nonce=\"").unwrap() + 7)).refused(NO_MATCH),
        input("signature-input: a later end", &replaced("expires=1800000030", "expires=1800000031")).refused(NO_MATCH),
        input("signature-input: a negative time", &replaced("created=", "created=-")).refused(NOT_OURS),
        input("signature-input: another key id", &replaced("keyid=\"a1\"", "keyid=\"a2\"")).refused(UNKNOWN_KEY),
        input("signature-input: another order", &replaced("\"@method\" \"@path\"", "\"@path\" \"@method\"")).refused(NO_MATCH),
        input("signature-input: a component dropped", &replaced(" \"x-identity-level\"", "")).refused(TOO_LITTLE),
        input("signature-input: the subject dropped", &replaced(" \"x-identity-subject\"", "")).refused(ADDED),
        input("signature-input: the digest dropped", &replaced(" \"content-digest\"", "")).refused(NO_MATCH),
    ]
}

/// A gateway that is set up otherwise, and a backend that is.
fn settings(ann: &Vector) -> Vec<Vector> {
    let (claims, _) = user(serde_json::json!({ "email": "ann@example.com", "plan": "pro" }));
    let ask = Ask { claims, ..Ask::default() };
    let unset = by(ann, "a backend without a key", "", &|_| {}, &covered(ann), &params())
        .but("a backend without a key", |v| v.key_base64 = Some(String::new()));
    vec![
        Ask { audience: "other", ..ask.clone() }.signed("made for another audience").refused("made for another audience"),
        Ask { key: ("a2", ASSERTION_SECRET), ..ask.clone() }.signed("made with another key id").refused(UNKNOWN_KEY),
        Ask { key: ("a1", "another_secret_0123456789abcdefgh"), ..ask }.signed("made with another key").refused(NO_MATCH),
        ann.but("a backend with another key", |v| v.key_base64 = Some(STANDARD.encode("another_secret_0123456789abcdefgh")))
            .refused(NO_MATCH),
        unset.refused(UNKNOWN_KEY),
    ]
}

/// Signed with the gateway's key, which signs too little or something that is not so.
fn by_hand(ann: &Vector) -> Vec<Vector> {
    let names = covered(ann);
    let with = |name: &str, change: &dyn Fn(&mut Vector)| by(ann, name, ASSERTION_SECRET, change, &names, &params());
    let told = |name: &str, header: &'static str, value: &'static str| with(name, &move |v| value.clone_into(v.header(header)));
    let lasting = |name: &str, created: u64, expires: u64| {
        let params = params().replace("created=1800000000;expires=1800000030", &format!("created={created};expires={expires}"));
        by(ann, name, ASSERTION_SECRET, &|_| {}, &names, &params).refused(STALE)
    };
    let mut all = vec![
        lasting("signed for 61 seconds", NOW, NOW + 61),
        lasting("signed for no time", NOW, NOW),
        lasting("signed backwards", NOW + 5, NOW + 1),
        told("signed: an unknown level", "x-identity-level", "admin").refused(CONTRADICTION),
        told("signed: a subject of an anonymous caller", "x-identity-level", "anonymous").refused(CONTRADICTION),
        told("signed: a subject of a claimed caller", "x-identity-level", "claimed").refused(CONTRADICTION),
        told("signed: verified, and nobody", "x-identity-subject", "").refused(CONTRADICTION),
        told("signed: no level", "x-identity-level", "").refused("a required header is empty"),
        told("signed: no tenant", "x-identity-tenant", "").refused("a required header is empty"),
        told("signed: no request id", "x-identity-request-id", "").refused("a required header is empty"),
        told("signed: a subject that is no UTF-8", "x-identity-subject", "%FF").refused(UNDECODABLE),
        told("signed: claims that are no JSON", "x-identity-claims", "eyI").refused(UNDECODABLE),
    ];
    for name in ["@method", "@path", "@query", "x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id"] {
        let fewer: Vec<_> = names.iter().copied().filter(|n| *n != name).collect();
        all.push(by(ann, &format!("signed without {name}"), ASSERTION_SECRET, &|_| {}, &fewer, &params()).refused(TOO_LITTLE));
    }
    let twice = [&names[..], &["x-identity-subject"]].concat();
    all.push(by(ann, "signed: a component twice", ASSERTION_SECRET, &|_| {}, &twice, &params()).refused(TOO_LITTLE));
    let strange = [&names[..], &["@authority"]].concat();
    let missing = "@authority is missing or was sent twice";
    all.push(by(ann, "signed: a component that the gateway never covers", ASSERTION_SECRET, &|_| {}, &strange, &params()).refused(missing));
    all
}

/// Signs a changed copy over these components.
fn by(vector: &Vector, name: &str, secret: &str, change: &dyn Fn(&mut Vector), names: &[&str], params: &str) -> Vector {
    vector.but(name, |v| {
        change(v);
        let mut base = Base::new();
        for name in names {
            let value = match *name {
                "@method" => v.method.clone(),
                "@path" => v.path.clone(),
                "@query" => format!("?{}", v.query.as_deref().unwrap_or_default()),
                "@authority" => "agent.example".to_owned(),
                field => v.header(field).clone(),
            };
            base.cover(name, &value);
        }
        let (input, base) = base.finish(format_args!("{params}"));
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(base).finalize().into_bytes();
        *v.header("signature-input") = format!("doorward={input}");
        *v.header("signature") = format!("doorward=:{}:", STANDARD.encode(mac));
    })
}

fn covered(vector: &Vector) -> Vec<&str> {
    let fields = vector.headers.iter().map(|(name, _)| name.as_str());
    let fields = fields.filter(|name| *name != "content-type" && !name.starts_with("signature"));
    ["@method", "@path", "@query"].into_iter().chain(fields).collect()
}

fn params() -> String {
    format!(";created={NOW};expires={};nonce=\"by-hand\";keyid=\"a1\";alg=\"hmac-sha256\";tag=\"doorward\"", NOW + 30)
}

fn flipped(text: &str, at: usize) -> String {
    let mut text = text.to_owned();
    flip(&mut text, at);
    text
}

/// Another letter in place of one.
fn flip(text: &mut String, at: usize) {
    let other = if text[at..].starts_with('m') { "M" } else { "m" };
    text.replace_range(at..=at, other);
}
