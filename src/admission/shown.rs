//! What the caller shows: a credential and the ids beside it, from the head and from a held body. Judges nothing but
//! whether there is one of each.

use std::borrow::Cow;

use http::header;

use super::identify::{AllowedOrigin, read};
use super::{Body, Caller, ClaimedId};
use crate::policy::Mode;
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::body::{BodyFields, Purpose};
use crate::request::credential::Form;
use crate::tenant::Tenant;

/// What the caller shows: a credential, and ids beside it.
pub(super) struct Shown<'a> {
    pub(super) token: Option<Cow<'a, str>>,
    /// Distinct asserted ids, less those that mean nobody.
    pub(super) ids: Vec<String>,
    /// In `monitor`: the body could not be read, so ids in it are unknown.
    pub(super) unread: Option<Denied>,
    /// In `off`: another mode would have looked into the body.
    pub(super) unlooked: bool,
}

impl<'a> Shown<'a> {
    /// `None` when the body must be held first.
    pub(super) fn collect(page: &AllowedOrigin<'_>, head: &RequestHead<'a>, body: Body<'_>) -> Result<Option<Self>, Denied> {
        let tenant = &page.known.tenant;
        let wanted = wants_body(tenant, head);
        let Some(fields) = held_fields(tenant, wanted && tenant.mode != Mode::Off, head, body) else { return Ok(None) };
        let (fields, unread) = match fields {
            Ok(fields) => (fields, None),
            // A slow body is a limit, and limits never follow the mode.
            Err(why) if tenant.mode == Mode::Monitor && why.reason != Reason::BodyTimeout => (BodyFields::default(), Some(why)),
            Err(why) => return Err(why),
        };
        for name in fields.of(Purpose::TenantName) {
            page.known.refuse_other_name(name)?;
        }
        let mut shown = Self { token: None, ids: Vec::new(), unread, unlooked: wanted && tenant.mode == Mode::Off };
        if !page.known.bearer_is_taken
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
        if page.session.is_some() && shown.token.is_some() {
            return Err(Denied::new(Reason::CredentialAmbiguous, "a session and an identity token"));
        }
        Ok(Some(shown))
    }

    /// What one of our own endpoints was given.
    pub(super) fn given(tenant: &Tenant, token: Option<&str>, id: Option<&str>) -> Result<Self, Denied> {
        let mut shown = Self { token: None, ids: Vec::new(), unread: None, unlooked: false };
        if let Some(token) = token {
            shown.add_token(Cow::Owned(token.to_owned()))?;
        }
        if let Some(id) = id {
            shown.add_id(tenant, id);
        }
        Ok(shown)
    }

    fn add_token(&mut self, token: Cow<'a, str>) -> Result<(), Denied> {
        match &self.token {
            _ if matches!(Form::of(&token), Ok(Form::Session)) => {
                Err(Denied::new(Reason::SessionInvalid, "a session token where an identity token belongs"))
            }
            Some(other) if *other != token => Err(Reason::CredentialAmbiguous.into()),
            _ => {
                self.token = Some(token);
                Ok(())
            }
        }
    }

    pub(super) fn add_id(&mut self, tenant: &Tenant, id: &str) {
        if !tenant.exempt_ids.iter().any(|e| e == id) && !self.ids.iter().any(|i| i == id) {
            self.ids.push(id.to_owned());
        }
    }

    /// The one id asserted, if exactly one is.
    pub(super) fn asserted(&self) -> Option<&str> {
        if let [id] = self.ids.as_slice() { Some(id) } else { None }
    }

    /// Who the caller is by their own word.
    pub(super) fn unproven(&self) -> Caller {
        self.asserted().map_or(Caller::Anonymous, |id| Caller::Claimed(ClaimedId(id.to_owned())))
    }
}

/// Whether this body may have members that the tenant inspects.
fn wants_body(tenant: &Tenant, head: &RequestHead<'_>) -> bool {
    let places = &tenant.places;
    head.has_body && !places.body.is_empty() && places.body_paths.iter().any(|pattern| pattern.covers(&head.path))
}

/// The inspected members of the body; `None` when it must be read first.
fn held_fields(tenant: &Tenant, wanted: bool, head: &RequestHead<'_>, body: Body<'_>) -> Option<Result<BodyFields, Denied>> {
    if !wanted {
        return Some(Ok(BodyFields::default()));
    }
    if head.headers().contains_key(header::CONTENT_ENCODING) {
        return Some(Err(Denied::new(Reason::BodyMalformed, "Content-Encoding on a body that must be read")));
    }
    match body {
        Body::NotRead => None,
        Body::Held(bytes) => Some(BodyFields::parse(bytes, &tenant.places.body)),
        Body::TooLarge => Some(Err(Reason::BodyTooLarge.into())),
        Body::TooSlow => Some(Err(Reason::BodyTimeout.into())),
    }
}
