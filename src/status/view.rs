//! What the page shows, in words and numbers: what the template draws. Made by `gather`; every text in it
//! is plain already, and is escaped for HTML by the template.

use super::chart::Chart;
use super::words::Verdict;

/// The page, in words.
#[derive(Clone, Debug)]
pub struct View {
    /// Of the program.
    pub version: &'static str,
    /// What the probes say, and how it looks.
    pub ready: (&'static str, &'static str),
    /// When this was true.
    pub now: Moment,
    /// How long the process runs.
    pub running: String,
    /// How much of the hour was watched.
    pub covered: String,
    /// What matters at a glance.
    pub tiles: Vec<Tile>,
    /// The hour, drawn.
    pub chart: Chart,
    /// The minutes that have any request, latest first.
    pub minutes: Vec<MinuteRow>,
    /// The hour, by outcome and reason.
    pub traffic: Vec<TrafficRow>,
    /// Tenants, in the configuration's order.
    pub tenants: Vec<TenantRow>,
    /// Their secrets.
    pub secrets: Vec<SecretRow>,
    /// The latest denials, newest first.
    pub denials: Vec<DenialRow>,
    /// The configuration in force, and the latest attempt at another.
    pub configuration: Configuration,
    /// Where requests go.
    pub upstreams: Vec<UpstreamRow>,
    /// What there is of what is limited.
    pub limits: Vec<LimitRow>,
}

/// A time, for machines and for people.
#[derive(Clone, Debug)]
pub struct Moment {
    /// RFC 3339.
    pub exact: String,
    /// How long ago.
    pub ago: String,
}

/// A number at a glance.
#[derive(Clone, Debug)]
pub struct Tile {
    /// What it counts.
    pub label: &'static str,
    /// The number.
    pub value: String,
    /// What it is of.
    pub note: String,
    /// The CSS class.
    pub class: &'static str,
}

/// A minute in numbers.
#[derive(Clone, Debug)]
pub struct MinuteRow {
    /// Which.
    pub when: String,
    /// Passed, would be denied, denied, failed.
    pub counts: [String; 4],
}

/// An outcome of the hour.
#[derive(Clone, Debug)]
pub struct TrafficRow {
    /// The CSS class.
    pub class: &'static str,
    /// As in metrics and audit records.
    pub outcome: &'static str,
    /// The level, or the reason's code.
    pub what: &'static str,
    /// The reason's title.
    pub title: &'static str,
    /// How many.
    pub count: String,
    /// Of all, in percent.
    pub share: String,
}

/// A reason and how often.
#[derive(Clone, Debug)]
pub struct ReasonCount {
    /// Its code.
    pub code: &'static str,
    /// Its title.
    pub title: &'static str,
    /// How often in the last hour.
    pub count: String,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct TenantRow {
    /// Its id.
    pub id: String,
    /// Its mode.
    pub mode: &'static str,
    /// Forwarded in the last hour.
    pub forwarded: String,
    /// Denied in the last hour.
    pub denied: String,
    /// What enforce would deny, most often first.
    pub would_deny: Vec<ReasonCount>,
    /// Safe to enforce?
    pub verdict: Verdict,
}

/// A secret.
#[derive(Clone, Debug)]
pub struct SecretRow {
    /// Whose.
    pub tenant: String,
    /// The operator's name for it.
    pub id: String,
    /// Names the material.
    pub fingerprint: String,
    /// What it verifies.
    pub formats: String,
    /// How often it did.
    pub uses: String,
    /// When it last did.
    pub last: Option<Moment>,
    /// Safe to remove?
    pub verdict: Verdict,
}

/// A denial.
#[derive(Clone, Debug)]
pub struct DenialRow {
    /// When.
    pub at: Moment,
    /// Whose request.
    pub tenant: String,
    /// Whether it went on all the same.
    pub would: bool,
    /// The reason's code.
    pub code: &'static str,
    /// The reason's title.
    pub title: &'static str,
    /// What exactly was wrong.
    pub detail: String,
    /// Method and path.
    pub request: String,
    /// Finds its audit record.
    pub request_id: String,
    /// How many more like it are kept.
    pub more: usize,
}

/// The configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Counts those that were put in force.
    pub generation: u64,
    /// When it was loaded.
    pub loaded: Moment,
    /// Entries of the revocations.
    pub revocations: String,
    /// Reloads so far, by result.
    pub reloads: Vec<(&'static str, String)>,
    /// The latest attempt.
    pub last: Option<Attempt>,
}

/// An attempt to put another configuration in force.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// How it ended.
    pub result: &'static str,
    /// The CSS class.
    pub class: &'static str,
    /// What that means.
    pub sentence: &'static str,
    /// When.
    pub at: Moment,
    /// The first problem.
    pub problem: Option<String>,
}

/// An address of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamRow {
    /// What the configuration calls the upstream.
    pub name: String,
    /// As the operator wrote the address.
    pub backend: String,
    /// Where that is.
    pub address: Option<String>,
    /// Requests at work there.
    pub in_flight: String,
    /// Whether it takes requests: the CSS class, and in words.
    pub health: (&'static str, &'static str),
    /// What last went wrong there.
    pub trouble: Option<(Moment, String)>,
}

/// Something that is limited.
#[derive(Clone, Debug)]
pub struct LimitRow {
    /// What.
    pub what: &'static str,
    /// How many there are.
    pub now: String,
    /// How many there may be, by which key.
    pub most: String,
}
