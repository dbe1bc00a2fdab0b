//! One request through the decision, without sockets: raw bytes in, the decision as text out. Follows the server: parse the
//! head, decide, hold the body where it is wanted, decide again.

use std::sync::Arc;

use doorward::admission::{self, Admitted, Body, Caller, Decision, Denial, OwnAnswer, Rules};
use doorward::clock::UnixTime;
use doorward::limits::Store;
use doorward::limits::memory::Memory;
use doorward::limits::meter::Meter;
use doorward::reason::{Denied, Reason};
use doorward::request::RequestHead;
use doorward::request::origin::Origin;
use doorward::request::original::{self, Convention};
use doorward::revocations::Revocations;
use doorward::snapshot::Snapshot;
use http::request::Parts;

/// What arrives when the body is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// All of it.
    #[default]
    Whole,
    /// More than may be held.
    TooLarge,
    /// Not in time.
    TooSlow,
}

/// A request as bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    /// Request line and header section, with its empty line.
    pub(crate) head: Vec<u8>,
    /// The body, framing removed.
    pub(crate) body: Vec<u8>,
    /// What arrives of it.
    pub(crate) arrival: Arrival,
    /// How often the same request came before, from the same address.
    pub(crate) before: usize,
    /// It is a check of an ingress, in this convention.
    pub(crate) check: Option<Convention>,
}

impl Raw {
    /// From lines; a body without a framing header gets its `Content-Length`.
    pub(crate) fn new<'l>(lines: impl IntoIterator<Item = &'l [u8]>, body: Vec<u8>, arrival: Arrival) -> Self {
        let mut head = Vec::new();
        let mut framed = false;
        for line in lines {
            let lower = line.to_ascii_lowercase();
            framed |= lower.starts_with(b"content-length") || lower.starts_with(b"transfer-encoding");
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
        if !body.is_empty() && !framed {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        Self { head, body, arrival, before: 0, check: None }
    }
}

/// Decides about a request, after those that came before it.
pub(crate) fn decide(raw: &Raw, snapshot: &Snapshot, revocations: &Revocations, now: UnixTime) -> Decision {
    let buckets: Arc<dyn Store> = Arc::<Memory>::default();
    let meter = || Meter::new(Arc::clone(&buckets), Some([192, 0, 2, 1].into()));
    for _ in 0..raw.before {
        decide_once(raw, snapshot, revocations, &meter(), now);
    }
    decide_once(raw, snapshot, revocations, &meter(), now)
}

fn decide_once(raw: &Raw, snapshot: &Snapshot, revocations: &Revocations, meter: &Meter, now: UnixTime) -> Decision {
    let tenants = &snapshot.tenants;
    let malformed = || Decision::Deny(admission::unknown(Denied::new(Reason::RequestMalformed, "not HTTP/1.1"), None, tenants));
    let Some(parts) = parts(&raw.head) else { return malformed() };
    let stop = |why| Decision::Deny(admission::unknown(why, Origin::of(&parts.headers).ok().flatten(), tenants));
    if let Some(convention) = raw.check {
        return match original(convention, &parts, snapshot) {
            Ok(original) => check_once(&original, snapshot, revocations, meter, now),
            Err(why) => stop(why),
        };
    }
    let head = match RequestHead::parse(&parts) {
        Ok(head) => head,
        Err(why) => return stop(why),
    };
    let rules = Rules { tenants, revocations, sessions: &snapshot.sessions, meter, request_id: "0123456789abcdef0123456789abcdef" };
    match admission::decide(&head, Body::NotRead, rules, now) {
        Decision::NeedBody => {
            let body = match raw.arrival {
                Arrival::Whole => Body::Held(&raw.body),
                Arrival::TooLarge => Body::TooLarge,
                Arrival::TooSlow => Body::TooSlow,
            };
            admission::decide(&head, body, rules, now)
        }
        decision => decision,
    }
}

pub(crate) fn original(convention: Convention, check: &Parts, snapshot: &Snapshot) -> Result<Parts, Denied> {
    let original = original::read(convention, check)?;
    snapshot.upstreams.all().next().unwrap().signer.reserved().refuse(original.headers.keys())?;
    Ok(original)
}

fn check_once(original: &Parts, snapshot: &Snapshot, revocations: &Revocations, meter: &Meter, now: UnixTime) -> Decision {
    let (tenants, sessions) = (&snapshot.tenants, &snapshot.sessions);
    let rules = Rules { tenants, revocations, sessions, meter, request_id: "0123456789abcdef0123456789abcdef" };
    match RequestHead::parse(original) {
        Ok(head) => admission::decide_check(&head, rules, now).map_or_else(|denial| Decision::Deny(*denial), Decision::Forward),
        Err(why) => Decision::Deny(admission::unknown(why, Origin::of(&original.headers).ok().flatten(), tenants)),
    }
}

/// Reads a head as Pingora does.
pub(crate) fn parts(head: &[u8]) -> Option<Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return None,
    }
    let version = if parsed.version == Some(0) { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    let mut request = http::Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for field in parsed.headers.iter() {
        request = request.header(field.name, field.value);
    }
    request.body(()).ok().map(|request| request.into_parts().0)
}

/// A decision as a case file writes it.
pub(crate) fn describe(decision: &Decision) -> String {
    match decision {
        Decision::Forward(admitted) => forward(admitted),
        Decision::Preflight(answer) => {
            let mut lines: Vec<_> = answer.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
            lines.sort();
            format!("preflight 204\n{}", lines.join("\n"))
        }
        Decision::Own(answer) => own(answer),
        Decision::NeedBody => "need-body, though it was read".to_owned(),
        Decision::Deny(denial) => deny(denial),
    }
}

/// A session token is shown as what it grants.
fn own(answer: &OwnAnswer) -> String {
    let mut body = answer.body.clone();
    for name in ["token", "session_token"] {
        if let Some(token) = body.get_mut(name) {
            let payload = token.as_str().and_then(|t| t.split('.').nth(1)).unwrap_or_default();
            let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
            *token = serde_json::from_slice(&payload).unwrap();
        }
    }
    format!("answer 200 level={} tenant={}\nbody {body}", answer.caller.level.as_str(), answer.tenant.id)
}

fn forward(admitted: &Admitted) -> String {
    let mut line = format!("forward level={} tenant={}", admitted.caller().level().as_str(), admitted.tenant().id);
    let mut more = String::new();
    match admitted.caller() {
        Caller::Anonymous => {}
        Caller::Claimed(id) => line += &format!(" claimed={}", word(id.as_str())),
        Caller::Verified(who, stepped_up) => {
            line += &format!(" subject={} method={} secret={}", word(who.subject()), who.method(), who.key().id);
            if let Some(stepped_up) = stepped_up {
                line += &format!(" stepped_up_at={}", stepped_up.at);
                line += &stepped_up.aal.as_ref().map(|aal| format!(" aal={}", word(aal))).unwrap_or_default();
            }
            if !who.claims().is_empty() {
                more = format!("\nclaims {}", serde_json::to_string(who.claims()).unwrap());
            }
        }
    }
    if let Some(session) = admitted.session() {
        line += &format!(" session={session}");
    }
    if let Some(why) = admitted.would_deny() {
        line += &format!(" would_deny={}", why.reason);
    }
    line + &more
}

fn deny(denial: &Denial) -> String {
    let reason = denial.why.reason;
    let status = denial.tenant.as_ref().map_or(reason.row().status, |t| t.status(reason));
    let mut line = format!("deny {status} {reason}");
    if let Some(tenant) = &denial.tenant {
        line += &format!(" tenant={}", tenant.id);
        line += &tenant.answers.error.get(&reason).map(|error| format!(" error={}", word(error))).unwrap_or_default();
    }
    if let Some(demand) = &denial.why.step_up {
        line += &format!(" max_age={} acr_values={}", demand.max_age, word(&demand.acr_values.join(" ")));
    }
    line + &denial.readable_by.as_ref().map(|o| format!(" readable_by={o}")).unwrap_or_default()
}

/// One word as it is, anything else quoted.
fn word(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') { text.to_owned() } else { format!("{text:?}") }
}
