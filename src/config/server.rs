//! `[server]`, `[audit]`, `[metrics]` and `revocations`; `[telemetry]` has a file of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::KeyInUse;
use super::diagnostic::{Code, Diagnostic};
use super::field::{Bytes, HostName, SubjectWord};
use super::known::{Form, Key, Shown};
use super::material::shared_secret;
use super::once::Sharing;
use super::table::{Located, Table};
use super::{listeners, telemetry};
use crate::revocations::Revocations;
use crate::snapshot::{AuditSubject, Listener, Place, ServerLimits, ServerSettings, Settings};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// `server.admin` where it is not written.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Reads all that is not about tenants, upstreams or assertions.
pub(super) fn settings(root: &Table<'_>) -> Settings {
    let server = server(&root.table("server"));
    let audit_subject = audit(&root.table("audit"));
    let metrics = root.table("metrics");
    let max_tenants = number(&metrics, "max_tenants", 500, 1..=100_000);
    metrics.finish();
    let telemetry = telemetry::telemetry(&root.table("telemetry"));
    Settings { server, audit_subject, max_tenants, telemetry, revocations: revocations(root) }
}

fn server(table: &Table<'_>) -> ServerSettings {
    let more = listeners::listeners(table);
    let listen = if table.is_empty_list("listener") || !table.writes("listener") {
        table.need::<SocketAddr>("listen")
    } else {
        table.get::<SocketAddr>("listen")
    };
    let admin = table.get::<SocketAddr>("admin");
    let probes = table.get::<SocketAddr>("probes");
    let upgrade_socket = table.get::<String>("upgrade_socket");
    let upgrade_socket = upgrade_socket.map(|s| Located { value: listeners::socket_path(table, &s), site: s.site });
    let named = [("listen", &listen), ("admin", &admin), ("probes", &probes)];
    let named = named
        .into_iter()
        .filter_map(|(name, found)| found.as_ref().map(|a| (name, Located { value: Place::Tcp(a.value), site: a.site.clone() })));
    let others = more.iter().map(|l| ("listener", Located { value: l.value.place.clone(), site: l.site.clone() }));
    let unix = |s: &Located<PathBuf>| Located { value: Place::Unix { path: s.value.clone(), mode: 0 }, site: s.site.clone() };
    let upgrade = upgrade_socket.iter().map(|s| ("upgrade_socket", unix(s)));
    refuse_clash(table, &named.chain(others).chain(upgrade).collect::<Vec<_>>());
    let trusted = listeners::trusted(table);
    listeners::refuse_untrusted(table, &trusted);
    if let Some(admin) = admin.as_ref().filter(|a| !a.value.ip().is_loopback()) {
        let title = format!("the admin listener is reachable from other machines at {}", admin.value);
        let help = "it shows tenants and metrics to anybody; listen on 127.0.0.1 and open probes for Kubernetes and Prometheus";
        table.report(Diagnostic::new(Code::AdminExposed, admin.site.clone(), title).help(help));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = ServerSettings {
        listeners: listen.map(|l| Listener::plain(l.value)).into_iter().chain(more.into_iter().map(|l| l.value)).collect(),
        trusted,
        admin: table.or("admin", ADMIN),
        admin_hosts: table.list::<HostName>("admin_hosts").unwrap_or_default().into_iter().map(|host| host.value.0).collect(),
        probes: probes.map(|p| p.value),
        threads: number_within(table, "threads", 1..=1024).unwrap_or(cores),
        body_hold: size(table, "body_hold", 1024 * 1024, 1024..=64 * 1024 * 1024),
        body_timeout: duration(table, "body_timeout", Duration::from_secs(10), Duration::from_millis(1)..=10 * MINUTE),
        grace: duration(table, "grace", Duration::from_secs(25), Duration::ZERO..=DAY),
        drain_delay: duration(table, "drain_delay", Duration::from_secs(3), Duration::ZERO..=DAY),
        upgrade_socket: upgrade_socket.map(|s| s.value),
        limits: limits(&table.table("limits")),
    };
    table.finish();
    settings
}

fn limits(table: &Table<'_>) -> ServerLimits {
    const SECOND: Duration = Duration::from_secs(1);
    let count = |key, default| number(table, key, default, 1..=1_000_000);
    let limits = ServerLimits {
        header_timeout: duration(table, "header_timeout", 10 * SECOND, SECOND / 10..=10 * SECOND),
        keepalive_timeout: duration(table, "keepalive_timeout", MINUTE, SECOND..=60 * MINUTE),
        keepalive_requests: u32::try_from(count("keepalive_requests", 1000)).unwrap_or(u32::MAX),
        body_min_rate: size(table, "body_min_rate", 1024, 0..=1024 * 1024) as u64,
        body_rate_window: duration(table, "body_rate_window", 10 * SECOND, SECOND..=MINUTE),
        send_timeout: duration(table, "send_timeout", MINUTE, SECOND..=60 * MINUTE),
        max_connections: count("max_connections", 10_000),
        max_connections_per_client: count("max_connections_per_client", 256),
        max_in_flight: count("max_in_flight", 2000),
    };
    table.finish();
    limits
}

/// Two listeners on one address: the second bind would fail at start.
fn refuse_clash(table: &Table<'_>, listeners: &[(&str, Located<Place>)]) {
    let chosen = |place: &Place| !matches!(place, Place::Tcp(address) if address.port() == 0);
    let same = |a: &Place, b: &Place| match (a, b) {
        (Place::Unix { path: a, .. }, Place::Unix { path: b, .. }) => a == b,
        (a, b) => a == b,
    };
    for (index, (name, here)) in listeners.iter().enumerate() {
        for (other, first) in listeners.iter().take(index) {
            if same(&first.value, &here.value) && chosen(&here.value) {
                let title = if name == other {
                    "two listeners are at one address".to_owned()
                } else {
                    format!("{name} and {other} are one address")
                };
                let diagnostic = Diagnostic::new(Code::AddressClash, here.site.clone(), title);
                table.report(diagnostic.beside(first.site.clone(), "first used here").help("give each an address of its own"));
            }
        }
    }
}

fn audit(table: &Table<'_>) -> AuditSubject {
    let word = table.or("subject", SubjectWord::Plain);
    let key = table.table("key").sensitive();
    let subject = match word {
        SubjectWord::Hash => {
            let found = shared_secret(&key, "the audit key", 32);
            key.finish();
            match found {
                Some(found) => {
                    table.cx().claim("the audit key".to_owned(), &found.value.key, found.site, Sharing::Never);
                    let fingerprint = found.value.key.fingerprint();
                    table.cx().uses(KeyInUse { tenant: None, id: "audit".to_owned(), what: "subject hash".to_owned(), fingerprint });
                    AuditSubject::Hashed(found.value.key)
                }
                None => AuditSubject::Omitted,
            }
        }
        SubjectWord::Plain | SubjectWord::Omitted if table.writes("key") => {
            let title = "`audit.key` does nothing unless `audit.subject` is \"hash\"";
            let help = "write subject = \"hash\", or remove the key";
            table.report(Diagnostic::new(Code::NoEffect, table.site_of("key"), title).help(help));
            AuditSubject::Plain
        }
        SubjectWord::Plain => AuditSubject::Plain,
        SubjectWord::Omitted => AuditSubject::Omitted,
    };
    table.finish();
    subject
}

/// The file must be there and hold revocations only: a typing error in its name would revoke nothing, silently.
fn revocations(root: &Table<'_>) -> Option<PathBuf> {
    let written = root.get::<String>("revocations")?;
    let path = root.cx().file(&written.value);
    let text = root.cx().text(&path, written.site.clone())?;
    if let Err(lines) = Revocations::parse(&text) {
        for bad in lines {
            let title = format!("{}:{} is no revocation", path.display(), bad.line);
            root.report(Diagnostic::new(Code::BadValue, written.site.clone(), title).help(bad.why));
        }
    }
    Some(path)
}

/// A duration within bounds, or what stands for it.
pub(super) fn duration(table: &Table<'_>, key: &'static str, default: Duration, bounds: RangeInclusive<Duration>) -> Duration {
    bounded(table, key, Some(&default), &bounds).unwrap_or(default)
}

/// A duration within bounds, where there is one.
pub(super) fn duration_within(table: &Table<'_>, key: &'static str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
    bounded(table, key, None, &bounds)
}

fn size(table: &Table<'_>, key: &'static str, default: usize, bounds: RangeInclusive<u64>) -> usize {
    let bounds = Bytes(*bounds.start())..=Bytes(*bounds.end());
    let found = bounded(table, key, Some(&Bytes(default as u64)), &bounds);
    found.and_then(|b| usize::try_from(b.0).ok()).unwrap_or(default)
}

/// A number within bounds, or what stands for it.
pub(super) fn number(table: &Table<'_>, key: &'static str, default: usize, bounds: RangeInclusive<u64>) -> usize {
    bounded(table, key, Some(&(default as u64)), &bounds).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

/// A number within bounds, where there is one.
pub(super) fn number_within(table: &Table<'_>, key: &'static str, bounds: RangeInclusive<u64>) -> Option<usize> {
    bounded(table, key, None, &bounds).and_then(|n| usize::try_from(n).ok())
}

fn bounded<T: Shown + PartialOrd>(table: &Table<'_>, key: &'static str, default: Option<&T>, bounds: &RangeInclusive<T>) -> Option<T> {
    let ends = (bounds.start().shown(), bounds.end().shown());
    table.note(key, Key { default: default.map(Shown::shown), bounds: Some(ends), ..Key::of::<T>(Form::One) });
    let found = table.value::<T>(key)?;
    if bounds.contains(&found.value) {
        return Some(found.value);
    }
    let title = format!("`{}` is outside {} to {}", table.full(key), bounds.start().shown(), bounds.end().shown());
    let near = if found.value < *bounds.start() { bounds.start() } else { bounds.end() };
    table.report(Diagnostic::new(Code::OutOfRange, found.site, title).help(format!("the nearest that works is {}", near.shown())));
    None
}
