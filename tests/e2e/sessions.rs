//! Session tokens: minted in the vendors' shapes, bound to what they came from, re-judged on every call.

use serde_json::{Value, json};

use crate::gateway::{Gateway, ORIGIN, SECRET, in_seconds, jwt_with, until};
use crate::http::Answer;
use crate::upstream::Upstream;

const KEY: &str = "pk_live_0123456789abcdef";
const SESSION_KEY: &str = "session_key_0123456789abcdef0123";
const OTHER_SESSION_KEY: &str = "other_session_key_0123456789abcd";
const STEP_UP: &str = "step_up_secret_0123456789abcdef0";

/// One tenant of this preset; `tenant` lines are added to its table.
fn config(upstream: std::net::SocketAddr, preset: &str, secrets: &str, tenant: &str) -> String {
    format!(
        r#"
revocations = "revoked.txt"

[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
threads = 2
drain_delay = "0s"

[upstream]
address = "{upstream}"

[assertion]
audience = "agent"
keys = [{{ id = "a1", file = "assertion.key" }}]

[session]
keys = [{{ id = "n1", file = "session.key" }}]

[[tenant]]
id = "acme"
preset = "{preset}"
embed_keys = ["{KEY}"]
origins = ["{ORIGIN}", "https://second.example.com"]
names = ["org/agent", "prod_1"]
secrets = [{secrets}]
{tenant}
"#
    )
}

fn start(upstream: &Upstream, preset: &str, secrets: &str, tenant: &str) -> Gateway {
    let files = [
        ("session.key", SESSION_KEY),
        ("other.key", OTHER_SESSION_KEY),
        ("stepup.key", STEP_UP),
        ("verify.key", "verification_secret_0123456789abc"),
        ("revoked.txt", ""),
    ];
    Gateway::start_with(&config(upstream.address(), preset, secrets, tenant), &files)
}

const KARTA: &str = r#"{ id = "s1", file = "identity.key", format = "hmac" }, { id = "s2", file = "stepup.key", format = "karta-v2" }"#;
const JWT: &str = r#"{ id = "s1", file = "identity.key", format = "jwt" }"#;
const HMAC: &str = r#"{ id = "s1", file = "identity.key", format = "hmac" }"#;

fn hmac(id: &str) -> String {
    doorward::token::mint::hmac(SECRET.as_bytes(), id)
}

#[track_caller]
fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    gateway.ask("POST", path, &[("Origin", ORIGIN), ("Content-Type", "application/json")], body.to_string())
}

#[track_caller]
fn mint(gateway: &Gateway, body: &Value) -> String {
    let answer = post(gateway, "/v1/embed/session-tokens", body);
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.log());
    assert_eq!(answer.one("cache-control"), "no-store");
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN);
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn call(gateway: &Gateway, session: &str) -> Answer {
    call_from(gateway, session, ORIGIN)
}

fn call_from(gateway: &Gateway, session: &str, origin: &str) -> Answer {
    gateway.ask("GET", "/org/agent/v1/responses", &[("Origin", origin), ("Authorization", &format!("Bearer {session}"))], "")
}

#[test]
fn a_verified_user_mints_a_session_that_alone_suffices() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "karta", KARTA, "");
    let minted =
        post(&gateway, "/v1/embed/session-tokens", &json!({ "embed_key": KEY, "user_id": "user_123", "identity_token": hmac("user_123") }));
    assert_eq!(minted.json()["expires_in"], 900);
    let session = minted.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(call(&gateway, &session).status, 200);
    let seen = upstream.last();
    assert_eq!(
        (seen.one("x-identity-level"), seen.one("x-identity-subject"), seen.one("x-identity-method")),
        ("verified", "user_123", "session")
    );
    assert_eq!(seen.one("x-identity-session-id"), minted.one("x-request-id"));
    assert!(seen.all("authorization").is_empty() && !format!("{seen:?}").contains(&session));
    assert!(!gateway.audit_text().contains(&session), "no session in the audit");
}

#[test]
fn anonymous_and_soft_sessions_have_their_level() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "karta", KARTA, "");
    let anonymous = mint(&gateway, &json!({ "embed_key": KEY }));
    assert_eq!(call(&gateway, &anonymous).status, 200);
    assert_eq!(upstream.last().one("x-identity-level"), "anonymous");
    let first = upstream.last().one("x-identity-session-id").to_owned();
    let soft = mint(&gateway, &json!({ "embed_key": KEY, "user_id": "visitor_7" }));
    assert_eq!(call(&gateway, &soft).status, 200);
    assert_eq!((upstream.last().one("x-identity-level"), upstream.last().one("x-identity-claimed-subject")), ("claimed", "visitor_7"));
    assert!(upstream.last().all("x-identity-subject").is_empty());
    assert_ne!(upstream.last().one("x-identity-session-id"), first, "visitors can be told apart");
}

#[test]
fn a_bad_token_fails_the_mint_in_monitor_too_and_off_does_not_look() {
    let upstream = Upstream::plain();
    let body = json!({ "embed_key": KEY, "user_id": "user_123", "identity_token": hmac("somebody_else") });
    for (mode, expected) in
        [("enforce", (401, "token_signature_invalid")), ("monitor", (401, "token_signature_invalid")), ("off", (200, ""))]
    {
        let gateway = start(&upstream, "karta", KARTA, &format!("mode = \"{mode}\""));
        let answer = post(&gateway, "/v1/embed/session-tokens", &body);
        assert_eq!((answer.status, answer.reason()), expected, "{mode}");
        if mode == "off" {
            let session = answer.json()["token"].as_str().unwrap().to_owned();
            assert_eq!(call(&gateway, &session).status, 200);
            assert_eq!(upstream.last().one("x-identity-level"), "claimed");
        }
    }
}

#[test]
fn a_session_is_bound_to_its_origin_and_its_subject() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "karta", KARTA, "");
    let session = mint(&gateway, &json!({ "embed_key": KEY, "user_id": "user_123", "identity_token": hmac("user_123") }));
    let answer = call_from(&gateway, &session, "https://second.example.com");
    assert_eq!((answer.status, answer.reason()), (403, "origin_changed"));
    let answer = gateway.ask("GET", "/org/agent/v1/responses", &[("Authorization", &format!("Bearer {session}"))], "");
    assert_eq!((answer.status, answer.reason()), (403, "origin_changed"), "with an origin it does not work without");
    let bearer = format!("Bearer {session}");
    let create = |id: &str| {
        let body = json!({ "metadata": { "user_id": id, "attributes": {} } }).to_string();
        let headers = [("Origin", ORIGIN), ("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        gateway.ask("POST", "/org/agent/v1/managed-agents/sessions", &headers, body)
    };
    assert_eq!(create("user_123").status, 200);
    let answer = create("user_666");
    assert_eq!((answer.status, answer.reason()), (403, "subject_mismatch"));
    assert_eq!(answer.json()["error"], "identity_mismatch", "the member that Karta's clients look at");
    let answer = gateway.ask("GET", "/org/agent/v1/responses?end_user=user_666", &[("Origin", ORIGIN), ("Authorization", &bearer)], "");
    assert_eq!(answer.reason(), "subject_mismatch");
    let answer = gateway.ask("GET", "/other/agent/v1/responses", &[("Origin", ORIGIN), ("Authorization", &bearer)], "");
    assert_eq!(answer.reason(), "tenant_mismatch");
}

#[test]
fn a_session_is_no_identity_token_and_the_reverse() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "none", JWT, "");
    let identity = jwt_with(SECRET, &json!({ "sub": "user_123", "exp": in_seconds(600) }));
    let session = mint(&gateway, &json!({ "embed_key": KEY, "identity_token": identity }));
    let headers = [("Origin", ORIGIN), ("X-Embed-Key", KEY), ("X-User-Token", session.as_str())];
    assert_eq!(gateway.ask("GET", "/a", &headers, "").reason(), "session_invalid", "not where an identity token belongs");
    let answer = post(&gateway, "/v1/embed/session-tokens", &json!({ "embed_key": KEY, "identity_token": session }));
    assert_eq!(answer.reason(), "session_invalid", "a session mints no session");
    // The same claims under the identity secret, with our typ: forged.
    let payload = session.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    let header = r#"{"typ":"doorward-session+jwt","alg":"HS256","kid":"n1"}"#;
    let payload = String::from_utf8(payload).unwrap();
    let forged = doorward::token::mint::jwt_of(SECRET.as_bytes(), jsonwebtoken::Algorithm::HS256, header, &payload).unwrap();
    assert_eq!(call(&gateway, &forged).reason(), "session_invalid");
    let gateway = start(&upstream, "none", JWT, "mode = \"off\"");
    assert_eq!(call(&gateway, &forged).reason(), "session_invalid", "a forged session names nobody in any mode");
}

#[test]
fn a_session_never_outlives_its_token_its_secret_its_key_or_a_revocation() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "none", JWT, "");
    let token = jwt_with(SECRET, &json!({ "sub": "user_123", "exp": in_seconds(100) }));
    let answer = post(&gateway, "/v1/embed/session-tokens", &json!({ "embed_key": KEY, "identity_token": token }));
    let lasts = answer.json()["expires_in"].as_u64().unwrap();
    assert!((95..=100).contains(&lasts), "no longer than the token: {lasts}");
    let token = jwt_with(SECRET, &json!({ "sub": "user_123", "exp": in_seconds(600) }));
    let body = json!({ "embed_key": KEY, "identity_token": token });
    let (by_id, by_subject, by_secret) = (mint(&gateway, &body), mint(&gateway, &body), mint(&gateway, &body));
    assert_eq!(call(&gateway, &by_id).status, 200);
    let id = upstream.last().one("x-identity-session-id").to_owned();
    let revoked = |session: &str| (call(&gateway, session).reason() == "session_revoked").then_some(());
    gateway.write("revoked.txt", &format!("session {id}\n"));
    until("its revocation", || revoked(&by_id));
    assert_eq!(call(&gateway, &by_subject).status, 200, "the others live on");
    let later = jiff::Timestamp::from_second(in_seconds(5)).unwrap();
    gateway.write("revoked.txt", &format!("subject acme user_123 {later}\n"));
    until("the subject's revocation", || revoked(&by_subject));
    gateway.write("revoked.txt", "");
    until("the revocation to be taken back", || (call(&gateway, &by_secret).status == 200).then_some(()));
    gateway.write("identity.key", "another_secret_0123456789abcdef01");
    until("the secret's removal", || revoked(&by_secret));
}

#[test]
fn session_keys_rotate_and_not_before_revokes() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "karta", KARTA, "");
    let before = config(upstream.address(), "karta", KARTA, "");
    let old = mint(&gateway, &json!({ "embed_key": KEY }));
    let both = before.replace(
        "keys = [{ id = \"n1\", file = \"session.key\" }]",
        "keys = [{ id = \"n2\", file = \"other.key\" }, { id = \"n1\", file = \"session.key\" }]",
    );
    gateway.write("doorward.toml", &both);
    gateway.generation(2);
    let new = mint(&gateway, &json!({ "embed_key": KEY }));
    assert_eq!((call(&gateway, &old).status, call(&gateway, &new).status), (200, 200), "both live side by side");
    gateway.write("doorward.toml", &both.replace(", { id = \"n1\", file = \"session.key\" }", ""));
    gateway.generation(3);
    assert_eq!((call(&gateway, &old).reason(), call(&gateway, &new).status), ("session_invalid", 200));
    let later = jiff::Timestamp::from_second(in_seconds(5)).unwrap();
    gateway.write("doorward.toml", &format!("{both}\n[tenant.sessions]\nnot_before = {later}\n"));
    gateway.generation(4);
    assert_eq!(call(&gateway, &new).reason(), "session_revoked");
    gateway.write("doorward.toml", &before.replace(KEY, "pk_live_another_0123456789"));
    gateway.generation(5);
    assert_eq!(call(&gateway, &old).reason(), "session_revoked", "a removed embed key revokes its own");
}

#[test]
fn a_claimed_session_does_not_outlive_a_switch_to_enforce() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "none", JWT, "mode = \"monitor\"");
    let session = mint(&gateway, &json!({ "embed_key": KEY, "user_id": "visitor_7" }));
    assert_eq!(call(&gateway, &session).status, 200);
    assert_eq!(upstream.last().one("x-identity-level"), "claimed");
    gateway.write("doorward.toml", &config(upstream.address(), "none", JWT, "mode = \"enforce\""));
    gateway.generation(2);
    assert_eq!(call(&gateway, &session).reason(), "token_missing");
}

#[test]
fn kartas_structured_token_steps_up_through_the_mint() {
    let upstream = Upstream::plain();
    let route = "[[tenant.route]]\npath = \"/approvals/*\"\nrequire = \"stepped_up\"\nmax_age = \"5m\"";
    let gateway = start(&upstream, "karta", KARTA, route);
    let now = u64::try_from(in_seconds(0)).unwrap();
    let with = |at: u64| {
        let token = doorward::token::mint::karta_v2(STEP_UP.as_bytes(), "user_123", at, Some("mfa"));
        mint(&gateway, &json!({ "embed_key": KEY, "user_id": "user_123", "identity_token": token }))
    };
    let approve =
        |session: &str| gateway.ask("POST", "/approvals/7", &[("Origin", ORIGIN), ("Authorization", &format!("Bearer {session}"))], "");
    assert_eq!(approve(&with(now)).status, 200);
    assert_eq!((upstream.last().one("x-identity-level"), upstream.last().one("x-identity-aal")), ("stepped_up", "mfa"));
    let answer = approve(&with(now - 400));
    assert_eq!((answer.status, answer.reason()), (401, "step_up_required"));
    let challenge = answer.one("www-authenticate");
    assert!(challenge.contains("error=\"insufficient_user_authentication\"") && challenge.contains("max_age=300"), "{challenge}");
    let plain = mint(&gateway, &json!({ "embed_key": KEY, "user_id": "user_123", "identity_token": hmac("user_123") }));
    assert_eq!(approve(&plain).reason(), "step_up_required", "a plain HMAC never suffices");
    let token = doorward::token::mint::karta_v2(STEP_UP.as_bytes(), "user_123", now + 600, Some("mfa"));
    let answer = post(&gateway, "/v1/embed/session-tokens", &json!({ "embed_key": KEY, "user_id": "user_123", "identity_token": token }));
    assert_eq!(answer.reason(), "token_not_yet_valid", "the future is refused");
}

#[test]
fn agentic_trusts_endpoints_answer_in_their_shape() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "agentic-trust-hmac", HMAC, "");
    let ask = |path: &str, body: Value| {
        gateway.ask("POST", path, &[("Origin", ORIGIN), ("X-Api-Key", KEY), ("Content-Type", "application/json")], body.to_string())
    };
    let answer = ask("/identity/verify", json!({ "userId": "user_123", "hmac": hmac("user_123"), "email": "unsigned@example.com" }));
    assert_eq!((answer.status, &answer.json()["verified"]), (200, &json!(true)), "{answer:?}");
    assert!(!answer.text().contains("unsigned@"), "nobody's word is not given back");
    let session = answer.json()["session_token"].as_str().unwrap().to_owned();
    assert_eq!(call(&gateway, &session).status, 200);
    assert_eq!(upstream.last().one("x-identity-subject"), "user_123");
    assert_eq!(ask("/identity/verify", json!({ "userId": "user_666", "hmac": hmac("user_123") })).status, 401);
    // The unchanged widget sends nothing afterwards: anonymous, never guessed.
    assert_eq!(gateway.ask("GET", "/chat/x", &[("Origin", ORIGIN), ("X-Api-Key", KEY)], "").status, 200);
    assert_eq!(upstream.last().one("x-identity-level"), "anonymous");

    let gateway = start(&upstream, "agentic-trust-jwt", JWT, "");
    let token = jwt_with(SECRET, &json!({ "sub": "user_123", "email": "a@example.com", "exp": in_seconds(600) }));
    let headers = [("Origin", ORIGIN), ("X-Api-Key", KEY), ("Content-Type", "application/json")];
    let answer = gateway.ask("POST", "/identity/identify", &headers, json!({ "token": token }).to_string());
    assert_eq!((&answer.json()["verified"], &answer.json()["user"]["email"]), (&json!(true), &json!("a@example.com")));
}

#[test]
fn widgents_mint_is_for_servers_only() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "widgent", JWT, "verification_secret = { file = \"verify.key\" }");
    let body =
        json!({ "productId": "prod_1", "verificationSecret": "verification_secret_0123456789abc", "userId": "user_123", "name": "Ada" });
    let ask = |headers: &[(&str, &str)], body: &Value| gateway.ask("POST", "/v1/auth/user-token", headers, body.to_string());
    let answer = ask(&[], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let headers = [("Origin", ORIGIN), ("X-Service-Key", KEY), ("X-User-Token", token.as_str())];
    assert_eq!(gateway.ask("GET", "/v1/chat", &headers, "").status, 200, "an identity token like any other");
    assert_eq!(upstream.last().one("x-identity-subject"), "user_123");
    for from_a_page in [("Origin", ORIGIN), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Site", "same-origin")] {
        let answer = ask(&[from_a_page], &body);
        assert_eq!((answer.status, answer.reason()), (403, "origin_unexpected"), "{from_a_page:?}");
    }
    let mut wrong = body.clone();
    wrong["verificationSecret"] = json!("verification_secret_0123456789abX");
    assert_eq!(ask(&[], &wrong).reason(), "verification_secret_invalid");
    let limited = (0..200).map(|_| ask(&[], &wrong)).find(|a| a.status == 429).expect("the limit");
    assert_eq!(limited.reason(), "rate_limited");
    assert!(limited.one("retry-after").parse::<u32>().is_ok());
}

#[test]
fn without_session_keys_there_are_no_sessions() {
    let upstream = Upstream::plain();
    let config = config(upstream.address(), "karta", KARTA, "");
    let (before, after) = config.split_once("[session]").unwrap();
    let after = after.split_once("[[tenant]]").unwrap().1;
    let gateway = Gateway::start_with(&format!("{before}[[tenant]]{after}"), &[("stepup.key", STEP_UP), ("revoked.txt", "")]);
    let answer = post(&gateway, "/v1/embed/session-tokens", &json!({ "embed_key": KEY }));
    assert_eq!(answer.reason(), "embed_key_missing", "the path is the upstream's own then");
    let forged = "eyJ0eXAiOiJkb29yd2FyZC1zZXNzaW9uK2p3dCIsImFsZyI6IkhTMjU2Iiwia2lkIjoibjEifQ.e30.AAAA";
    assert_eq!(call(&gateway, forged).reason(), "session_invalid");
}

#[test]
fn embed_config_shows_theme_and_flags_and_never_the_origins() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "karta", KARTA, "[tenant.embed_config]\ntheme = { accent = \"#1a73e8\" }");
    let answer = gateway.ask("GET", "/v1/embed/config", &[("Origin", ORIGIN), ("X-Embed-Key", KEY)], "");
    assert_eq!(answer.json(), json!({ "theme": { "accent": "#1a73e8" }, "identity_required": false }));
    let answer = gateway.ask("GET", "/v1/embed/config", &[("Origin", "https://evil.example"), ("X-Embed-Key", KEY)], "");
    assert_eq!(answer.reason(), "origin_not_allowed");
}
