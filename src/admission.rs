//! THE order of checks. [`decide`] is a pure, synchronous function: no I/O, no clock, no framework. It walks states that
//! only the state before can make (`KnownTenant` → `AllowedOrigin` → `Authenticated` → [`Admitted`]), so the order cannot
//! change without changing types. Called by the server for every request; only an [`Admitted`] can be signed.

use std::borrow::Cow;
use std::sync::Arc;

use http::header;

use crate::clock::UnixTime;
use crate::cors::{self, PreflightAnswer};
use crate::policy::{Level, Mode, Requirement};
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::body::{BodyFields, Purpose};
use crate::request::credential::Form;
use crate::request::embed_key::EmbedKey;
use crate::request::origin::Origin;
use crate::revocations::Revocations;
use crate::tenant::{MissingOrigin, OnExpired, Place, Tenant, Tenants, UnsignedId};
use crate::token::claims::{SteppedUp, VerifiedSubject};
use crate::token::{FORMATS, FormatName};

/// What decisions are made by: one consistent set.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'w> {
    /// All tenants.
    pub tenants: &'w Tenants,
    /// What is revoked.
    pub revocations: &'w Revocations,
}

/// How far a body got before this decision.
#[derive(Clone, Copy, Debug)]
pub enum Body<'b> {
    /// Not asked for yet.
    NotRead,
    /// All of it.
    Held(&'b [u8]),
    /// Larger than may be held.
    TooLarge,
    /// Did not arrive in time.
    TooSlow,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Decision {
    /// Forward it, with this signed.
    Forward(Admitted),
    /// Answer the preflight.
    Preflight(PreflightAnswer),
    /// Hold the body, then decide again.
    NeedBody,
    /// Stop.
    Deny(Denial),
}

/// A stop, with what its answer needs.
#[derive(Debug)]
pub struct Denial {
    /// Why.
    pub why: Denied,
    /// The tenant, where it was known by then.
    pub tenant: Option<Arc<Tenant>>,
    /// The origin whose page may read the answer.
    pub readable_by: Option<String>,
}

/// An id that exactly one place outside a token asserts. Nobody signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedId(String);

impl ClaimedId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who is talking.
#[derive(Debug)]
pub enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// Somebody by their own word.
    Claimed(ClaimedId),
    /// Somebody by the host's word, with the step-up that is fresh enough for this request.
    Verified(VerifiedSubject, Option<SteppedUp>),
}

impl Caller {
    /// How sure we are.
    pub fn level(&self) -> Level {
        match self {
            Self::Anonymous => Level::Anonymous,
            Self::Claimed(_) => Level::Claimed,
            Self::Verified(_, None) => Level::Verified,
            Self::Verified(_, Some(_)) => Level::SteppedUp,
        }
    }

    /// The verified subject, where there is one.
    pub fn verified(&self) -> Option<&VerifiedSubject> {
        if let Self::Verified(subject, _) = self { Some(subject) } else { None }
    }
}

/// The permit: this request may go to this tenant's upstream as this caller.
#[derive(Debug)]
pub struct Admitted {
    tenant: Arc<Tenant>,
    origin: Option<String>,
    caller: Caller,
    would_deny: Option<Denied>,
}

impl Admitted {
    /// Whose.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The page's origin, where there was one.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Who is talking.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// In `monitor`: what `enforce` would have denied it for.
    pub fn would_deny(&self) -> Option<&Denied> {
        self.would_deny.as_ref()
    }
}

/// Decides about one request.
pub fn decide(head: &RequestHead<'_>, body: Body<'_>, rules: Rules<'_>, now: UnixTime) -> Decision {
    if head.is_preflight() {
        return preflight(head, rules.tenants);
    }
    let known = match KnownTenant::identify(head, rules.tenants) {
        Ok(known) => known,
        Err(why) => return Decision::Deny(unknown(why, head.origin, rules.tenants)),
    };
    let tenant = Arc::clone(&known.tenant);
    let walk = || {
        let page = AllowedOrigin::allow(known, head)?;
        let Some(shown) = Shown::collect(&page, head, body)? else { return Ok(None) };
        let authenticated = Authenticated::authenticate(page, shown, rules.revocations, now)?;
        authenticated.admit(head, now).map(Some)
    };
    match walk() {
        Ok(Some(admitted)) => Decision::Forward(admitted),
        Ok(None) => Decision::NeedBody,
        Err(why) => {
            let readable_by = head.origin.filter(|o| tenant.allows(*o)).map(|o| o.as_str().to_owned());
            Decision::Deny(Denial { why, tenant: Some(tenant), readable_by })
        }
    }
}

/// A stop before any tenant was known: readable by any tenant's pages.
pub fn unknown(why: Denied, origin: Option<Origin<'_>>, tenants: &Tenants) -> Denial {
    let readable_by = origin.filter(|o| tenants.any_allows(*o)).map(|o| o.as_str().to_owned());
    Denial { why, tenant: None, readable_by }
}

fn preflight(head: &RequestHead<'_>, tenants: &Tenants) -> Decision {
    match head.origin.filter(|origin| tenants.any_allows(*origin)) {
        Some(origin) => Decision::Preflight(cors::preflight(origin, tenants)),
        None => Decision::Deny(unknown(Reason::OriginNotAllowed.into(), head.origin, tenants)),
    }
}

/// A tenant named by its embed key, and by nothing that contradicts it.
struct KnownTenant {
    tenant: Arc<Tenant>,
    /// `Authorization: Bearer` holds the embed key, so it is no credential.
    bearer_is_key: bool,
}

impl KnownTenant {
    fn identify(head: &RequestHead<'_>, tenants: &Tenants) -> Result<Self, Denied> {
        let bearer = head.bearer()?;
        let bearer_tenant = bearer.and_then(|key| tenants.by_key(key));
        let mut named: Option<(Cow<'_, str>, &Arc<Tenant>)> = bearer.map(Cow::Borrowed).zip(bearer_tenant);
        let mut unknown = bearer.filter(|b| bearer_tenant.is_none() && EmbedKey::parse(b).is_ok()).is_some();
        for place in tenants.key_places() {
            let Some(key) = read(head, place)? else { continue };
            let Some(tenant) = tenants.by_key(&key).filter(|t| t.places.embed_key.contains(place)) else {
                unknown = true;
                continue;
            };
            if named.as_ref().is_some_and(|(other, _)| *other != key) {
                return Err(Reason::EmbedKeyAmbiguous.into());
            }
            named = Some((key, tenant));
        }
        let Some((key, tenant)) = named else {
            return Err(if unknown { Reason::EmbedKeyUnknown } else { Reason::EmbedKeyMissing }.into());
        };
        for place in &tenant.places.embed_key {
            if read(head, place)?.is_some_and(|other| other != key) {
                return Err(Reason::EmbedKeyAmbiguous.into());
            }
        }
        let known = Self { tenant: Arc::clone(tenant), bearer_is_key: bearer_tenant.is_some() };
        for place in &known.tenant.places.tenant_name {
            if let Some(name) = read(head, place)? {
                known.refuse_other_name(&name)?;
            }
        }
        Ok(known)
    }

    /// Another tenant's name beside this tenant's key (`threats` 38).
    fn refuse_other_name(&self, name: &str) -> Result<(), Denied> {
        let names = &self.tenant.names;
        if names.is_empty() || names.iter().any(|n| n == name) { Ok(()) } else { Err(Reason::TenantMismatch.into()) }
    }
}

/// The value at a place in the head. A Bearer is read by [`KnownTenant::identify`] and [`Shown::collect`] themselves.
fn read<'a>(head: &RequestHead<'a>, place: &Place) -> Result<Option<Cow<'a, str>>, Denied> {
    match place {
        Place::Bearer => Ok(None),
        Place::Header(name) => Ok(head.header(name)?.map(Cow::Borrowed)),
        Place::Query(name) => head.query.one(name),
        Place::Path(pattern) => Ok(pattern.captures(&head.path).map(Cow::Owned)),
    }
}

/// A tenant whose list has the page's origin, or a request without one.
struct AllowedOrigin<'a> {
    known: KnownTenant,
    origin: Option<Origin<'a>>,
}

impl<'a> AllowedOrigin<'a> {
    fn allow(known: KnownTenant, head: &RequestHead<'a>) -> Result<Self, Denied> {
        match head.origin {
            Some(origin) if !known.tenant.allows(origin) => Err(Reason::OriginNotAllowed.into()),
            None if known.tenant.missing_origin == MissingOrigin::Deny => Err(Reason::OriginMissing.into()),
            origin => Ok(Self { known, origin }),
        }
    }
}

/// What the caller shows: a credential, and ids beside it.
struct Shown<'a> {
    token: Option<Cow<'a, str>>,
    /// Distinct asserted ids, less those that mean nobody.
    ids: Vec<String>,
    /// In `monitor`: the body could not be read, so ids in it are unknown.
    unread: Option<Denied>,
}

impl<'a> Shown<'a> {
    /// `None` when the body must be held first.
    fn collect(page: &AllowedOrigin<'_>, head: &RequestHead<'a>, body: Body<'_>) -> Result<Option<Self>, Denied> {
        let tenant = &page.known.tenant;
        let Some(fields) = held_fields(tenant, head, body) else { return Ok(None) };
        let (fields, unread) = match fields {
            Ok(fields) => (fields, None),
            // A slow body is a limit, and limits never follow the mode.
            Err(why) if tenant.mode == Mode::Monitor && why.reason != Reason::BodyTimeout => (BodyFields::default(), Some(why)),
            Err(why) => return Err(why),
        };
        for name in fields.of(Purpose::TenantName) {
            page.known.refuse_other_name(name)?;
        }
        let mut shown = Self { token: None, ids: Vec::new(), unread };
        if !page.known.bearer_is_key
            && let Some(bearer) = head.bearer()?
        {
            shown.add_token(Cow::Borrowed(bearer))?;
        }
        for place in &tenant.places.token {
            if let Some(token) = read(head, place)? {
                shown.add_token(token)?;
            }
        }
        for token in fields.of(Purpose::Token) {
            shown.add_token(Cow::Owned(token.to_owned()))?;
        }
        for place in &tenant.places.asserted_id {
            if let Some(id) = read(head, place)? {
                shown.add_id(tenant, &id);
            }
        }
        for id in fields.of(Purpose::AssertedId) {
            shown.add_id(tenant, id);
        }
        Ok(Some(shown))
    }

    fn add_token(&mut self, token: Cow<'a, str>) -> Result<(), Denied> {
        match &self.token {
            Some(other) if *other != token => Err(Reason::CredentialAmbiguous.into()),
            _ => {
                self.token = Some(token);
                Ok(())
            }
        }
    }

    fn add_id(&mut self, tenant: &Tenant, id: &str) {
        if !tenant.exempt_ids.iter().any(|e| e == id) && !self.ids.iter().any(|i| i == id) {
            self.ids.push(id.to_owned());
        }
    }

    /// The one id asserted, if exactly one is.
    fn asserted(&self) -> Option<&str> {
        if let [id] = self.ids.as_slice() { Some(id) } else { None }
    }

    /// Who the caller is by their own word.
    fn unproven(&self) -> Caller {
        self.asserted().map_or(Caller::Anonymous, |id| Caller::Claimed(ClaimedId(id.to_owned())))
    }
}

/// The inspected members of the body; `None` when it must be read first.
fn held_fields(tenant: &Tenant, head: &RequestHead<'_>, body: Body<'_>) -> Option<Result<BodyFields, Denied>> {
    let places = &tenant.places;
    let wanted = tenant.mode != Mode::Off
        && head.has_body
        && !places.body.is_empty()
        && places.body_paths.iter().any(|pattern| pattern.covers(&head.path));
    if !wanted {
        return Some(Ok(BodyFields::default()));
    }
    if head.headers().contains_key(header::CONTENT_ENCODING) {
        return Some(Err(Denied::new(Reason::BodyMalformed, "Content-Encoding on a body that must be read")));
    }
    match body {
        Body::NotRead => None,
        Body::Held(bytes) => Some(BodyFields::parse(bytes, &places.body)),
        Body::TooLarge => Some(Err(Reason::BodyTooLarge.into())),
        Body::TooSlow => Some(Err(Reason::BodyTimeout.into())),
    }
}

/// A caller whose token, if any, was judged.
struct Authenticated<'a> {
    page: AllowedOrigin<'a>,
    caller: Caller,
    /// What enforce would deny; `None` in enforce, where it was denied.
    would_deny: Option<Denied>,
    /// The token was good but for its expiry and the tenant goes on anonymously.
    expired: bool,
}

impl<'a> Authenticated<'a> {
    fn authenticate(page: AllowedOrigin<'a>, shown: Shown<'_>, revocations: &Revocations, now: UnixTime) -> Result<Self, Denied> {
        let tenant = &page.known.tenant;
        // Sessions are our own word: a forged one names nobody, whatever the mode says about identity tokens.
        if shown.token.as_deref().and_then(|t| Form::of(t).ok()) == Some(Form::Session) {
            return Err(Denied::new(Reason::SessionInvalid, "session tokens are not enabled"));
        }
        let judged = match (tenant.mode, &shown.unread) {
            (Mode::Off, _) => Ok(Judged::Caller(shown.unproven())),
            (_, Some(unread)) => Err(unread.clone()),
            (_, None) => judge(tenant, &shown, revocations, now),
        };
        let (caller, would_deny, expired) = match judged {
            Ok(Judged::Caller(caller)) => (caller, None, false),
            Ok(Judged::Expired) => (Caller::Anonymous, None, true),
            Err(why) if tenant.mode == Mode::Monitor => {
                let caller = if shown.unread.is_some() { Caller::Anonymous } else { shown.unproven() };
                (caller, Some(why), false)
            }
            Err(why) => return Err(why),
        };
        if page.origin.is_none() && tenant.missing_origin == MissingOrigin::Verified && caller.level() < Level::Verified {
            return Err(Reason::OriginMissing.into());
        }
        Ok(Self { page, caller, would_deny, expired })
    }

    /// Route policy, which follows the mode.
    fn admit(self, head: &RequestHead<'_>, now: UnixTime) -> Result<Admitted, Denied> {
        let tenant = self.page.known.tenant;
        let requirement = tenant.policy.requirement(head.method, &head.path, head.upgrade);
        let caller = step_up(self.caller, &requirement, now);
        let refused = match tenant.mode {
            Mode::Off => None,
            Mode::Monitor | Mode::Enforce => unmet(&caller, &requirement, self.expired),
        };
        let would_deny = match (refused, tenant.mode) {
            (Some(why), Mode::Enforce) => return Err(why),
            (refused, _) => self.would_deny.or(refused),
        };
        let origin = self.page.origin.map(|o| o.as_str().to_owned());
        Ok(Admitted { tenant, origin, caller, would_deny })
    }
}

/// What the decision table says in `enforce`, before route policy.
enum Judged {
    Caller(Caller),
    /// Authentic but expired, and the tenant takes that for anonymous.
    Expired,
}

fn judge(tenant: &Tenant, shown: &Shown<'_>, revocations: &Revocations, now: UnixTime) -> Result<Judged, Denied> {
    let Some(token) = &shown.token else {
        return if shown.ids.is_empty() || tenant.unsigned_id == UnsignedId::Claimed {
            Ok(Judged::Caller(shown.unproven()))
        } else {
            Err(Denied::new(Reason::TokenMissing, "an id without a token"))
        };
    };
    match verify(tenant, token, shown, revocations, now) {
        Ok(subject) => Ok(Judged::Caller(Caller::Verified(subject, None))),
        Err(why) if why.reason == Reason::TokenExpired && tenant.on_expired == OnExpired::Anonymous => Ok(Judged::Expired),
        Err(why) => Err(why),
    }
}

/// Form, signature, claims, revocation, consistency: in this order.
fn verify(tenant: &Tenant, token: &str, shown: &Shown<'_>, revocations: &Revocations, now: UnixTime) -> Result<VerifiedSubject, Denied> {
    let name = match Form::of(token)? {
        Form::Hmac => FormatName::Hmac,
        Form::KartaV2 => FormatName::KartaV2,
        Form::Jwt => FormatName::Jwt,
        Form::Session => return Err(Reason::SessionInvalid.into()),
    };
    if !tenant.keys.all().iter().any(|key| key.formats.contains(&name)) {
        return Err(Denied::new(Reason::TokenFormatRefused, name.as_str()));
    }
    if name == FormatName::Hmac && shown.ids.len() > 1 {
        return Err(Denied::new(Reason::SubjectMismatch, "two differing ids beside an hmac token"));
    }
    let format = FORMATS.iter().find(|f| f.name() == name).ok_or(Reason::GatewayInternal)?;
    let authentic = format.authenticate(token, shown.asserted(), &tenant.keys, now)?;
    let subject = tenant.claims.accept(authentic, now)?;
    if revocations.secret(subject.key().fingerprint) {
        return Err(Denied::new(Reason::TokenRevoked, "its secret"));
    }
    if revocations.subject(&tenant.id, subject.subject(), subject.issued_at()) {
        return Err(Denied::new(Reason::TokenRevoked, "its subject"));
    }
    if shown.ids.iter().any(|id| id != subject.subject()) {
        return Err(Reason::SubjectMismatch.into());
    }
    Ok(subject)
}

/// Raises a verified caller whose step-up is fresh and strong enough for this request.
fn step_up(caller: Caller, requirement: &Requirement<'_>, now: UnixTime) -> Caller {
    let Caller::Verified(subject, _) = caller else { return caller };
    let fresh = subject.stepped_up().filter(|s| {
        let strong = requirement.aal.is_empty() || s.aal.as_ref().is_some_and(|aal| requirement.aal.contains(aal));
        strong && now.as_secs_f64() - s.at <= requirement.max_age.as_secs_f64()
    });
    let fresh = fresh.cloned();
    Caller::Verified(subject, fresh)
}

/// What a route asks and the caller has not. A missing token is named before a missing step-up.
fn unmet(caller: &Caller, requirement: &Requirement<'_>, expired: bool) -> Option<Denied> {
    let verified = caller.verified();
    let wants_user = requirement.level >= Level::Verified || !requirement.claims.is_empty();
    if wants_user && verified.is_none() || caller.level() < requirement.level.min(Level::Verified) {
        let reason = if expired { Reason::TokenExpired } else { Reason::TokenMissing };
        return Some(Denied::new(reason, "the route or audience asks for a verified user"));
    }
    if caller.level() < requirement.level {
        let mut why = Denied::new(Reason::StepUpRequired, "no step-up that is fresh and strong enough for the route");
        why.step_up = Some(Box::new(requirement.demand()));
        return Some(why);
    }
    let claims = verified.map(VerifiedSubject::claims);
    let lacking = requirement.claims.iter().find(|c| !c.met_by(claims.and_then(|all| all.get(&c.name))))?;
    Some(Denied::new(Reason::ClaimNotAllowed, format!("claim {}", lacking.name)))
}
