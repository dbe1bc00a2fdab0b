//! What the page shows, gathered: counters, history and rules become words and numbers. Every text that a stranger or a file
//! could have written goes through [`plain`]; the template escapes it for HTML. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chart::{chart, when};
use super::view::{
    Attempt, Configuration, DenialRow, LimitRow, MinuteRow, Moment, ReasonCount, SecretRow, TenantRow, Tile, TrafficRow, UpstreamRow, View,
};
use super::words::{SecretSeen, Verdict, ago, long, number, safe_to_enforce, safe_to_remove};
use crate::clock::UnixTime;
use crate::observe::history::{History, Minute, SinceMode};
use crate::observe::metrics::{Counted, LastReload, Metrics, Reload};
use crate::observe::plain::plain;
use crate::observe::recent::{Kept, Kind};
use crate::policy::{Level, Mode};
use crate::reason::Reason;
use crate::snapshot::{self, Snapshot, Upstreams};
use crate::tenant::Tenant;
use crate::token::keys::IdentityKey;
use crate::upstream::address::Standing;

/// Most denials that are shown.
const DENIALS: usize = 50;
/// Most characters of an id.
const ID: usize = 80;
/// Most characters of a path or a detail.
const TEXT: usize = 200;
/// Most characters of a problem of the configuration.
const PROBLEM: usize = 4000;

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'s> {
    /// The configuration in force.
    pub snapshot: &'s Snapshot,
    /// Entries of the revocations in force.
    pub revocations: usize,
    /// The counters.
    pub metrics: &'s Metrics,
    /// What they did in the last hour.
    pub history: &'s History,
    /// Where requests go.
    pub upstreams: &'s [Upstream],
    /// What the probes say.
    pub ready: Result<(), &'static str>,
    /// How long the process runs.
    pub running: Duration,
    /// The time.
    pub now: UnixTime,
}

/// An address of an upstream, as it is now.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// What the configuration calls the upstream.
    pub name: String,
    /// As the operator wrote the address.
    pub backend: String,
    /// Where that is; `None` where a name does not resolve.
    pub address: Option<String>,
    /// Requests at work there.
    pub in_flight: usize,
    /// Whether it takes requests.
    pub standing: Standing,
    /// What last went wrong there, and when.
    pub trouble: Option<(UnixTime, String)>,
}

/// Every address of every upstream.
pub fn upstreams(all: &Upstreams, at: Instant) -> Vec<Upstream> {
    let of = |upstream: &Arc<snapshot::Upstream>| {
        let name = &upstream.settings.name;
        let known = upstream.pool.status(at);
        let named = |backend: &String| known.iter().any(|status| status.backend == *backend);
        let unresolved: Vec<_> = upstream.settings.backends.iter().map(ToString::to_string).filter(|backend| !named(backend)).collect();
        let found = known.into_iter().map(|status| Upstream {
            name: name.clone(),
            backend: status.backend,
            address: Some(status.address),
            in_flight: status.in_flight,
            standing: status.standing,
            trouble: status.trouble.map(|trouble| (trouble.at, trouble.what.clone())),
        });
        let lost = unresolved.into_iter().map(|backend| Upstream {
            name: name.clone(),
            backend,
            address: None,
            in_flight: 0,
            standing: Standing::Unhealthy,
            trouble: None,
        });
        found.chain(lost).collect::<Vec<_>>()
    };
    all.all().flat_map(of).collect()
}

impl View {
    /// Gathers.
    pub fn of(sources: &Sources<'_>) -> Self {
        let Sources { snapshot, metrics, history, now, .. } = *sources;
        let counts = history.counts(None);
        let minutes = history.minutes();
        let tenants = snapshot.tenants.all();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            ready: sources.ready.map_or_else(|why| (why, "bad"), |()| ("ready", "good")),
            now: moment(now, now),
            running: long(sources.running),
            covered: if history.covered() < Duration::from_secs(3600) { long(history.covered()) } else { "hour".to_owned() },
            tiles: tiles(sources, &counts),
            chart: chart(&minutes),
            minutes: minute_rows(&minutes),
            traffic: traffic(&counts),
            tenants: tenants.iter().map(|tenant| tenant_row(tenant, metrics, history)).collect(),
            secrets: tenants.iter().flat_map(|tenant| secret_rows(tenant, history, now)).collect(),
            denials: denials(&metrics.recent.newest(usize::MAX), now),
            configuration: configuration(sources),
            upstreams: sources.upstreams.iter().map(|upstream| upstream_row(upstream, now)).collect(),
            limits: limits(sources),
        }
    }
}

type Counts = BTreeMap<Counted, u64>;

fn sum(counts: &Counts, which: impl Fn(Counted) -> bool) -> u64 {
    counts.iter().filter(|(counted, _)| which(**counted)).map(|(_, count)| count).sum()
}

/// What was counted once for each request: what would be denied is counted as forwarded or failed too.
fn is_outcome(counted: Counted) -> bool {
    !matches!(counted, Counted::WouldDeny(_))
}

fn went_on(counted: Counted) -> bool {
    matches!(counted, Counted::Forwarded(_) | Counted::Failed(_))
}

fn tiles(sources: &Sources<'_>, counts: &Counts) -> Vec<Tile> {
    let all = sum(counts, is_outcome);
    let denied = sum(counts, |c| matches!(c, Counted::Denied(_)));
    let would = sum(counts, |c| matches!(c, Counted::WouldDeny(_)));
    let failed = sum(counts, |c| matches!(c, Counted::Failed(_)));
    let tile = |label, value: u64, note: String, class| Tile { label, value: number(value), note, class };
    let of_all = |n: u64| format!("{} of all", percent(n, all));
    let in_monitor = sources.snapshot.tenants.all().iter().filter(|tenant| tenant.mode == Mode::Monitor).count();
    vec![
        tile("Requests", all, "in all".to_owned(), ""),
        tile("Denied", denied, of_all(denied), if denied > 0 { "denied" } else { "" }),
        tile(
            "Would be denied",
            would,
            format!("{in_monitor} of {} tenants in monitor", sources.snapshot.tenants.all().len()),
            if would > 0 { "would" } else { "" },
        ),
        tile("Failed", failed, of_all(failed), if failed > 0 { "failed" } else { "" }),
    ]
}

fn minute_rows(minutes: &[Minute]) -> Vec<MinuteRow> {
    let rows = minutes.iter().rev().enumerate().filter(|(_, minute)| minute.total() > 0);
    rows.map(|(back, m)| MinuteRow { when: when(back), counts: [m.passed, m.would_deny, m.denied, m.failed].map(number) }).collect()
}

fn traffic(counts: &Counts) -> Vec<TrafficRow> {
    let all = sum(counts, is_outcome);
    let mut rows: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    rows.sort_by_key(|(counted, count)| (order(**counted), std::cmp::Reverse(**count)));
    let row = |(counted, count): (&Counted, &u64)| {
        let by_reason = |class, outcome, reason: Reason| (class, outcome, reason.code(), reason.row().title);
        let by_level = |outcome, level: Level| ("passed", outcome, level.as_str(), "");
        let (class, outcome, what, title) = match *counted {
            Counted::Forwarded(level) => by_level("forwarded", level),
            Counted::Answered(level) => by_level("answered", level),
            Counted::Preflight => ("passed", "preflight", "", ""),
            Counted::Denied(reason) => by_reason("denied", "denied", reason),
            Counted::Failed(reason) => by_reason("failed", "failed", reason),
            Counted::WouldDeny(reason) => by_reason("would", "would deny", reason),
        };
        TrafficRow { class, outcome, what, title, count: number(*count), share: percent(*count, all) }
    };
    rows.into_iter().map(row).collect()
}

const fn order(counted: Counted) -> u8 {
    match counted {
        Counted::Forwarded(_) => 0,
        Counted::Answered(_) => 1,
        Counted::Preflight => 2,
        Counted::Denied(_) => 3,
        Counted::WouldDeny(_) => 4,
        Counted::Failed(_) => 5,
    }
}

fn percent(n: u64, of: u64) -> String {
    match (n, of) {
        (0, _) | (_, 0) => "0 %".to_owned(),
        (n, of) if n * 1000 < of => "< 0.1 %".to_owned(),
        (n, of) => format!("{:.1} %", n as f64 * 100.0 / of as f64),
    }
}

fn tenant_row(tenant: &Tenant, metrics: &Metrics, history: &History) -> TenantRow {
    let label = metrics.tenant(Some(&tenant.id)).label().to_owned();
    let row = |counts: &Counts, verdict| {
        let mut would: Vec<_> = counts
            .iter()
            .filter_map(|(counted, n)| if let Counted::WouldDeny(reason) = counted { Some((*reason, *n)) } else { None })
            .collect();
        would.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let shown = |n: u64| if label == tenant.id { number(n) } else { "–".to_owned() };
        TenantRow {
            id: plain(&tenant.id, ID),
            mode: tenant.mode.as_str(),
            forwarded: shown(sum(counts, |c| matches!(c, Counted::Forwarded(_)))),
            denied: shown(sum(counts, |c| matches!(c, Counted::Denied(_)))),
            would_deny: would.into_iter().map(|(r, n)| ReasonCount { code: r.code(), title: r.row().title, count: number(n) }).collect(),
            verdict,
        }
    };
    if label != tenant.id {
        return row(&Counts::new(), Verdict::shared());
    }
    let counts = history.counts(Some(&label));
    let since = history.since_mode(metrics, &tenant.id).unwrap_or(SinceMode { watched: Duration::ZERO, forwarded: 0, would_deny: 0 });
    let hour = (sum(&counts, went_on), sum(&counts, |c| matches!(c, Counted::WouldDeny(_))));
    row(&counts, safe_to_enforce(tenant.mode, since, hour))
}

fn secret_rows(tenant: &Tenant, history: &History, now: UnixTime) -> Vec<SecretRow> {
    let all = tenant.keys.all();
    all.iter().map(|key| secret_row(tenant, key, &all, history, now)).collect()
}

fn secret_row(tenant: &Tenant, key: &Arc<IdentityKey>, all: &[Arc<IdentityKey>], history: &History, now: UnixTime) -> SecretRow {
    let others = || all.iter().filter(|other| !Arc::ptr_eq(other, key) && other.is_live(now));
    let seen = SecretSeen {
        mode: tenant.mode,
        uses: key.usage.hits(),
        last: key.usage.last(),
        watched: history.secret_watched(&tenant.id, &key.id, key.fingerprint),
        early: key.not_before.is_some_and(|from| now < from),
        over: key.not_after.is_some_and(|until| until <= now),
        only: key.formats.iter().any(|format| !others().any(|other| other.formats.contains(format))),
    };
    SecretRow {
        tenant: plain(&tenant.id, ID),
        id: plain(&key.id, ID),
        fingerprint: key.fingerprint.to_string(),
        formats: key.formats.iter().map(|format| format.as_str()).collect::<Vec<_>>().join(", "),
        uses: number(seen.uses),
        last: seen.last.map(|last| moment(last, now)),
        verdict: if tenant.keys.own().iter().any(|own| Arc::ptr_eq(own, key)) { safe_to_remove(seen, now) } else { Verdict::issuers() },
    }
}

/// One row for those that differ in their time only.
fn denials(kept: &[Kept], now: UnixTime) -> Vec<DenialRow> {
    let mut rows: Vec<(&Kept, usize)> = Vec::new();
    for next in kept {
        if let Some((_, more)) = rows.iter_mut().find(|(row, _)| row.is_like(next)) {
            *more += 1;
        } else if rows.len() < DENIALS {
            rows.push((next, 0));
        }
    }
    rows.into_iter().map(|(kept, more)| DenialRow { more, ..denial_row(kept, now) }).collect()
}

fn denial_row(kept: &Kept, now: UnixTime) -> DenialRow {
    DenialRow {
        at: moment(kept.at, now),
        tenant: kept.tenant.as_deref().map_or_else(|| "–".to_owned(), |tenant| plain(tenant, ID)),
        would: kept.kind == Kind::WouldDeny,
        code: kept.reason.code(),
        title: kept.reason.row().title,
        detail: plain(&kept.detail, TEXT),
        request: format!("{} {}", plain(&kept.method, ID), plain(&kept.path, TEXT)),
        request_id: plain(&kept.request_id, ID),
        more: 0,
    }
}

fn configuration(sources: &Sources<'_>) -> Configuration {
    let Sources { snapshot, metrics, now, .. } = *sources;
    Configuration {
        generation: snapshot.generation,
        loaded: moment(snapshot.loaded_at, now),
        revocations: number(sources.revocations as u64),
        reloads: Reload::ALL.iter().map(|result| (result.as_str(), number(metrics.reloads(*result)))).collect(),
        last: metrics.last_reload().map(|last| attempt(&last, now)),
    }
}

fn attempt(last: &LastReload, now: UnixTime) -> Attempt {
    let (class, sentence) = match last.result {
        Reload::Applied => ("good", "The configuration on disk is in force."),
        Reload::Partial => {
            ("bad", "In force but for files of the tenant directory that were refused: what they gave before stays as it was.")
        }
        Reload::Refused => ("bad", "The configuration on disk was refused: the last good one stays in force."),
    };
    // Line by line: a line's end is no stranger's.
    let problem = last.problem.as_deref().map(|text| text.lines().map(|line| plain(line, PROBLEM)).collect::<Vec<_>>().join("\n"));
    let problem = problem.map(|text| crate::observe::plain::cut(&text, PROBLEM).to_owned());
    Attempt { result: last.result.as_str(), class, sentence, at: moment(last.at, now), problem }
}

fn upstream_row(upstream: &Upstream, now: UnixTime) -> UpstreamRow {
    let health = match (&upstream.address, upstream.standing) {
        (None, _) => ("bad", "does not resolve"),
        (Some(_), standing @ Standing::Available) => ("good", standing.as_str()),
        (Some(_), standing @ (Standing::Ejected | Standing::Unhealthy)) => ("bad", standing.as_str()),
    };
    UpstreamRow {
        name: plain(&upstream.name, ID),
        backend: plain(&upstream.backend, TEXT),
        address: upstream.address.as_ref().map(|address| plain(address, TEXT)),
        in_flight: number(upstream.in_flight as u64),
        health,
        trouble: upstream.trouble.as_ref().map(|(at, what)| (moment(*at, now), plain(what, TEXT))),
    }
}

fn limits(sources: &Sources<'_>) -> Vec<LimitRow> {
    let (limits, metrics) = (&sources.snapshot.settings.server.limits, sources.metrics);
    let gauge = |value: i64| number(u64::try_from(value).unwrap_or_default());
    let (refused, cut) = metrics.connections.turned_away();
    let row = |what, now: String, most: String| LimitRow { what, now, most };
    vec![
        row("Requests being worked on", gauge(metrics.in_flight.get()), format!("{} (max_in_flight)", number(limits.max_in_flight as u64))),
        row(
            "Connections of clients",
            gauge(metrics.connections.open.get()),
            format!("{} (max_connections)", number(limits.max_connections as u64)),
        ),
        row(
            "Connections refused since the start",
            number(refused),
            format!("{} each client (max_connections_per_client)", number(limits.max_connections_per_client as u64)),
        ),
        row(
            "Connections cut because the client was slow",
            number(cut),
            format!("head within {} (header_timeout)", long(limits.header_timeout)),
        ),
    ]
}

fn moment(at: UnixTime, now: UnixTime) -> Moment {
    let exact = i64::try_from(at.secs()).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
    Moment { exact: exact.map_or_else(String::new, |at| at.to_string()), ago: ago(at, now) }
}
