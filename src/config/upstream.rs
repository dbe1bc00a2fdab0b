//! One upstream's table, `[upstream]` or `[upstreams.NAME]`: addresses, balance, timeouts, checks, TLS, and what becomes of
//! Host and path. Certificates are read here, so that a broken one refuses the whole load.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::diagnostic::{Code, Diagnostic, Site};
use super::field::{BalanceWord, Complaint, HostPort, Word};
use super::known::Shown;
use super::listeners::LONGEST_SOCKET_PATH;
use super::places::HeadPlace;
use super::server::{DAY, MINUTE, duration, duration_within, number};
use super::table::{Located, Table};
use crate::clock;
use crate::request::path::Path;
use crate::tls::{Certificate, Unusable};
use crate::upstream::rewrite::{self, Rewrite};
use crate::upstream::tls::{self, ClientTls};
use crate::upstream::{Backend, Balance, Ejection, Health, HostPolicy, Timeouts, UpstreamSettings};

const SECOND: Duration = Duration::from_secs(1);
/// Most addresses that are written out.
const MOST_BACKENDS: usize = 64;

/// Reads an upstream's settings. Its headers and assertion are read with the assertions, so the table is not finished.
pub(super) fn settings(table: &Table<'_>, name: &str) -> UpstreamSettings {
    let backends = backends(table);
    let tls = tls(table, &backends);
    UpstreamSettings {
        name: name.to_owned(),
        balance: balance(table),
        timeouts: timeouts(table),
        retries: u32::try_from(number(table, "retries", 2, 0..=10)).unwrap_or(2),
        host: table.or("host", HostWord(HostPolicy::default())).0,
        path: Rewrite::new(prefix(table, "strip_prefix"), prefix(table, "add_prefix")),
        tls: tls.map(Arc::new),
        health: health(table),
        ejection: ejection(table),
        backends: backends.into_iter().map(|b| b.value).collect(),
    }
}

/// Exactly one of `address`, `addresses` and `unix`.
fn backends(table: &Table<'_>) -> Vec<Located<Backend>> {
    let written: Vec<_> = ["address", "addresses", "unix"].into_iter().filter(|key| table.writes(key)).collect();
    let address = if written.is_empty() { table.need::<HostPort>("address") } else { table.get::<HostPort>("address") };
    let address = address.map(|a| Located { value: a.value.0, site: a.site });
    let several = table.list::<AnyBackend>("addresses").unwrap_or_default();
    let several = several.into_iter().map(|a| Located { value: a.value.0, site: a.site });
    let unix = table.get::<String>("unix").map(|u| Located { value: Backend::Unix(u.value.into()), site: u.site });
    if let [_, second, ..] = written.as_slice() {
        let title = format!("an upstream has `{}` and `{second}`", written.first().copied().unwrap_or_default());
        let help = "keep one: address for one host, addresses = [\"a:3000\", \"b:3000\"] for several, unix for a socket";
        table.report(Diagnostic::new(Code::UpstreamPlace, table.site_of(second), title).help(help));
    }
    if table.is_empty_list("addresses") {
        let diagnostic = Diagnostic::new(Code::UpstreamPlace, table.site_of("addresses"), "an upstream has no address");
        table.report(diagnostic.help("list one or more, like addresses = [\"10.0.0.1:3000\", \"10.0.0.2:3000\"]"));
    }
    let mut all: Vec<Located<Backend>> = Vec::new();
    for mut found in address.into_iter().chain(several).chain(unix) {
        if let Backend::Unix(path) = &mut found.value {
            *path = table.cx().path(&path.to_string_lossy());
            if path.as_os_str().len() > LONGEST_SOCKET_PATH {
                let title = format!("{} is too long for a socket", path.display());
                let help = format!("the system takes {LONGEST_SOCKET_PATH} bytes, the configuration file's directory included");
                table.report(Diagnostic::new(Code::BadValue, found.site.clone(), title).help(help));
            }
        }
        if let Some(first) = all.iter().find(|earlier| earlier.value == found.value) {
            let diagnostic = Diagnostic::new(Code::UpstreamPlace, found.site, format!("{} stands twice", first.value));
            table.report(diagnostic.beside(first.site.clone(), "first written here").help("list each address once"));
        } else if all.len() == MOST_BACKENDS {
            let title = format!("an upstream has more than {MOST_BACKENDS} addresses");
            table.report(Diagnostic::new(Code::UpstreamPlace, found.site, title).help("write a name that resolves to them"));
            break;
        } else {
            all.push(found);
        }
    }
    all
}

/// An element of `addresses`: `host:port`, or `unix:` and a path.
struct AnyBackend(Backend);

impl Word for AnyBackend {
    const EXAMPLE: &'static str = "\"127.0.0.1:3000\"";
    const WANTED: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.chars().any(char::is_control) => Ok(Self(Backend::Unix(path.into()))),
            Some(_) => Err(Complaint::new(Code::BadValue, "is not a socket").help("write its whole path, like \"unix:/run/agent.sock\"")),
            None => HostPort::parse(text).map(|found| Self(found.0)),
        }
    }
}

fn balance(table: &Table<'_>) -> Balance {
    let word = table.or("balance", BalanceWord::RoundRobin);
    let places = table.list::<HeadPlace>("hash_on").unwrap_or_default().into_iter().map(|place| place.value.0).collect();
    if word != BalanceWord::ConsistentHash && table.writes("hash_on") {
        let title = "`hash_on` does nothing unless `balance` is \"consistent_hash\"";
        let help = "write balance = \"consistent_hash\", or remove it";
        table.report(Diagnostic::new(Code::NoEffect, table.site_of("hash_on"), title).help(help));
    }
    match word {
        BalanceWord::RoundRobin => Balance::RoundRobin,
        BalanceWord::LeastConnections => Balance::LeastConnections,
        BalanceWord::ConsistentHash => Balance::ConsistentHash(places),
    }
}

fn timeouts(table: &Table<'_>) -> Timeouts {
    let bounds = || Duration::from_millis(1)..=DAY;
    let read = duration(table, "read_timeout", 5 * MINUTE, bounds());
    Timeouts {
        connect: duration(table, "connect_timeout", 5 * SECOND, bounds()),
        first_byte: duration_within(table, "first_byte_timeout", bounds()).unwrap_or(read),
        read,
        write: duration(table, "write_timeout", MINUTE, bounds()),
        total: duration(table, "total_timeout", 30 * MINUTE, bounds()),
        idle: duration(table, "idle_timeout", 4 * SECOND, bounds()),
    }
}

/// `host`: `"preserve"`, `"upstream"`, or a name.
struct HostWord(HostPolicy);

impl Word for HostWord {
    const EXAMPLE: &'static str = "\"preserve\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text {
            "preserve" => Ok(Self(HostPolicy::Preserve)),
            "upstream" => Ok(Self(HostPolicy::Address)),
            name => {
                let authority: Option<http::uri::Authority> = name.parse().ok();
                let plain =
                    authority.is_some_and(|a| !a.host().is_empty() && a.as_str() == name && !name.contains('@') && !name.ends_with(':'));
                let value = Some(name).filter(|_| plain).and_then(|name| HeaderValue::from_str(name).ok());
                value.map(|value| Self(HostPolicy::Name(value))).ok_or_else(|| {
                    let help = "write \"preserve\", \"upstream\", or a host like \"agent.internal\" or \"agent.internal:8080\"";
                    Complaint::new(Code::BadValue, "is not a host").help(help)
                })
            }
        }
    }
}

impl Shown for HostWord {
    fn shown(&self) -> String {
        match &self.0 {
            HostPolicy::Preserve => "\"preserve\"".to_owned(),
            HostPolicy::Address => "\"upstream\"".to_owned(),
            HostPolicy::Name(name) => format!("{name:?}"),
        }
    }
}

fn prefix(table: &Table<'_>, key: &'static str) -> Option<String> {
    let written = table.get::<String>(key)?;
    match rewrite::prefix(&written.value) {
        Ok(prefix) => Some(prefix),
        Err(why) => {
            let title = format!("`{}` is not a path to strip or add", table.full(key));
            table.report(Diagnostic::new(Code::BadValue, written.site, title).help(why));
            None
        }
    }
}

fn health(upstream: &Table<'_>) -> Option<Health> {
    let table = upstream.table("health");
    let path = table.get::<String>("path").and_then(|written| {
        let (path, _) = written.value.split_once('?').unwrap_or((&written.value, ""));
        let plain = Path::parse(path).is_ok_and(|read| read.as_str() == path && path != "*");
        if plain && written.value.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Some(written.value);
        }
        let title = format!("`{}` is not a path", table.full("path"));
        table.report(Diagnostic::new(Code::BadValue, written.site, title).help("write it in normal form, like \"/healthz\""));
        None
    });
    let statuses = statuses(&table, "statuses", 200..=599);
    if table.writes("statuses") && !table.writes("path") {
        let title = "`statuses` does nothing without a path: only whether a connection is taken is looked at";
        table.report(Diagnostic::new(Code::NoEffect, table.site_of("statuses"), title).help("add path = \"/healthz\", or remove it"));
    }
    let times = |key, default| u32::try_from(number(&table, key, default, 1..=100)).unwrap_or(1);
    let health = Health {
        path,
        interval: duration(&table, "interval", 5 * SECOND, SECOND / 10..=DAY),
        timeout: duration(&table, "timeout", 2 * SECOND, Duration::from_millis(1)..=10 * MINUTE),
        healthy_after: times("healthy_after", 2),
        unhealthy_after: times("unhealthy_after", 3),
        statuses,
    };
    table.finish();
    upstream.writes("health").then_some(health)
}

fn ejection(upstream: &Table<'_>) -> Ejection {
    let table = upstream.table("ejection");
    let bounds = || SECOND / 10..=DAY;
    let period = duration(&table, "period", 10 * SECOND, bounds());
    let ejection = Ejection {
        failures: u32::try_from(number(&table, "failures", 5, 0..=1000)).unwrap_or(0),
        period,
        longest: duration(&table, "longest", 5 * MINUTE, bounds()),
        statuses: statuses(&table, "statuses", 500..=599),
    };
    if ejection.longest < period {
        let title = format!("`{}` is shorter than the period", table.full("longest"));
        table.report(Diagnostic::new(Code::OutOfRange, table.site_of("longest"), title).help("periods grow from one to the other"));
    }
    table.finish();
    ejection
}

fn statuses(table: &Table<'_>, key: &'static str, bounds: RangeInclusive<u16>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for found in table.list::<u64>(key).unwrap_or_default() {
        match u16::try_from(found.value) {
            Ok(status) if bounds.contains(&status) => statuses.push(status),
            _ => {
                let title = format!("`{}` has {}", table.full(key), found.value);
                let help = format!("write statuses from {} to {}", bounds.start(), bounds.end());
                table.report(Diagnostic::new(Code::OutOfRange, found.site, title).help(help));
            }
        }
    }
    statuses
}

/// `None` where no TLS is spoken, or a problem was recorded.
fn tls(upstream: &Table<'_>, backends: &[Located<Backend>]) -> Option<ClientTls> {
    let table = upstream.table("tls");
    let server_name = table.get::<ServerName>("server_name").map(|name| name.value.0);
    let authorities = table.get::<String>("ca").map(|written| read_authorities(&table, &written));
    let own = own(&table);
    table.finish();
    if !upstream.writes("tls") {
        return None;
    }
    // An empty name would switch verification off.
    let unnamed = |backend: &&Located<Backend>| match &backend.value {
        Backend::Unix(_) => true,
        Backend::Tcp { host, .. } => !tls::is_name(host),
    };
    if let Some(backend) = backends.iter().find(unnamed).filter(|_| !table.writes("server_name")) {
        let title = format!("{} has no name that a certificate could be for", backend.value);
        let diagnostic = Diagnostic::new(Code::MissingKey, table.site(), title).beside(backend.site.clone(), "this address");
        table.report(diagnostic.help(format!("add {} = \"agent.internal\", the name in its certificate", table.full("server_name"))));
        return None;
    }
    Some(ClientTls::new(server_name, authorities.unwrap_or(Some(Vec::new()))?, own?))
}

/// A name that certificates are for.
struct ServerName(String);

impl Word for ServerName {
    const EXAMPLE: &'static str = "\"agent.internal\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if tls::is_name(text) {
            return Ok(Self(text.to_owned()));
        }
        let help = "write the host name or IP address in the backend's certificate, without a port";
        Err(Complaint::new(Code::BadValue, "is not a name that a certificate could be for").help(help))
    }
}

fn unusable(table: &Table<'_>, site: &Site, what: &str, why: &str, help: &str) {
    let title = format!("{what} cannot be used: {why}");
    table.report(Diagnostic::new(Code::Certificate, site.clone(), title).help(help.to_owned()));
}

fn read_authorities(table: &Table<'_>, written: &Located<String>) -> Option<Vec<Vec<u8>>> {
    let text = table.cx().text(&table.cx().file(&written.value), written.site.clone())?;
    let help = "write a PEM file with the certificates that sign your backend's ones";
    tls::authorities(&text).map_err(|why| unusable(table, &written.site, &format!("authority {}", written.value), &why, help)).ok()
}

/// A chain, leaf first, and its key, as DER.
type Own = (Vec<Vec<u8>>, Vec<u8>);

/// `None` where a problem was recorded; `Some(None)` where there is no certificate to show.
#[allow(clippy::option_option)] // both are said above
fn own(table: &Table<'_>) -> Option<Option<Own>> {
    let (chain, key) = (table.get::<String>("client_certificate"), table.get::<String>("client_key"));
    let (chain, key) = match (chain, key) {
        (None, None) if !table.writes("client_certificate") && !table.writes("client_key") => return Some(None),
        (Some(chain), Some(key)) => (chain, key),
        (chain, key) => {
            let written = if chain.is_some() { "client_certificate" } else { "client_key" };
            let missing = if chain.is_some() { "client_key" } else { "client_certificate" };
            if (chain.is_some() || key.is_some()) && !table.writes(missing) {
                let title = format!("`{}` is missing", table.full(missing));
                let help = "a certificate and its key go together: client_certificate = \"client.pem\", client_key = \"client.key.pem\"";
                table.report(Diagnostic::new(Code::MissingKey, table.site_of(written), title).help(help));
            }
            return None;
        }
    };
    let text = |named: &Located<String>| table.cx().text(&table.cx().file(&named.value), named.site.clone());
    let (chain_text, key_text) = (text(&chain), text(&key));
    let (chain_text, key_text) = (chain_text?, key_text?);
    let parsed = match Certificate::parse(&chain_text, &key_text) {
        Ok(parsed) => parsed,
        Err(Unusable::Certificate(why)) => {
            unusable(table, &chain.site, &format!("certificate {}", chain.value), &why, "write a PEM file with your certificate first");
            return None;
        }
        Err(Unusable::Key(why)) => {
            let help = "write a PEM file with the certificate's private key: PKCS#8, PKCS#1 or SEC 1, without a passphrase";
            unusable(table, &key.site, &format!("key {}", key.value), &why, help);
            return None;
        }
        Err(Unusable::Mismatch) => {
            let title = format!("key {} is not the one of certificate {}", key.value, chain.value);
            let diagnostic = Diagnostic::new(Code::Certificate, key.site, title).beside(chain.site, "this certificate");
            table.report(diagnostic.help("replace both files together, or the key with the certificate's own"));
            return None;
        }
    };
    if !clock::read().is_ok_and(|now| parsed.is_valid(now)) {
        let title = format!("certificate {} is not valid now", chain.value);
        let help = "the backend will refuse it; renew it and replace the files: they are read again while the gateway runs";
        table.report(Diagnostic::new(Code::CertificateTime, chain.site.clone(), title).help(help));
    }
    let own = tls::own(&chain_text, &key_text, &parsed);
    own.map_err(|why| unusable(table, &chain.site, &format!("certificate {}", chain.value), &why, "write both as PEM")).ok().map(Some)
}
