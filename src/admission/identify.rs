//! Which tenant, and may this page call: the first two states. A tenant is named by its embed key or by a session of ours
//! whose signature holds; names that stand beside it must be its own. A session is looked at whatever the mode: a forged one
//! names nobody.

use std::borrow::Cow;
use std::sync::Arc;

use super::Rules;
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::credential::Form;
use crate::request::embed_key::EmbedKey;
use crate::request::origin::Origin;
use crate::revocations::Revocations;
use crate::tenant::{MissingOrigin, Place, Tenant};
use crate::token::keys::IdentityKey;
use crate::token::session::{Grant, GrantLevel, Session, SignedSession};

/// A tenant named by its embed key or a session, and by nothing that contradicts it.
pub(super) struct KnownTenant {
    pub(super) tenant: Arc<Tenant>,
    /// The key that named it.
    pub(super) embed_key: String,
    /// The session that the request carries, or why it is none: judged after the origin, with the tenant known.
    pub(super) session: Option<Result<SignedSession, Denied>>,
    /// `Authorization: Bearer` holds the embed key or the session, so it is no identity token.
    pub(super) bearer_is_taken: bool,
}

impl KnownTenant {
    pub(super) fn identify(head: &RequestHead<'_>, rules: Rules<'_>) -> Result<Self, Denied> {
        Self::identify_with(None, head, rules)
    }

    /// The same, with an embed key that stood in the body of one of our own endpoints.
    pub(super) fn identify_with(in_body: Option<&str>, head: &RequestHead<'_>, rules: Rules<'_>) -> Result<Self, Denied> {
        let tenants = rules.tenants;
        let bearer = head.bearer()?;
        let carried = carried_session(head)?;
        let mut session = carried.as_ref().map(|c| rules.sessions.authenticate(c.token()));
        let mut named = Named::default();
        if let Some(Ok(signed)) = &session
            && let Err(why) = named.by_session(signed.grant(), rules)
        {
            session = Some(Err(why));
        }
        let bearer_is_key = bearer.is_some_and(|b| tenants.by_key(b).is_some());
        if let Some(key) = bearer.filter(|b| bearer_is_key || (session.is_none() && EmbedKey::parse(b).is_ok())) {
            named.by_key(key, tenants.by_key(key))?;
        }
        if let Some(key) = in_body {
            named.by_key(key, tenants.by_key(key))?;
        }
        for place in tenants.key_places() {
            if let Some(key) = read(head, place)? {
                named.by_key(&key, tenants.by_key(&key).filter(|t| t.places.embed_key.contains(place)))?;
            }
        }
        let (embed_key, tenant) = match (named.settle(), &session) {
            // A forged session names nobody, and nothing else does either.
            (Err(_), Some(Err(why))) => return Err(why.clone()),
            (settled, _) => settled?,
        };
        if in_body.is_some_and(|other| other != embed_key) {
            return Err(Reason::EmbedKeyAmbiguous.into());
        }
        for place in &tenant.places.embed_key {
            if read(head, place)?.is_some_and(|other| *other != embed_key) {
                return Err(Reason::EmbedKeyAmbiguous.into());
            }
        }
        if matches!(carried, Some(Carried::Query(_)))
            && let Err(why) = refuse_query(head, &tenant)
        {
            session = Some(Err(why));
        }
        let bearer_is_taken = bearer_is_key || matches!(carried, Some(Carried::Bearer(_)));
        let known = Self { tenant, embed_key, session, bearer_is_taken };
        for place in &known.tenant.places.tenant_name {
            if let Some(name) = read(head, place)? {
                known.refuse_other_name(&name)?;
            }
        }
        Ok(known)
    }

    /// Another tenant's name beside this tenant's key (`threats` 38).
    pub(super) fn refuse_other_name(&self, name: &str) -> Result<(), Denied> {
        let names = &self.tenant.names;
        if names.is_empty() || names.iter().any(|n| n == name) { Ok(()) } else { Err(Reason::TenantMismatch.into()) }
    }
}

/// The tenant that everything read so far names.
#[derive(Default)]
struct Named {
    found: Option<(String, Arc<Tenant>)>,
    unknown: bool,
}

impl Named {
    /// A session that we signed names its tenant. The embed key it was minted with ends it where that is gone, or is another
    /// tenant's now.
    fn by_session(&mut self, grant: &Grant, rules: Rules<'_>) -> Result<(), Denied> {
        let revoked = |what: &'static str| Denied::new(Reason::SessionRevoked, what);
        let tenant = rules.tenants.by_id(&grant.tenant).ok_or(revoked("its tenant"))?;
        self.found = Some((grant.embed_key.clone(), Arc::clone(tenant)));
        let minted_with = rules.tenants.by_key(&grant.embed_key).filter(|owner| owner.id == grant.tenant);
        minted_with.map(|_| ()).ok_or(revoked("its embed key"))
    }

    fn by_key(&mut self, key: &str, tenant: Option<&Arc<Tenant>>) -> Result<(), Denied> {
        match (tenant, &self.found) {
            (None, _) => self.unknown = true,
            (Some(_), Some((other, _))) if *other != key => return Err(Reason::EmbedKeyAmbiguous.into()),
            (Some(_), Some(_)) => {}
            (Some(tenant), None) => self.found = Some((key.to_owned(), Arc::clone(tenant))),
        }
        Ok(())
    }

    fn settle(self) -> Result<(String, Arc<Tenant>), Denied> {
        self.found.ok_or(if self.unknown { Reason::EmbedKeyUnknown } else { Reason::EmbedKeyMissing }.into())
    }
}

/// A credential with our `typ`, and where it stood.
enum Carried<'a> {
    Bearer(&'a str),
    Subprotocol(&'a str),
    Query(Cow<'a, str>),
}

impl Carried<'_> {
    fn token(&self) -> &str {
        match self {
            Self::Bearer(token) | Self::Subprotocol(token) => token,
            Self::Query(token) => token,
        }
    }
}

/// The one session that a request carries: in `Authorization`, or where a browser cannot set headers, as a WebSocket
/// subprotocol or a query parameter.
fn carried_session<'a>(head: &RequestHead<'a>) -> Result<Option<Carried<'a>>, Denied> {
    let is_session = |token: &&str| matches!(Form::of(token), Ok(Form::Session));
    let bearer = head.bearer()?.filter(is_session).map(Carried::Bearer);
    let subprotocol = head.websocket_token()?.map(Carried::Subprotocol);
    let query = head.query.one(RequestHead::SESSION_PARAMETER)?.filter(|t| is_session(&&**t)).map(Carried::Query);
    let mut all = [bearer, subprotocol, query].into_iter().flatten();
    match (all.next(), all.next()) {
        (Some(first), Some(second)) if first.token() != second.token() => Err(Reason::CredentialAmbiguous.into()),
        (first, _) => Ok(first),
    }
}

/// A token in a URL ends up in histories and logs, so it is taken only where the tenant allows it, and only from a stream
/// that cannot be a navigation.
fn refuse_query(head: &RequestHead<'_>, tenant: &Tenant) -> Result<(), Denied> {
    let refused = |why: &'static str| Err(Denied::new(Reason::SessionInvalid, why));
    if !tenant.sessions.in_query {
        return refused("sessions in the query are not enabled");
    }
    if head.is_navigation()? || !(head.upgrade || head.wants_event_stream()?) {
        return refused("a session in the query is for GET streams only");
    }
    Ok(())
}

/// The value at a place in the head. A Bearer is read by its own callers.
pub(super) fn read<'a>(head: &RequestHead<'a>, place: &Place) -> Result<Option<Cow<'a, str>>, Denied> {
    match place {
        Place::Bearer => Ok(None),
        Place::Header(name) => Ok(head.header(name)?.map(Cow::Borrowed)),
        Place::Query(name) => head.query.one(name),
        Place::Path(pattern) => Ok(pattern.captures(&head.path).map(Cow::Owned)),
    }
}

/// A tenant whose list has the page's origin, or a request without one; and a session, if it has one, that is still good
/// here.
pub(super) struct AllowedOrigin<'a> {
    pub(super) known: KnownTenant,
    pub(super) origin: Option<Origin<'a>>,
    pub(super) session: Option<Session>,
    /// The live key behind a verified session.
    pub(super) parent: Option<Arc<IdentityKey>>,
}

impl<'a> AllowedOrigin<'a> {
    pub(super) fn allow(mut known: KnownTenant, head: &RequestHead<'a>, revocations: &Revocations, now: UnixTime) -> Result<Self, Denied> {
        allow_page(&known.tenant, head.origin)?;
        let session = known.session.take().transpose()?.map(|signed| signed.accept(now)).transpose()?;
        let parent = match &session {
            Some(session) => still_good(session.grant(), &known.tenant, head.origin, revocations, now)?,
            None => None,
        };
        Ok(Self { origin: head.origin, known, session, parent })
    }
}

/// The tenant's list, before anything is known of the caller.
pub(super) fn allow_page(tenant: &Tenant, origin: Option<Origin<'_>>) -> Result<(), Reason> {
    match origin {
        Some(origin) if !tenant.allows(origin) => Err(Reason::OriginNotAllowed),
        None if tenant.missing_origin == MissingOrigin::Deny => Err(Reason::OriginMissing),
        Some(_) | None => Ok(()),
    }
}

/// Nothing outlives its parent (`threats` 13): the session's origin, its own revocation, and the secret behind it, on every
/// call.
fn still_good(
    grant: &Grant,
    tenant: &Tenant,
    origin: Option<Origin<'_>>,
    revocations: &Revocations,
    now: UnixTime,
) -> Result<Option<Arc<IdentityKey>>, Denied> {
    let revoked = |what: &'static str| Err(Denied::new(Reason::SessionRevoked, what));
    if grant.origin.as_deref() != origin.map(Origin::as_str) {
        return Err(Reason::OriginChanged.into());
    }
    if tenant.sessions.not_before.is_some_and(|from| UnixTime::from_secs(grant.iat) < from) {
        return revoked("minted before sessions.not_before");
    }
    if revocations.session(&grant.jti) {
        return revoked("its id");
    }
    if grant.level != GrantLevel::Verified {
        return Ok(None);
    }
    let (Some(subject), Some(proof)) = (&grant.sub, &grant.proof) else {
        return Err(Denied::new(Reason::SessionInvalid, "a verified session without subject or proof"));
    };
    if revocations.subject(&tenant.id, subject, Some(grant.iat as f64)) {
        return revoked("its subject");
    }
    let fingerprint = proof.fingerprint();
    let keys = tenant.keys.all();
    let parent = keys.iter().find(|key| Some(key.fingerprint) == fingerprint && key.is_live(now));
    match parent {
        Some(parent) if !revocations.secret(parent.fingerprint) => Ok(Some(Arc::clone(parent))),
        None if tenant.keys.is_waiting() => Err(Denied::new(Reason::KeysMissing, "the issuer's key set was never fetched")),
        _ => revoked("the secret behind it"),
    }
}
