//! The gateway's own endpoints: mints and checks in the vendors' shapes. They judge with the same functions as the data
//! plane, so a token that mints a session is one that would have been admitted. Off where no session key is configured.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;

use super::authenticate::{Judged, judge};
use super::identify::{AllowedOrigin, KnownTenant};
use super::shown::Shown;
use super::{Body, Caller, CallerSummary, Decision, OwnAnswer, Refused, Rules, denied, met, unknown};
use crate::clock::UnixTime;
use crate::json;
use crate::policy::{Audience, Level, Mode};
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::origin::Origin;
use crate::tenant::{Endpoint, MissingOrigin, Tenant};
use crate::token::FormatName;
use crate::token::claim_values::usable_subject;
use crate::token::claims::VerifiedSubject;
use crate::token::keys::Material;
use crate::token::mint;
use crate::token::session::{Grant, GrantLevel, Minted, Proof};

/// Longest life of an identity JWT that Widgent's mint signs, in seconds.
const USER_TOKEN_SECS: u64 = 3600;

/// Answers, where the path is one of our own for the tenant that the request names; `None` leaves it to the data plane.
pub(super) fn decide(head: &RequestHead<'_>, body: Body<'_>, rules: Rules<'_>, now: UnixTime) -> Option<Decision> {
    if !rules.sessions.are_on() {
        return None;
    }
    let endpoint = rules.tenants.endpoint(head.method, &head.path)?;
    let members = match members(endpoint, head, body) {
        Ok(Some(members)) => members,
        Ok(None) => return Some(Decision::NeedBody),
        Err(why) => return Some(Decision::Deny(unknown(why, head.origin, rules.tenants))),
    };
    let known = match identify(endpoint, &members, head, rules) {
        Ok(known) => known,
        Err(why) => return Some(Decision::Deny(unknown(why, head.origin, rules.tenants))),
    };
    let tenant = Arc::clone(&known.tenant);
    if !tenant.has_endpoint(endpoint, &head.path) {
        return None;
    }
    if let Err(why) = rules.meter.arrive(met(&tenant), &known.embed_key, head, now) {
        return Some(Decision::Deny(denied(why.into(), head, tenant)));
    }
    let answer = || match endpoint {
        Endpoint::SessionTokens => session_tokens(known, &members, head, rules, now),
        Endpoint::EmbedConfig => embed_config(known, head, rules, now),
        Endpoint::IdentityVerify => identity(known, &members, "hmac", head, rules, now),
        Endpoint::IdentityIdentify => identity(known, &members, "token", head, rules, now),
        Endpoint::UserToken => user_token(&known.tenant, &members, head, now),
    };
    Some(match answer() {
        Ok((body, caller)) => {
            let readable_by = head.origin.map(|o| o.as_str().to_owned()); // allowed by now
            Decision::Own(OwnAnswer { body, tenant, caller, readable_by })
        }
        Err(refused) => Decision::Deny(denied(refused, head, tenant)),
    })
}

type Members = Map<String, Value>;

/// The answer's body, and who was proven or given a token.
type Answered = Result<(Value, CallerSummary), Refused>;

/// The members of the JSON body; `None` when it must be read first.
fn members(endpoint: Endpoint, head: &RequestHead<'_>, body: Body<'_>) -> Result<Option<Members>, Denied> {
    if endpoint == Endpoint::EmbedConfig {
        return Ok(Some(Members::new()));
    }
    if head.headers().contains_key(http::header::CONTENT_ENCODING) {
        return Err(Denied::new(Reason::BodyMalformed, "Content-Encoding"));
    }
    match body {
        Body::NotRead => Ok(None),
        Body::TooLarge => Err(Reason::BodyTooLarge.into()),
        Body::TooSlow => Err(Reason::BodyTimeout.into()),
        Body::Held(bytes) => json::object(bytes).map(Some).map_err(|problem| match problem {
            json::Problem::Malformed => Denied::new(Reason::BodyMalformed, problem.sentence()),
            json::Problem::Duplicate => Denied::new(Reason::BodyAmbiguous, problem.sentence()),
        }),
    }
}

/// A text member; `null` and `""` are absent (see the decision record on empty ids). Safe integers count as ids.
fn text(members: &Members, name: &str) -> Result<Option<String>, Denied> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|t| !t.is_empty())),
        Some(Value::Number(n)) if n.as_i64().is_some_and(|n| n.unsigned_abs() <= json::MAX_SAFE_INTEGER) => Ok(Some(n.to_string())),
        Some(_) => Err(Denied::new(Reason::BodyMalformed, format!("{name} is neither a string nor a safe integer"))),
    }
}

fn identify(endpoint: Endpoint, members: &Members, head: &RequestHead<'_>, rules: Rules<'_>) -> Result<KnownTenant, Denied> {
    if endpoint != Endpoint::UserToken {
        let known = KnownTenant::identify_with(text(members, "embed_key")?.as_deref(), head, rules)?;
        for name in ["projectId", "productId"] {
            if let Some(name) = text(members, name)? {
                known.refuse_other_name(&name)?;
            }
        }
        return Ok(known);
    }
    // Server to server: the product names the tenant, and the secret proves the right to it.
    let product = text(members, "productId")?.ok_or(Denied::new(Reason::EmbedKeyMissing, "no productId"))?;
    let named = |tenant: &&Arc<Tenant>| tenant.names.contains(&product) && tenant.has_endpoint(endpoint, &head.path);
    let mut tenants = rules.tenants.all().iter().filter(named);
    match (tenants.next(), tenants.next()) {
        (Some(tenant), None) => {
            Ok(KnownTenant { tenant: Arc::clone(tenant), embed_key: String::new(), session: None, bearer_is_taken: true })
        }
        (Some(_), Some(_)) => Err(Denied::new(Reason::EmbedKeyAmbiguous, "two tenants have this productId")),
        (None, _) => Err(Denied::new(Reason::EmbedKeyUnknown, "no tenant has this productId")),
    }
}

/// Karta: `{"embed_key", "user_id"?, "identity_token"?}` → `{"token", "expires_in"}`.
fn session_tokens(known: KnownTenant, members: &Members, head: &RequestHead<'_>, rules: Rules<'_>, now: UnixTime) -> Answered {
    let (token, id) = (text(members, "identity_token")?, text(members, "user_id")?);
    let (caller, minted) = grant(known, token.as_deref(), id.as_deref(), head, rules, now)?;
    Ok((json!({ "token": minted.token, "expires_in": minted.expires_in }), caller.summary()))
}

/// Agentic Trust: `{userId, hmac}` or `{token}` → `{"verified": true, "user": {…}}`. Email and name beside an hmac are
/// nobody's word and are not given back. `session_token` is ours: the vendor's unchanged widget ignores it.
fn identity(
    known: KnownTenant,
    members: &Members,
    token_member: &'static str,
    head: &RequestHead<'_>,
    rules: Rules<'_>,
    now: UnixTime,
) -> Answered {
    let token = text(members, token_member)?.ok_or(Denied::new(Reason::TokenMissing, token_member))?;
    let id = text(members, "userId")?;
    let (caller, minted) = grant(known, Some(&token), id.as_deref(), head, rules, now)?;
    let mut answer = json!({ "verified": true, "session_token": minted.token, "expires_in": minted.expires_in });
    match (caller.verified(), answer.as_object_mut()) {
        (Some(subject), Some(members)) => {
            let mut user = subject.claims().clone();
            user.insert("id".to_owned(), json!(subject.subject()));
            members.insert("user".to_owned(), Value::Object(user));
        }
        // In `off`, tokens are not looked at, so nobody is called verified.
        (None, Some(members)) => drop(members.insert("verified".to_owned(), json!(false))),
        (_, None) => {}
    }
    Ok((answer, caller.summary()))
}

/// Karta: theme and flags by embed key and origin; never the origin list.
fn embed_config(known: KnownTenant, head: &RequestHead<'_>, rules: Rules<'_>, now: UnixTime) -> Answered {
    let page = AllowedOrigin::allow(known, head, rules.revocations, now)?;
    let tenant = &page.known.tenant;
    rules.meter.pass(met(tenant), None, false, head, now)?;
    let mut config = tenant.endpoints.embed_config.clone();
    let users_only = tenant.policy.audience == Audience::Users;
    config.insert("identity_required".to_owned(), json!(users_only && tenant.mode == Mode::Enforce));
    Ok((Value::Object(config), Caller::Anonymous.summary()))
}

/// Widgent's other edition: `{productId, verificationSecret, userId, name?, metadata?}` → `{token}`, an identity JWT of at
/// most an hour, signed with the tenant's own identity secret. For servers only.
fn user_token(tenant: &Tenant, members: &Members, head: &RequestHead<'_>, now: UnixTime) -> Answered {
    if head.is_from_a_page() {
        return Err(Reason::OriginUnexpected.into());
    }
    let shown = text(members, "verificationSecret")?.unwrap_or_default();
    let expected = tenant.endpoints.verification_secret.as_ref().ok_or(Reason::VerificationSecretInvalid)?;
    if !bool::from(shown.as_bytes().ct_eq(expected.expose())) {
        return Err(Reason::VerificationSecretInvalid.into());
    }
    let user = text(members, "userId")?.ok_or(Denied::new(Reason::SubjectMissing, "no userId"))?;
    usable_subject(&user)?;
    let subject_claim = tenant.claims.subject.first().map_or("sub", String::as_str);
    let mut claims = Map::new();
    claims.insert(subject_claim.to_owned(), json!(&user));
    for name in ["name", "email", "metadata"] {
        if let Some(value) = members.get(name).filter(|v| !v.is_null()) {
            claims.insert(name.to_owned(), value.clone());
        }
    }
    let lifetime = tenant.claims.max_lifetime.map_or(USER_TOKEN_SECS, |max| max.as_secs().min(USER_TOKEN_SECS));
    claims.insert("iat".to_owned(), json!(now.secs()));
    claims.insert("exp".to_owned(), json!(now.secs().saturating_add(lifetime)));
    let claims = Value::Object(claims);
    let signed = tenant.keys.all().live(FormatName::Jwt, now).find_map(|key| match key.material() {
        Material::Secret { decoding, .. } => {
            let secret = decoding.try_get_as_bytes().ok()?;
            Some((mint::jwt(secret, key.algorithm, key.kid.as_deref(), &claims).ok()?, Arc::clone(key)))
        }
        Material::Public { .. } => None,
    });
    let (token, key) = signed.ok_or(Denied::new(Reason::GatewayInternal, "the tenant has no shared secret of format jwt"))?;
    let caller = CallerSummary { level: Level::Verified, subject: Some(user), key: Some(key), evidence: Default::default() };
    Ok((json!({ "token": token }), caller))
}

/// Judges what was shown as the data plane would, and mints a session at that level. A bad token fails the mint in monitor
/// too: a session that outlived the failure would hide it.
fn grant(
    known: KnownTenant,
    token: Option<&str>,
    id: Option<&str>,
    head: &RequestHead<'_>,
    rules: Rules<'_>,
    now: UnixTime,
) -> Result<(Caller, Minted), Refused> {
    let page = AllowedOrigin::allow(known, head, rules.revocations, now)?;
    let tenant = &page.known.tenant;
    let shown = Shown::given(tenant, token, id)?;
    let judged = match tenant.mode {
        Mode::Off => Ok(Judged::Caller(shown.unproven())),
        Mode::Monitor | Mode::Enforce => judge(tenant, &shown, rules.revocations, now),
    };
    let caller = match judged {
        Ok(Judged::Caller(caller)) => caller,
        Ok(Judged::Expired) => Caller::Anonymous,
        Err(_) if tenant.mode == Mode::Monitor && token.is_none() => shown.unproven(),
        Err(why) => return Err(why),
    };
    let unverified = caller.level() < Level::Verified;
    if unverified && page.origin.is_none() && tenant.missing_origin == MissingOrigin::Verified {
        return Err(Refused::of(caller.summary(), Reason::OriginMissing));
    }
    if unverified && tenant.mode == Mode::Enforce && tenant.policy.audience == Audience::Users {
        return Err(Refused::of(caller.summary(), Denied::new(Reason::TokenMissing, "the audience is users")));
    }
    // The anonymous day is for what goes upstream.
    let passed = rules.meter.pass(met(tenant), caller.verified().map(VerifiedSubject::subject), false, head, now);
    passed.map_err(|why| Refused::of(caller.summary(), why))?;
    let minted = rules.sessions.mint(&granted(&caller, &page, rules, now))?;
    Ok((caller, minted))
}

fn granted(caller: &Caller, page: &AllowedOrigin<'_>, rules: Rules<'_>, now: UnixTime) -> Grant {
    let verified = caller.verified();
    let (level, sub) = match caller {
        Caller::Anonymous => (GrantLevel::Anonymous, None),
        Caller::Claimed(id) => (GrantLevel::Claimed, Some(id.as_str().to_owned())),
        Caller::Verified(subject, _) => (GrantLevel::Verified, Some(subject.subject().to_owned())),
    };
    Grant {
        jti: rules.request_id.to_owned(),
        tenant: page.known.tenant.id.clone(),
        embed_key: page.known.embed_key.clone(),
        origin: page.origin.map(Origin::as_str).map(str::to_owned),
        level,
        sub,
        proof: verified.map(|subject| Proof {
            format: subject.format().as_str().to_owned(),
            key: subject.key().fingerprint.to_string(),
            issued_at: subject.issued_at(),
            stepped_up_at: subject.stepped_up().map(|s| s.at),
            aal: subject.stepped_up().and_then(|s| s.aal.clone()),
        }),
        claims: verified.map(|subject| subject.claims().clone()).unwrap_or_default(),
        iat: now.secs(),
        exp: rules.sessions.end(now, verified.and_then(|subject| subject.expires_at())),
    }
}
