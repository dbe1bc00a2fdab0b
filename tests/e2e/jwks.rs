//! Keys that an issuer publishes: made and signed by libraries that nobody here wrote, fetched from a real HTTPS server, and
//! rotated, removed, withheld and forged.

use std::net::SocketAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::gateway::{Gateway, ORIGIN, doorward, halo, in_seconds, until};
use crate::http::Answer;
use crate::issuer::{Issuer, Reply, json as answering, set};
use crate::upstream::Upstream;
use crate::verifiers::{Maker, issue};

const EMBED_KEY: &str = "pk_issued_0123456789";

/// A configuration whose tenants have no preset and these secrets, with `{}` for what each adds.
fn config(upstream: SocketAddr, tenants: &[(&str, &str, &str)]) -> String {
    let halo = halo(upstream, "");
    let (head, _) = halo.split_once("[[tenant]]").unwrap();
    let one = |(index, (id, secret, more)): (usize, &(&str, &str, &str))| {
        format!(
            "[[tenant]]\nid = \"{id}\"\nembed_keys = [\"{EMBED_KEY}{index}\"]\norigins = [\"{ORIGIN}\"]\nsecrets = [{{ id = \"idp\", {secret} }}]\n{more}\n"
        )
    };
    head.to_owned() + &tenants.iter().enumerate().map(one).collect::<String>()
}

/// One tenant with the keys of this issuer.
fn start(upstream: &Upstream, issuer: &Issuer, more: &str) -> Gateway {
    let gateway = start_with(&config(upstream.address(), &[("acme", &secret(issuer, more), "")]), issuer);
    ready(&gateway);
    gateway
}

fn start_with(config: &str, issuer: &Issuer) -> Gateway {
    Gateway::start_with(config, &[("ca.pem", &issuer.authority.pem())])
}

fn secret(issuer: &Issuer, more: &str) -> String {
    format!("jwks_url = \"{}\", ca = \"ca.pem\"{more}", issuer.url())
}

fn ready(gateway: &Gateway) {
    until("every issuer to be asked", || (gateway.admin("/readyz").status == 200).then_some(()));
}

/// Waits for a word in the log, which is written beside the work.
#[track_caller]
fn logged(gateway: &Gateway, text: &str) {
    until(text, || gateway.log().contains(text).then_some(()));
}

fn ask_of(gateway: &Gateway, index: usize, token: &str) -> Answer {
    let key = format!("{EMBED_KEY}{index}");
    gateway.ask("GET", "/a", &[("X-Embed-Key", &key), ("Origin", ORIGIN), ("Authorization", &format!("Bearer {token}"))], b"")
}

fn ask(gateway: &Gateway, token: &str) -> Answer {
    ask_of(gateway, 0, token)
}

#[track_caller]
fn refused(gateway: &Gateway, token: &str, status: u16, reason: &str) {
    let answer = ask(gateway, token);
    assert_eq!((answer.status, answer.reason()), (status, reason), "{}", answer.text());
}

/// Keys with these ids and algorithms, and one token of each for `user_KID`.
fn issued(maker: Maker, keys: &[(&str, &str)]) -> Value {
    let made: Vec<_> = keys.iter().map(|(kid, alg)| json!({ "kid": kid, "alg": alg })).collect();
    let claims = |kid: &str| json!({ "sub": format!("user_{kid}"), "exp": in_seconds(600) });
    let tokens: Vec<_> = keys.iter().map(|(kid, _)| json!({ "kid": kid, "claims": claims(kid) })).collect();
    issue(maker, &json!({ "keys": made, "tokens": tokens }))
}

fn token(issued: &Value, index: usize) -> &str {
    issued["tokens"][index].as_str().unwrap()
}

/// Header and claims as given, signed by nobody.
fn unsigned(header: &Value, claims: &Value) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encoded(header), encoded(claims))
}

/// HS256 with any bytes for the secret.
fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = unsigned(header, claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

#[test]
fn published_keys_verify_and_a_new_one_is_fetched_when_somebody_shows_it() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("rsa-1", "RS256"), ("ec-1", "ES256"), ("ed-1", "EdDSA"), ("next", "RS256")]);
    let keys = &made["keys"];
    let mut enc = keys["rsa-1"].clone();
    (enc["kid"], enc["use"], enc["alg"]) = (json!("enc-1"), json!("enc"), json!("RSA-OAEP"));
    let first = [&keys["rsa-1"], &keys["ec-1"], &keys["ed-1"], &enc];
    let issuer = Issuer::start(set(&first));
    let gateway = start(&upstream, &issuer, ", refresh = \"1h\"");
    for (index, (kid, algorithm)) in [("rsa-1", "RS256"), ("ec-1", "ES256"), ("ed-1", "EdDSA")].iter().enumerate() {
        let answer = ask(&gateway, token(&made, index));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(upstream.last().one("x-identity-subject"), format!("user_{kid}"));
        assert_eq!(gateway.audit(answer.one("x-request-id"))["secret"], format!("idp/{kid}"));
        logged(&gateway, &format!("key in use tenant=\"acme\" id=\"idp/{kid}\" what=\"jwt {algorithm}\""));
        gateway.counted(&format!("doorward_secret_uses_total{{secret=\"idp/{kid}\",tenant=\"acme\"}}"), 1.0);
    }
    assert_eq!(issuer.fetches(), 1, "known keys ask for nothing");
    let head = issuer.heads().remove(0).to_lowercase();
    assert!(head.starts_with("get /.well-known/jwks.json http/1.1\r\n") && !head.contains("authorization"), "{head}");

    // The issuer begins to use a key that it did not publish before.
    refused(&gateway, token(&made, 3), 401, "token_key_unknown");
    until("the fetch", || (issuer.fetches() == 2).then_some(()));
    assert!(!gateway.log().contains("issuer's keys changed"), "the same set is no news");
    gateway.signal("HUP");
    gateway.generation(2);
    assert_eq!(ask(&gateway, token(&made, 0)).status, 200, "known through a reload");
    assert_eq!(issuer.fetches(), 2, "a reload is no reason to ask");
    let status = gateway.admin("/status").json();
    let shown = &status["tenants"][0];
    assert_eq!(shown["key_sets"][0]["keys"], 3, "{status}");
    assert_eq!(shown["key_sets"][0]["url"], issuer.url());
    assert!(shown["secrets"].as_array().unwrap().iter().any(|s| s["id"] == "idp/ec-1" && s["uses"] == 1), "{status}");
    assert!(
        (gateway.metric(r#"doorward_jwks_last_fetched_timestamp_seconds{secret="idp",tenant="acme"}"#) - in_seconds(0) as f64).abs() < 60.0
    );
    assert_eq!(gateway.metric(r#"doorward_jwks_keys{secret="idp",tenant="acme"}"#), 3.0);
    assert_eq!(gateway.metric(r#"doorward_jwks_fetches_total{result="fetched"}"#), 2.0);
}

#[test]
fn the_first_unknown_key_is_denied_and_then_known() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("old", "ES256"), ("new", "ES256")]);
    let issuer = Issuer::start(set(&[&made["keys"]["old"]]));
    let gateway = start(&upstream, &issuer, ", refresh = \"1h\"");
    issuer.say(set(&[&made["keys"]["old"], &made["keys"]["new"]]));
    refused(&gateway, token(&made, 1), 401, "token_key_unknown");
    until("the new key", || (ask(&gateway, token(&made, 1)).status == 200).then_some(()));
    assert_eq!(ask(&gateway, token(&made, 0)).status, 200);
    assert_eq!(issuer.fetches(), 2);
    logged(&gateway, r#"added=["new"] removed=[] changed=[]"#);
}

#[test]
fn a_storm_of_unknown_keys_is_one_fetch() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("known", "EdDSA")]);
    let issuer = Issuer::start(set(&[&made["keys"]["known"]]));
    let gateway = start(&upstream, &issuer, ", refresh = \"1h\"");
    let claims = json!({ "sub": "victim", "exp": in_seconds(600) });
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gateway, claims) = (&gateway, &claims);
            scope.spawn(move || {
                for n in 0..100 {
                    let token = hs256(b"guess", &json!({ "alg": "EdDSA", "kid": format!("random-{thread}-{n}") }), claims);
                    refused(gateway, &token, 401, "token_key_unknown");
                }
            });
        }
    });
    until("the one fetch", || (issuer.fetches() >= 2).then_some(()));
    assert_eq!(ask(&gateway, token(&made, 0)).status, 200);
    // The next may come half a minute after it.
    let allowed = 2 + usize::try_from(begun.elapsed().as_secs() / 30).unwrap();
    assert!(issuer.fetches() <= allowed, "{} fetches for 400 requests", issuer.fetches());
    assert_eq!(gateway.metric(r#"doorward_requests_total{level="",outcome="denied",reason="token_key_unknown",tenant="acme"}"#), 400.0);
}

/// Lets the issuer answer badly in many ways, and verifies after each.
fn stays(upstream: &Upstream, made: &Value, bad: &[(&str, Reply, &str, &str)]) {
    let good = set(&[&made["keys"]["k1"]]);
    let issuer = Issuer::start(good.clone());
    let gateway = start(upstream, &issuer, ", refresh = \"1s\"");
    assert_eq!(ask(&gateway, token(made, 0)).status, 200);
    for (what, reply, result, says) in bad {
        let counter = format!("doorward_jwks_fetches_total{{result=\"{result}\"}}");
        let before = gateway.metric(&counter);
        issuer.say(reply.clone());
        until(what, || (gateway.metric(&counter) > before && gateway.log().contains(says)).then_some(()));
        assert_eq!(ask(&gateway, token(made, 0)).status, 200, "{what}");
        issuer.say(good.clone());
    }
    logged(&gateway, "the last good ones stay");
}

#[test]
fn the_last_good_set_stays_when_the_issuer_does_not_answer() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "RS256")]);
    let elsewhere = Issuer::start(set(&[&made["keys"]["k1"]]));
    let raw = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    stays(
        &upstream,
        &made,
        &[
            ("an error", raw("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "failed", "it answers 500"),
            ("a redirect", raw(&redirect), "failed", "it answers 302; redirects are not followed"),
            ("no HTTP", raw("SSH-2.0-OpenSSH_9.2\r\n"), "failed", "not fetched"),
            ("a cut answer", raw("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"keys\":"), "failed", "not fetched"),
            ("an endless head", raw(&format!("HTTP/1.1 200 OK\r\nX-Pad: {}", "x".repeat(200_000))), "failed", "not fetched"),
        ],
    );
    assert_eq!(elsewhere.fetches(), 0, "a redirect was followed");
}

#[test]
fn the_last_good_set_stays_when_the_issuer_answers_nonsense() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Python, &[("k1", "RS256"), ("weak", "RS256-1024"), ("p384", "ES384")]);
    let keys = &made["keys"];
    let symmetric = json!({ "kty": "oct", "kid": "k1", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXM" });
    let twice = format!(r#"{{"keys":[],"keys":[{}]}}"#, keys["k1"]);
    let huge = json!({ "keys": [keys["k1"]], "pad": "x".repeat(300 * 1024) }).to_string();
    let many: Vec<_> = std::iter::repeat_n(&keys["k1"], 101).collect();
    stays(
        &upstream,
        &made,
        &[
            ("HTML", answering("<!doctype html><title>Maintenance</title>", ""), "refused", "is no strict JSON object"),
            ("no set", answering("{\"error\":\"none\"}", ""), "refused", "is no JWK Set"),
            ("an empty set", set(&[]), "refused", "is a JWK Set without keys"),
            ("two sets in one", answering(&twice, ""), "refused", "is no strict JSON object"),
            ("a huge set", answering(&huge, ""), "refused", "is larger than 262144 bytes"),
            ("too many keys", set(&many), "refused", "has 101 keys"),
            ("other keys", set(&[&symmetric, &keys["weak"], &keys["p384"]]), "refused", "is a symmetric key"),
        ],
    );
}

#[test]
fn an_issuer_that_never_ends_its_answer_holds_nobody_up() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "ES256")]);
    let issuer = Issuer::start(set(&[&made["keys"]["k1"]]));
    let gateway = start(&upstream, &issuer, ", refresh = \"1s\"");
    issuer.say(Reply::Trickle);
    let failed = r#"doorward_jwks_fetches_total{result="failed"}"#;
    until("the fetch to be given up", || {
        assert_eq!(ask(&gateway, token(&made, 0)).status, 200);
        (gateway.metric(failed) > 0.0).then_some(())
    });
    logged(&gateway, "no answer within 5s");
}

/// The start: listening at once, not ready before every issuer was asked, and nobody verified until it answered.
#[test]
fn the_gateway_starts_without_its_issuer_and_says_so() {
    let upstream = Upstream::plain();
    let claims = |audience: &str| json!({ "sub": "user_1", "aud": audience, "exp": in_seconds(600) });
    let tokens: Vec<_> = ["a", "b", "c"].iter().map(|audience| json!({ "kid": "k1", "claims": claims(audience) })).collect();
    let made = issue(Maker::Node, &json!({ "keys": [{ "kid": "k1", "alg": "EdDSA" }], "tokens": tokens }));
    let issuer = Issuer::start(Reply::Later);
    let begun = Instant::now();
    let audience = |name: &str| format!("[tenant.claims]\naudiences = [\"{name}\"]");
    let (first, second, third) = (audience("a"), audience("b"), audience("c"));
    let secret = secret(&issuer, ", refresh = \"1h\"");
    let config = config(upstream.address(), &[("acme", &secret, &first), ("globex", &secret, &second), ("initech", &secret, &third)]);
    let gateway = start_with(&config, &issuer);
    until("the fetch", || (issuer.fetches() == 1).then_some(()));
    for index in [0, 1, 2, 0, 1, 2] {
        let answer = ask_of(&gateway, index, token(&made, index));
        assert_eq!((answer.status, answer.reason(), answer.one("retry-after")), (503, "gateway_keys_missing", "1"));
    }
    let anonymous = gateway.ask("GET", "/a", &[("X-Embed-Key", &format!("{EMBED_KEY}0")), ("Origin", ORIGIN)], b"");
    assert_eq!(anonymous.status, 200, "who needs no key is served");
    let readiness = gateway.admin("/readyz");
    assert_eq!((readiness.status, readiness.text().as_str()), (503, "fetching issuers' keys\n"));
    assert_eq!(gateway.admin("/livez").status, 200);
    issuer.say(set(&[&made["keys"]["k1"]]));
    ready(&gateway);
    for index in 0..3 {
        until("the keys", || (ask_of(&gateway, index, token(&made, index)).status == 200).then_some(()));
        let other = ask_of(&gateway, index, token(&made, (index + 1) % 3));
        assert_eq!(other.reason(), "token_audience_unexpected", "the issuer's key is shared, its tokens are not");
    }
    // A fetch is given up after five seconds, and the issuer does not notice.
    let given_up = usize::try_from(begun.elapsed().as_secs() / 5).unwrap();
    assert!(issuer.most_at_once() <= 1 + given_up, "one fetch at a time for three tenants and six requests");
}

#[test]
fn a_gateway_whose_issuer_is_down_is_ready_and_tries_again() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "EdDSA")]);
    let issuer = Issuer::start(Reply::Bytes(Vec::new()));
    let gateway = start(&upstream, &issuer, ", refresh = \"1h\"");
    refused(&gateway, token(&made, 0), 503, "gateway_keys_missing");
    logged(&gateway, "none is known, so its tokens are refused");
    issuer.say(set(&[&made["keys"]["k1"]]));
    until("the issuer to be asked again", || (ask(&gateway, token(&made, 0)).status == 200).then_some(()));
}

#[test]
fn a_key_that_is_removed_or_revoked_or_replaced_stops_verifying() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "RS256"), ("k2", "ES256"), ("k3", "EdDSA")]);
    let keys = &made["keys"];
    let issuer = Issuer::start(set(&[&keys["k1"], &keys["k2"], &keys["k3"]]));
    let config = config(upstream.address(), &[("acme", &secret(&issuer, ", refresh = \"1s\""), "")]);
    let gateway = Gateway::start_with(
        &format!("revocations = \"revocations\"\n{config}"),
        &[("ca.pem", &issuer.authority.pem()), ("revocations", "")],
    );
    ready(&gateway);
    (0..3).for_each(|index| assert_eq!(ask(&gateway, token(&made, index)).status, 200));
    issuer.say(set(&[&keys["k2"], &keys["k3"]]));
    until("the removed key to stop", || (ask(&gateway, token(&made, 0)).reason() == "token_key_unknown").then_some(()));
    logged(&gateway, r#"added=[] removed=["k1"] changed=[]"#);
    let status = gateway.admin("/status").json();
    let secrets = status["tenants"][0]["secrets"].as_array().unwrap();
    let k3 = secrets.iter().find(|s| s["id"] == "idp/k3").unwrap();
    assert_eq!(k3["uses"], 1, "counted on through a change of the set: {status}");
    gateway.write("revocations", &format!("secret {}\n", k3["fingerprint"].as_str().unwrap()));
    until("the revoked key to stop", || (ask(&gateway, token(&made, 2)).reason() == "token_revoked").then_some(()));
    // k2 becomes another key with another algorithm.
    let mut other = keys["k1"].clone();
    other["kid"] = json!("k2");
    issuer.say(set(&[&other]));
    until("the new k2", || (ask(&gateway, token(&made, 1)).reason() == "token_algorithm_refused").then_some(()));
    logged(&gateway, r#"removed=["k3"] changed=["k2"]"#);
}

/// RFC 8725 §2.1: what a token says of its algorithm is compared with the key's, and never chooses it.
#[test]
fn no_algorithm_but_the_keys_own_verifies() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("rsa", "RS256"), ("ec", "ES256")]);
    let keys = &made["keys"];
    let issuer = Issuer::start(set(&[&keys["rsa"], &keys["ec"]]));
    let gateway = start(&upstream, &issuer, "");
    let claims = json!({ "sub": "victim", "exp": in_seconds(600) });
    let pem = made["pem"]["rsa"].as_str().unwrap();
    let secrets = [pem.as_bytes(), pem.trim_end().as_bytes(), keys["rsa"]["n"].as_str().unwrap().as_bytes(), b""];
    for secret in secrets {
        for header in [json!({ "alg": "HS256", "kid": "rsa" }), json!({ "alg": "HS256", "kid": "rsa", "jwk": keys["ec"] })] {
            refused(&gateway, &hs256(secret, &header, &claims), 401, "token_algorithm_refused");
        }
        refused(&gateway, &hs256(secret, &json!({ "alg": "HS256" }), &claims), 401, "token_key_unknown");
        refused(&gateway, &hs256(secret, &json!({ "alg": "RS256", "kid": "rsa" }), &claims), 401, "token_signature_invalid");
    }
    for alg in ["none", "None", "NONE", "nOnE", "PS256", "RS512", "ES256"] {
        let token = unsigned(&json!({ "alg": alg, "kid": "rsa" }), &claims) + ".";
        refused(&gateway, &token, 401, "token_algorithm_refused");
    }
    // An honest signature by the other key, under this one's name.
    let swapped = issue(
        Maker::Node,
        &json!({
            "keys": [{ "kid": "mine", "alg": "ES256" }],
            "tokens": [
                { "kid": "mine", "header": { "kid": "rsa" }, "claims": claims },
                { "kid": "mine", "header": { "kid": "ec" }, "claims": claims },
                { "kid": "mine", "header": { "kid": "ec", "jku": format!("{}?mine", issuer.url()) }, "claims": claims },
            ],
        }),
    );
    refused(&gateway, token(&swapped, 0), 401, "token_algorithm_refused");
    refused(&gateway, token(&swapped, 1), 401, "token_signature_invalid");
    refused(&gateway, token(&swapped, 2), 401, "token_signature_invalid");
    assert!(issuer.heads().iter().all(|head| !head.contains("mine")), "a token's jku was followed");
    assert_eq!(ask(&gateway, token(&made, 0)).status, 200, "the harmless twin");
}

/// Entra ID and others publish keys without `alg`.
#[test]
fn keys_that_do_not_say_their_algorithm_need_the_configurations() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Python, &[("rsa", "RS256"), ("ec", "ES256")]);
    let mut keys = [made["keys"]["rsa"].clone(), made["keys"]["ec"].clone()];
    keys.iter_mut().for_each(|key| drop(key.as_object_mut().unwrap().remove("alg")));
    let issuer = Issuer::start(set(&[&keys[0], &keys[1]]));
    let with = start(&upstream, &issuer, ", algorithm = \"RS256\"");
    assert_eq!(ask(&with, token(&made, 0)).status, 200);
    refused(&with, token(&made, 1), 401, "token_key_unknown");
    let without = start(&upstream, &issuer, "");
    refused(&without, token(&made, 0), 401, "token_key_unknown");
    logged(&without, "none says its algorithm");
}

#[test]
fn keys_live_through_a_reload_and_end_with_the_configuration() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "ES256")]);
    let issuer = Issuer::start(set(&[&made["keys"]["k1"]]));
    let url = secret(&issuer, ", refresh = \"1s\"");
    let before = config(upstream.address(), &[("acme", &url, "")]);
    let gateway = start_with(&before, &issuer);
    ready(&gateway);
    assert_eq!(ask(&gateway, token(&made, 0)).status, 200);
    issuer.say(Reply::Bytes(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_vec()));
    gateway.write("doorward.toml", &before.replace("missing_origin", "").replace("refresh = \"1s\"", "refresh = \"2s\""));
    gateway.generation(2);
    assert_eq!(ask(&gateway, token(&made, 0)).status, 200, "the set is known in the new configuration");
    gateway.counted(r#"doorward_secret_uses_total{secret="idp/k1",tenant="acme"}"#, 2.0);
    // Another tenant with another URL: the issuer is not asked any more, and its keys are nobody's.
    gateway.write("doorward.toml", &before.replace(&url, "jwks_url = \"http://127.0.0.1:9/keys\""));
    gateway.generation(3);
    let asked = issuer.fetches();
    refused(&gateway, token(&made, 0), 503, "gateway_keys_missing");
    gateway.write("doorward.toml", &before.replace(&url, "file = \"identity.key\", format = \"jwt\""));
    gateway.generation(4);
    refused(&gateway, token(&made, 0), 401, "token_algorithm_refused");
    assert!(issuer.fetches() <= asked + 1, "an issuer that is not named is asked");
}

/// Whom the gateway believes, and whom it does not ask.
#[test]
fn only_the_named_authorities_are_believed_and_no_proxy_is_asked() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "ES256")]);
    let issuer = Issuer::start(set(&[&made["keys"]["k1"]]));
    let system = config(upstream.address(), &[("acme", &format!("jwks_url = \"{}\"", issuer.url()), "")]);
    let proxies = "export HTTPS_PROXY=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 ALL_PROXY=http://127.0.0.1:9 NO_PROXY=";
    let distrusting = Gateway::start_by(proxies, &system, &[]);
    ready(&distrusting);
    refused(&distrusting, token(&made, 0), 503, "gateway_keys_missing");
    logged(&distrusting, "UnknownIssuer");
    assert_eq!(issuer.fetches(), 0, "nothing was asked of a server that could not prove who it is");
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("system.pem");
    std::fs::write(&ca, issuer.authority.pem()).unwrap();
    let trusting = Gateway::start_by(&format!("{proxies}\nexport SSL_CERT_FILE={}", ca.display()), &system, &[]);
    ready(&trusting);
    assert_eq!(ask(&trusting, token(&made, 0)).status, 200, "the system's authorities");
}

#[test]
fn check_says_what_it_does_not_fetch() {
    let issuer = Issuer::start(set(&[]));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), issuer.authority.pem()).unwrap();
    std::fs::write(directory.path().join("assertion.key"), crate::gateway::ASSERTION_KEY).unwrap();
    let config = config("127.0.0.1:3000".parse().unwrap(), &[("acme", &secret(&issuer, ""), "")]);
    std::fs::write(directory.path().join("doorward.toml"), config).unwrap();
    let said = doorward(&["check"], directory.path());
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success() && text.contains(&format!("secret idp  jwt keys of {}, which check does not fetch", issuer.url())),
        "{text}"
    );
    assert_eq!(issuer.fetches(), 0);
}

#[test]
fn a_session_ends_with_the_issuers_key_behind_it() {
    let upstream = Upstream::plain();
    let made = issued(Maker::Node, &[("k1", "ES256"), ("k2", "ES256")]);
    let keys = &made["keys"];
    let issuer = Issuer::start(set(&[&keys["k1"], &keys["k2"]]));
    let mints = "[tenant.endpoints]\nsession_tokens = \"/mint\"";
    let config = config(upstream.address(), &[("acme", &secret(&issuer, ", refresh = \"1s\""), mints)]);
    let config = config.replace("[[tenant]]", "[session]\nkeys = [{ id = \"n1\", file = \"session.key\" }]\n[[tenant]]");
    let files = [("ca.pem", issuer.authority.pem()), ("session.key", "session_key_0123456789abcdef0123".to_owned())];
    let gateway = Gateway::start_with(&config, &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    ready(&gateway);
    let mint = |index| {
        let body = json!({ "embed_key": format!("{EMBED_KEY}0"), "identity_token": token(&made, index) });
        gateway.ask("POST", "/mint", &[("Origin", ORIGIN), ("Content-Type", "application/json")], body.to_string())
    };
    let sessions: Vec<_> = (0..2).map(|index| mint(index).json()["token"].as_str().unwrap().to_owned()).collect();
    let call = |session: &str| gateway.ask("GET", "/a", &[("Origin", ORIGIN), ("Authorization", &format!("Bearer {session}"))], b"");
    sessions.iter().for_each(|session| assert_eq!(call(session).status, 200));
    issuer.say(set(&[&keys["k2"]]));
    until("the session to end", || (call(&sessions[0]).reason() == "session_revoked").then_some(()));
    assert_eq!(mint(0).reason(), "token_key_unknown", "nor can another be minted");
    assert_eq!(call(&sessions[1]).status, 200, "the other key's session goes on");
}
