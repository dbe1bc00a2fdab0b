//! `doorward check --against` against the real thing: every request of every case is decided by one configuration, its audit
//! record is written and read back, and judged again by another one. What that says must be what the other one really
//! decides, or that it cannot know; it may never be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorward::admission::again::{self, Again};
use doorward::admission::{Admitted, Decision};
use doorward::observe::audit;
use doorward::observe::metrics::Outcome;
use doorward::observe::past;
use doorward::reason::Reason;
use doorward::request::origin::Origin;
use doorward::snapshot::Snapshot;
use libtest_mimic::Trial;

use crate::case::{self, Section};
use crate::{exchange, files, fixture, trial};

const MODES: [&str; 3] = ["mode = \"off\"", "mode = \"monitor\"", "mode = \"enforce\""];

/// What is changed of the first tenant between the record and the second look. What a fixture does not take is skipped.
const CHANGES: [&str; 14] = [
    "audience = \"users\"",
    "audience = \"anyone\"",
    "unsigned_id = \"claimed\"",
    "unsigned_id = \"deny\"",
    "on_expired = \"anonymous\"",
    "missing_origin = \"allow\"",
    "missing_origin = \"deny\"",
    "origins = [\"https://another.example\"]",
    "claims.leeway = \"1s\"",
    "secrets = []",
    "exempt_ids = [\"user_123\"]",
    "route = [{ path = \"/*\", require = \"verified\" }]",
    "route = [{ path = \"/*\", require = \"stepped_up\", max_age = \"30s\" }]",
    "route = [{ path = \"/*\", require_claims = { role = [\"admin\"] } }]",
];

/// What may not be known, and nothing else where only the mode differs: the start of each sentence.
const UNKNOWABLE: [&str; 9] = [
    "answered by the gateway itself",
    "stopped by a limit",
    "stopped by load",
    "no tenant",
    "stopped at its origin",
    "mode off",
    "its body could not be read",
    "its session was revoked",
    "an issuer's keys",
];

/// One test for modes, one for each change.
pub(crate) fn trials() -> Vec<Trial> {
    let changes = CHANGES.iter().map(|change| trial(format!("again::{}", change.replace(' ', "")), move || changed(change)));
    std::iter::once(trial("again::modes", modes)).chain(changes).collect()
}

/// Each mode after each: what is not known is so by its nature, and most is known.
fn modes() -> Result<(), String> {
    let pairs: Vec<_> = MODES.iter().flat_map(|then| MODES.iter().map(|now| (*then, vec![*now]))).collect();
    let seen = compare(&pairs)?;
    let odd: Vec<_> = seen.unknown.keys().filter(|why| !UNKNOWABLE.iter().any(|known| why.starts_with(known))).collect();
    if !odd.is_empty() {
        return Err(format!("not known, though only the mode differs: {odd:?}"));
    }
    let unknown: usize = seen.unknown.values().sum();
    if seen.judged < 3 * unknown { Err(format!("{} judged, not known: {:?}", seen.judged, seen.unknown)) } else { Ok(()) }
}

fn changed(change: &'static str) -> Result<(), String> {
    let seen = compare(&[(MODES[1], vec![MODES[2], change]), (MODES[2], vec![MODES[1], change])])?;
    if seen.judged < 50 { Err(format!("only {} judged, not known: {:?}", seen.judged, seen.unknown)) } else { Ok(()) }
}

#[derive(Default)]
struct Seen {
    judged: usize,
    unknown: BTreeMap<&'static str, usize>,
}

/// Judges every case by what the first of each pair is changed to, and again by the second.
fn compare(pairs: &[(&'static str, Vec<&'static str>)]) -> Result<Seen, String> {
    let (mut seen, mut wrong) = (Seen::default(), Vec::new());
    for path in files::below("tests/cases", "case") {
        let sections = case::sections(&files::read(format!("tests/cases/{}", path.display())))?;
        for (index, section) in sections.iter().enumerate() {
            let (mut records, mut truths) = (BTreeMap::new(), BTreeMap::new());
            for (then, now) in pairs {
                let (Ok(before), Ok(after)) = (configured(section, &[then]), configured(section, now)) else { continue };
                if !records.contains_key(then) {
                    records.insert(then, record(section, &before)?);
                }
                if !truths.contains_key(now) {
                    truths.insert(now, decided(section, &after)?);
                }
                let (Some(line), Some(truth)) = (&records[then], truths[now]) else { continue };
                let recorded = past::read(line.as_bytes()).map_err(|why| format!("{why}: {line}"))?;
                match again::judge(&recorded.past, &after.tenants, after.sessions.are_on(), None) {
                    Again::Unknown(why) => *seen.unknown.entry(why).or_default() += 1,
                    said if said == truth => seen.judged += 1,
                    said => {
                        wrong.push(format!("{} section {}: {then} then {now:?}: {said:?}, really {truth:?}", path.display(), index + 1))
                    }
                }
            }
        }
    }
    wrong.truncate(20);
    if wrong.is_empty() { Ok(seen) } else { Err(wrong.join("\n")) }
}

fn configured(section: &Section, more: &[&str]) -> Result<Arc<Snapshot>, String> {
    let (fixture, changes) = section.configured();
    let changes: Vec<_> = changes.iter().cloned().chain(more.iter().map(|line| (*line).to_owned())).collect();
    fixture::load(fixture, &changes)
}

/// What is really decided. `None` where a limit decides, which no record can tell.
fn decided(section: &Section, after: &Snapshot) -> Result<Option<Again>, String> {
    Ok(Some(match section.decide_by(after)? {
        Decision::Forward(admitted) => Again::Admitted(admitted.would_deny().map(|why| why.reason)),
        Decision::Preflight(_) => Again::Admitted(None),
        Decision::Deny(denial) if matches!(denial.why.reason, Reason::RateLimited | Reason::LimitReached) => return Ok(None),
        Decision::Deny(denial) => Again::Denied(denial.why.reason),
        Decision::Own(_) => Again::Unknown("answered by the gateway itself"),
        Decision::NeedBody => return Err("the body was read".to_owned()),
    }))
}

/// The audit record that the server writes.
fn record(section: &Section, snapshot: &Snapshot) -> Result<Option<String>, String> {
    let raw = section.raw()?;
    let Some(mut parts) = exchange::parts(&raw.head) else { return Ok(None) };
    if let Some(convention) = raw.check {
        // The server records what the ingress asked about.
        match exchange::original(convention, &parts, snapshot) {
            Ok(original) => parts = original,
            Err(_) => return Ok(None),
        }
    }
    let decision = section.decide_by(snapshot)?;
    let (outcome, tenant, denied, caller) = match &decision {
        Decision::Forward(admitted) => (Outcome::Forwarded(admitted.caller().level()), Some(admitted.tenant()), None, None),
        Decision::Own(answer) => (Outcome::Answered(answer.caller.level), Some(&answer.tenant), None, Some(&answer.caller)),
        Decision::Deny(denial) => (Outcome::Denied(denial.why.reason), denial.tenant.as_ref(), Some(&denial.why), denial.caller.as_ref()),
        Decision::Preflight(_) => (Outcome::Preflight, None, None, None),
        Decision::NeedBody => return Err("the body was read".to_owned()),
    };
    let admitted: Option<&Admitted> = if let Decision::Forward(admitted) = &decision { Some(admitted) } else { None };
    let record = audit::Record {
        at: section.at()?,
        request_id: "r1",
        generation: snapshot.generation,
        tenant: tenant.map(|tenant| &**tenant),
        rules: tenant.and_then(|tenant| snapshot.tenants.prints_of(&tenant.id)),
        origin: Origin::of(&parts.headers).ok().flatten().map(Origin::as_str),
        client: None,
        client_certificate: None,
        forward_auth: None,
        method: parts.method.as_str(),
        path: parts.uri.path(),
        upgrade: parts.headers.contains_key(http::header::UPGRADE),
        upstream: None,
        status: None,
        outcome,
        denied,
        admitted,
        caller,
        trace: None,
        subject: &snapshot.settings.audit_subject,
        latency: Duration::ZERO,
    };
    let mut line = Vec::new();
    record.write_to(&mut line).map_err(|error| error.to_string())?;
    Ok(Some(String::from_utf8(line).map_err(|error| error.to_string())?))
}
