//! `[session]`, and what a tenant says about sessions, streams and the gateway's own endpoints.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;
use toml::de::{DeValue, ValueDeserializer};

use super::KeyInUse;
use super::diagnostic::{Code, Diagnostic};
use super::field::{Complaint, Field, Id};
use super::material::shared_secret;
use super::once::Sharing;
use super::server::duration;
use super::table::Table;
use crate::clock::UnixTime;
use crate::request::path::PathPattern;
use crate::tenant::{Endpoint, Endpoints, SessionRules, StreamRules};
use crate::token::session::{SessionKey, Sessions};

const MINUTE: Duration = Duration::from_secs(60);

/// Reads `[session]`; without it, sessions are off.
pub(super) fn sessions(root: &Table<'_>) -> Sessions {
    let table = root.table("session");
    let mut ids = HashSet::new();
    let mut keys = Vec::new();
    for entry in table.tables("keys") {
        let entry = entry.sensitive();
        let id = entry.need::<Id>("id").map_or_else(String::new, |id| id.value.0);
        if !id.is_empty() && !ids.insert(id.clone()) {
            let title = format!("session key {id} stands twice");
            entry.report(Diagnostic::new(Code::DuplicateId, entry.site_of("id"), title).help("give each its own id"));
        }
        let whose = format!("session key {id}");
        let found = shared_secret(&entry, &whose, 32);
        entry.finish();
        if let Some(found) = found {
            entry.cx().claim(whose, &found.value.key, found.site, Sharing::Never);
            let fingerprint = found.value.key.fingerprint();
            entry.cx().uses(KeyInUse { tenant: None, id: id.clone(), what: "session HS256".to_owned(), fingerprint });
            keys.push(SessionKey::new(id, &found.value.key));
        }
    }
    let lifetime = duration(&table, "lifetime", 15 * MINUTE, Duration::from_secs(1)..=24 * 60 * MINUTE);
    table.finish();
    Sessions::new(keys, lifetime)
}

/// `[tenant.endpoints]`, `embed_config` and `verification_secret`.
pub(super) fn endpoints(tenant: &Table<'_>) -> Endpoints {
    let table = tenant.table("endpoints");
    let mut paths = Vec::new();
    for (endpoint, key) in Endpoint::ALL {
        // "" turns a preset's endpoint off.
        let path = if table.word(key) == Some("") { None } else { table.get::<PathPattern>(key) };
        paths.extend(path.map(|path| (endpoint, path.value)));
    }
    table.finish();
    let secret = tenant.table("verification_secret").sensitive();
    let verification_secret = if tenant.writes("verification_secret") {
        let found = shared_secret(&secret, "the verification secret", 32);
        if let Some(found) = &found {
            secret.cx().claim("a verification secret".to_owned(), &found.value.key, found.site.clone(), Sharing::Never);
        }
        found.map(|found| found.value.key)
    } else {
        None
    };
    secret.finish();
    if verification_secret.is_none() {
        paths.retain(|(endpoint, _)| *endpoint != Endpoint::UserToken); // nobody could show the secret
    }
    let embed_config = tenant.entries::<AnyValue>("embed_config").into_iter().map(|(name, value)| (name.value, value.value.0));
    Endpoints { paths, verification_secret, embed_config: embed_config.collect() }
}

/// A value that is passed on as JSON.
struct AnyValue(Value);

impl Field for AnyValue {
    const EXAMPLE: &'static str = "\"#1a73e8\"";
    const WANTED: &'static str = "any value";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        let reader = ValueDeserializer::from(toml::Spanned::new(0..0, value.clone()));
        let unusable =
            |_| Complaint::new(Code::WrongType, "cannot be written as JSON").help("write strings, numbers, booleans, lists and tables");
        Value::deserialize(reader).map(Self).map_err(unusable)
    }
}

/// `[tenant.sessions]`.
pub(super) fn rules(tenant: &Table<'_>) -> SessionRules {
    let table = tenant.table("sessions");
    let rules =
        SessionRules { not_before: table.get::<UnixTime>("not_before").map(|time| time.value), in_query: table.or("in_query", false) };
    table.finish();
    rules
}

/// `[tenant.streams]`.
pub(super) fn streams(tenant: &Table<'_>) -> StreamRules {
    let table = tenant.table("streams");
    let default = StreamRules::default();
    let rules = StreamRules {
        websocket: table.or("websocket", default.websocket),
        events: table.or("events", default.events),
        grace: duration(&table, "grace", default.grace, Duration::ZERO..=60 * MINUTE),
    };
    table.finish();
    rules
}
