//! One tenant's table, over its preset's, to a [`Tenant`]; and the warnings that only show when its rules are seen together.

use std::collections::HashMap;
use std::time::Duration;

use super::diagnostic::{Code, Diagnostic, Site};
use super::field::{BodyIds, Complaint, ExpiryRequired, Field, Id, unknown_word};
use super::header::PageHeader;
use super::identity_keys::{self, Shared};
use super::known::Shown;
use super::preset::{self, Preset};
use super::server::{duration, duration_within};
use super::suggest::{nearest, one_of};
use super::table::Table;
use super::upstreams::Names;
use super::{limits, places, routes, sessions};
use crate::policy::{Audience, Mode, Policy, UpstreamId};
use crate::reason::{Reason, Stage};
use crate::request::embed_key::EmbedKey;
use crate::request::origin::OriginRule;
use crate::tenant::{Answers, CorsNames, MissingOrigin, OnExpired, Tenant, UnsignedId};
use crate::token::FormatName;
use crate::token::claims::{ClaimRules, Forward, StepUpClaim};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A tenant, and where its unique things stand.
pub(super) struct Read {
    pub(super) tenant: Tenant,
    /// What becomes of ids in bodies where no body is seen.
    pub(super) body_ids: BodyIds,
    pub(super) id_site: Site,
    pub(super) key_sites: Vec<Site>,
}

/// Reads a tenant's own table.
pub(super) fn tenant<'t>(own: Table<'t>, presets: &'t [Preset], upstreams: &Names) -> Read {
    let (name, table) = over_preset(own, presets);
    let id = table.need::<Id>("id");
    let id_site = id.as_ref().map_or_else(|| table.site(), |id| id.site.clone());
    let id = id.map_or_else(String::new, |id| id.value.0);
    let claims = claims(&table);
    let formats = identity_keys::formats(&table);
    let keys = identity_keys::keys(&table, &Shared { tenant: &id, formats, audiences: &claims.audiences });
    let embed_keys = table.list::<EmbedKey>("embed_keys").unwrap_or_default();
    let key_sites = embed_keys.iter().map(|k| k.site.clone()).collect();
    let upstream = upstream(&table, &id, upstreams);
    let (routes, ways) = routes::routes(&table, &claims.forward, upstreams);
    let tenant = Tenant {
        id,
        source: None,
        preset: name,
        mode: table.or("mode", Mode::Enforce),
        names: words(&table, "names"),
        embed_keys: embed_keys.into_iter().map(|k| k.value).collect(),
        origins: origins(&table),
        missing_origin: table.or("missing_origin", MissingOrigin::Verified),
        unsigned_id: table.or("unsigned_id", UnsignedId::Deny),
        on_expired: table.or("on_expired", OnExpired::Deny),
        exempt_ids: words(&table, "exempt_ids"),
        places: places::places(&table),
        keys,
        claims,
        policy: Policy {
            audience: table.or("audience", Audience::Anyone),
            routes,
            step_up_max_age: duration(&table, "step_up_max_age", 300 * SECOND, SECOND..=30 * DAY),
            upstream,
            ways,
        },
        answers: answers(&table),
        cors: cors(&table),
        endpoints: sessions::endpoints(&table),
        sessions: sessions::rules(&table),
        streams: sessions::streams(&table),
        limits: limits::limits(&table),
    };
    let body_ids = table.or("body_ids", BodyIds::Checked);
    let body_ids = if table.writes("body_ids") && table.word("body_ids") != Some("checked") { BodyIds::Unchecked } else { body_ids }; // a word that is none was reported
    table.finish();
    warn(&table, &tenant);
    Read { tenant, body_ids, id_site, key_sites }
}

/// Where its requests go, `[upstream]` where it does not say.
fn upstream(table: &Table<'_>, id: &str, upstreams: &Names) -> UpstreamId {
    let default = UpstreamId::of(UpstreamId::DEFAULT);
    if let Some(named) = named_upstream(table, upstreams) {
        return named;
    }
    if !table.writes("upstream") && !upstreams.has(default) && upstreams.all().next().is_some() {
        let title = format!("tenant {id} names no upstream, and there is no [upstream] to go to");
        let help = format!("add upstream = {}, or an [upstream] for those that name none", one_of(upstreams.all()));
        table.report(Diagnostic::new(Code::UpstreamUnknown, table.site(), title).help(help));
    }
    default
}

/// The upstream that a table's `upstream` names; `None` where it names none, or a problem was recorded.
pub(super) fn named_upstream(table: &Table<'_>, upstreams: &Names) -> Option<UpstreamId> {
    let name = table.get::<String>("upstream")?;
    let id = UpstreamId::of(&name.value);
    if upstreams.has(id) {
        return Some(id);
    }
    let title = format!("there is no upstream \"{}\"", name.value);
    let help = match nearest(&name.value, upstreams.all()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write {}, or add [upstreams.{}]", one_of(upstreams.all()), name.value),
    };
    table.report(Diagnostic::new(Code::UpstreamUnknown, name.site, title).help(help));
    None
}

fn over_preset<'t>(own: Table<'t>, presets: &'t [Preset]) -> (String, Table<'t>) {
    let name = own.get::<String>("preset");
    let site = own.site_of("preset");
    if name.is_none() && own.writes("preset") {
        return (String::new(), own.partial());
    }
    let name = name.map_or_else(|| preset::DEFAULT.to_owned(), |n| n.value);
    match presets.iter().find(|p| p.name == name) {
        Some(found) => {
            let over = own.over(&found.document, found.table.get_ref());
            (name, over)
        }
        None => {
            let names: Vec<_> = presets.iter().map(|p| p.name).collect();
            own.report(unknown_word(&name, &names).at(&own.full("preset"), site));
            (name, own.partial())
        }
    }
}

/// The words of a list.
pub(super) fn words(table: &Table<'_>, key: &'static str) -> Vec<String> {
    table.list::<String>(key).unwrap_or_default().into_iter().map(|w| w.value).collect()
}

fn origins(table: &Table<'_>) -> Vec<OriginRule> {
    table.list::<OriginRule>("origins").unwrap_or_default().into_iter().map(|o| o.value).collect()
}

/// `claims.forward`: `"all"` or a list.
struct ForwardWord(Forward);

impl Field for ForwardWord {
    const EXAMPLE: &'static str = "\"all\"";
    const WANTED: &'static str = "\"all\" or a list of strings";

    fn read(value: &toml::de::DeValue<'_>) -> Result<Self, Complaint> {
        match value.as_str() {
            Some("all") => Ok(Self(Forward::All)),
            Some(other) => Err(unknown_word(other, &["all"]).help("write \"all\" or a list of claims, like [\"email\"]")),
            None => Vec::<String>::read(value).map(|names| Self(Forward::Only(names))),
        }
    }
}

impl Shown for ForwardWord {
    fn shown(&self) -> String {
        match &self.0 {
            Forward::All => "\"all\"".to_owned(),
            Forward::Only(names) => format!("{names:?}"),
        }
    }
}

fn claims(tenant: &Table<'_>) -> ClaimRules {
    let table = tenant.table("claims");
    let default = ClaimRules::default();
    let subject = words(&table, "subject");
    if table.is_empty_list("subject") {
        let title = "`tenant.claims.subject` is empty: no token could name anybody";
        table.report(Diagnostic::new(Code::BadValue, table.site_of("subject"), title).help("write subject = [\"sub\"]"));
    }
    let rules = ClaimRules {
        subject: if subject.is_empty() { default.subject } else { subject },
        expiry_required: table.or("expiry", ExpiryRequired(default.expiry_required)).0,
        max_lifetime: duration_within(&table, "max_lifetime", SECOND..=3650 * DAY),
        leeway: duration(&table, "leeway", default.leeway, Duration::ZERO..=600 * SECOND),
        issuers: words(&table, "issuers"),
        audiences: words(&table, "audiences"),
        forward: table.or("forward", ForwardWord(default.forward)).0,
        step_up: table.tables("step_up").iter().map(step_up).collect(),
    };
    table.finish();
    rules
}

fn step_up(entry: &Table<'_>) -> StepUpClaim {
    let rule = StepUpClaim {
        claim: entry.need::<String>("claim").map_or_else(String::new, |c| c.value),
        values: entry.need::<Vec<String>>("values").map_or_else(Vec::new, |v| v.value),
        time_claim: entry.or("time_claim", "auth_time".to_owned()),
    };
    if entry.is_empty_list("values") {
        let title = "`tenant.claims.step_up.values` is empty: the claim could never show a step-up";
        entry.report(Diagnostic::new(Code::BadValue, entry.site_of("values"), title).help("list the values that count, like [\"mfa\"]"));
    }
    entry.finish();
    rule
}

/// Stages as written in `[tenant.status]`.
const STAGES: [(&str, Stage); 10] = [
    ("request", Stage::Request),
    ("tenant", Stage::Tenant),
    ("origin", Stage::Origin),
    ("body", Stage::Body),
    ("token", Stage::Token),
    ("session", Stage::Session),
    ("subject", Stage::Subject),
    ("policy", Stage::Policy),
    ("gateway", Stage::Gateway),
    ("upstream", Stage::Upstream),
];

fn answers(tenant: &Table<'_>) -> Answers {
    let mut status = HashMap::new();
    for (name, code) in tenant.entries::<u64>("status") {
        let stage = STAGES.iter().find(|(known, _)| *known == name.value);
        match (stage, u16::try_from(code.value)) {
            (Some((_, stage)), Ok(number @ 400..=599)) => {
                status.insert(*stage, number);
            }
            (None, _) => tenant.report(unknown_word(&name.value, &STAGES.map(|(known, _)| known)).at(&tenant.full("status"), name.site)),
            (Some(_), _) => {
                let title = format!("`tenant.status.{}` is no status of a refusal", name.value);
                tenant.report(Diagnostic::new(Code::OutOfRange, code.site, title).help("write a number from 400 to 599"));
            }
        }
    }
    let mut error = HashMap::new();
    for (code, word) in tenant.entries::<String>("errors") {
        match Reason::from_code(&code.value) {
            Some(reason) => {
                error.insert(reason, word.value);
            }
            None => {
                let codes: Vec<_> = Reason::ALL.iter().map(|r| r.code()).collect();
                let complaint = unknown_word(&code.value, &codes);
                let near = super::suggest::nearest(&code.value, codes);
                let help = near.map_or("doorward explain lists every reason".to_owned(), |near| format!("did you mean \"{near}\"?"));
                tenant.report(complaint.help(help).at(&tenant.full("errors"), code.site));
            }
        }
    }
    Answers { status, error }
}

fn cors(tenant: &Table<'_>) -> CorsNames {
    let table = tenant.table("cors");
    let names = |key| -> Vec<_> { table.list::<PageHeader>(key).unwrap_or_default().into_iter().map(|h| h.value.0).collect() };
    let cors = CorsNames::new(names("allow_headers"), &names("expose_headers"));
    table.finish();
    cors
}

/// Rules that are each right and together do less than they say.
fn warn(table: &Table<'_>, tenant: &Tenant) {
    let warn = |code, site, title: String, help: &str| table.report(Diagnostic::new(code, site, title).help(help));
    let id = &tenant.id;
    if !table.seems_to_write("embed_keys") {
        warn(
            Code::NoEmbedKey,
            table.site(),
            format!("tenant {id} has no embed key: no request can name it"),
            "add embed_keys = [\"…\"]; make one with doorward embed-key new",
        );
    }
    if !table.seems_to_write("origins") && tenant.missing_origin != MissingOrigin::Allow {
        warn(
            Code::NoOrigin,
            table.site(),
            format!("tenant {id} lists no origins: no page can call"),
            "add origins = [\"https://app.example.com\"], or origins = [] to say that no page may",
        );
    }
    if !table.seems_to_write("secrets") && tenant.mode != Mode::Off {
        warn(
            Code::NoSecret,
            table.site(),
            format!("tenant {id} has no secrets: nobody can be verified"),
            "add secrets = [{ id = \"s1\", env = \"…\" }], or secrets = [] to say so",
        );
    }
    if tenant.mode == Mode::Off {
        let rules = [("audience", tenant.policy.audience == Audience::Users), ("route", !tenant.policy.routes.is_empty())];
        for (key, _) in rules.into_iter().filter(|(key, set)| *set && table.writes(key)) {
            warn(
                Code::NotEnforced,
                table.site_of(key),
                format!("tenant {id}: mode = \"off\" does not enforce its {key}"),
                "monitor counts what enforce would deny",
            );
        }
    }
    let keys = &tenant.keys;
    let can_step_up = keys.takes(FormatName::KartaV2) || keys.takes(FormatName::Jwt) && !tenant.claims.step_up.is_empty();
    if !can_step_up {
        for site in routes::stepped_up(table) {
            warn(
                Code::StepUpUnreachable,
                site,
                format!("no token of tenant {id} can show a step-up: the route denies everybody"),
                "list the claim that shows one in claims.step_up, or add a secret with format = \"karta-v2\"",
            );
        }
    }
}

/// A check has no body: what the tenant looks for there would pass unseen.
pub(super) fn refuse_unseen(table: &Table<'_>, Read { tenant, body_ids, id_site, .. }: &Read) {
    if tenant.places.body.is_empty() || tenant.mode == Mode::Off || *body_ids == BodyIds::Unchecked {
        return;
    }
    let title = format!("tenant {} looks for tokens, ids or names in bodies, and a forward-auth listener sees no body", tenant.id);
    let help = "write body_ids = \"unchecked\" if its backend reads none of them from a body, or name places in the head only";
    table.report(Diagnostic::new(Code::BodyIdsUnseen, id_site.clone(), title).help(help));
}

/// Tenants that share an upstream, with each other or with those that stay in force, are told apart by name where their
/// clients send one (`threats` 38).
pub(super) fn warn_shared(all: &[&Read], kept: &[&Tenant]) -> Vec<Diagnostic> {
    let unnamed = |read: &&&Read| {
        let places = &read.tenant.places;
        let sends_name =
            !places.tenant_name.is_empty() || places.body.iter().any(|b| b.purpose == crate::request::body::Purpose::TenantName);
        read.tenant.names.is_empty() && sends_name
    };
    let shares = |read: &&&Read| {
        let others = all.iter().filter(|other| !std::ptr::eq(**other, **read)).map(|other| &other.tenant).chain(kept.iter().copied());
        let meets = |other: &Tenant| other.policy.upstreams().any(|id| read.tenant.policy.upstreams().any(|own| own == id));
        others.into_iter().any(meets)
    };
    let warning = |read: &&Read| {
        let title = format!("tenant {} shares the upstream and lists no names: its key opens other tenants' paths", read.tenant.id);
        let help = "add names = [\"…\"], as its clients write them in paths and bodies";
        Diagnostic::new(Code::NamesMissing, read.id_site.clone(), title).help(help)
    };
    all.iter().filter(unnamed).filter(shares).map(warning).collect()
}
