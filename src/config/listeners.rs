//! `[[server.listener]]` and `trusted_proxies`: where clients connect beside `listen`, what a TLS listener shows them, and
//! whose word about them is believed. Certificates are read here, so that a broken one refuses the whole load.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::diagnostic::{Code, Diagnostic};
use super::field::{Network, SocketMode};
use super::table::{Located, Table};
use crate::clock;
use crate::request::forwarded::{Convention, Trusted};
use crate::request::original;
use crate::snapshot::{Listener, Place};
use crate::tls::{Certificate, ClientAuth, Clients, MinVersion, Tls, Unusable};

/// Longest path of a Unix socket, in bytes (`sun_path` of Linux, without its NUL).
pub(super) const LONGEST_SOCKET_PATH: usize = 107;
/// Who may connect to a Unix socket: its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// Reads `[[server.listener]]`. Each is located at its address.
pub(super) fn listeners(server: &Table<'_>) -> Vec<Located<Listener>> {
    server.tables("listener").iter().filter_map(listener).collect()
}

fn listener(table: &Table<'_>) -> Option<Located<Listener>> {
    let place = place(table);
    let http2 = table.get::<bool>("http2");
    let tls = tls(table, http2.as_ref().is_none_or(|h| h.value));
    if let Some(http2) = http2.filter(|_| !table.writes("tls")) {
        let help = "clients ask for HTTP/2 while they shake hands: add tls, or see h2c for clients inside";
        table.report(Diagnostic::new(Code::NoEffect, http2.site, "`http2` does nothing without tls").help(help));
    }
    let h2c = table.get::<bool>("h2c");
    if let Some(h2c) = h2c.as_ref().filter(|_| table.writes("tls")) {
        let help = "remove it: http2 says whether TLS clients may speak HTTP/2, and they may by default";
        table.report(Diagnostic::new(Code::NoEffect, h2c.site.clone(), "`h2c` does nothing beside tls").help(help));
    }
    let proxy_protocol = table.or("proxy_protocol", false);
    let forward_auth = forward_auth(table);
    table.finish();
    let place = place?;
    let h2c = h2c.is_some_and(|h| h.value);
    Some(Located { value: Listener { place: place.value, tls, h2c, proxy_protocol, forward_auth }, site: place.site })
}

/// `[server.listener.forward_auth]`: whose convention is spoken there.
fn forward_auth(listener: &Table<'_>) -> Option<original::Convention> {
    let table = listener.table("forward_auth");
    let convention = if listener.writes("forward_auth") { table.need("convention") } else { table.get("convention") };
    table.finish();
    convention.map(|found| found.value)
}

/// Exactly one of `address` and `unix`.
fn place(table: &Table<'_>) -> Option<Located<Place>> {
    let address = table.get::<SocketAddr>("address");
    let unix = table.get::<String>("unix");
    let mode = table.get::<SocketMode>("mode");
    if let Some(mode) = mode.as_ref().filter(|_| !table.writes("unix")) {
        let help = "a TCP address has no permissions: remove it";
        table.report(Diagnostic::new(Code::NoEffect, mode.site.clone(), "`mode` does nothing without unix").help(help));
    }
    let help = "write address = \"0.0.0.0:8443\" or unix = \"/run/doorward/doorward.sock\"";
    match (table.writes("address"), table.writes("unix")) {
        (false, false) => {
            table.report(Diagnostic::new(Code::ListenerPlace, table.site(), "a listener has no address").help(help));
            None
        }
        (true, true) => {
            let diagnostic = Diagnostic::new(Code::ListenerPlace, table.site_of("unix"), "a listener has two addresses");
            table.report(diagnostic.help("write a [[server.listener]] for each"));
            None
        }
        (true, false) => address.map(|a| Located { value: Place::Tcp(a.value), site: a.site }),
        (false, true) => {
            let unix = unix?;
            let path = socket_path(table, &unix);
            Some(Located { value: Place::Unix { path, mode: mode.map_or(SOCKET_MODE, |m| m.value.0) }, site: unix.site })
        }
    }
}

/// Where a Unix socket is to be.
pub(super) fn socket_path(table: &Table<'_>, written: &Located<String>) -> PathBuf {
    let path = table.cx().path(&written.value);
    if path.as_os_str().len() > LONGEST_SOCKET_PATH {
        let title = format!("{} is too long for a socket", path.display());
        let help = format!("the system takes {LONGEST_SOCKET_PATH} bytes, the configuration file's directory included");
        table.report(Diagnostic::new(Code::BadValue, written.site.clone(), title).help(help));
    }
    path
}

/// `None` where the listener is plain, or a problem was recorded.
fn tls(listener: &Table<'_>, http2: bool) -> Option<Tls> {
    let table = listener.table("tls");
    let min = table.or("min_version", MinVersion::default());
    let clients = clients(&table);
    let tables = table.tables("certificates");
    let certificates: Vec<_> = tables.iter().filter_map(certificate).collect();
    table.finish();
    if !listener.writes("tls") {
        return None;
    }
    if tables.is_empty() && (!table.writes("certificates") || table.is_empty_list("certificates")) {
        let title = format!("`{}` is missing", table.full("certificates"));
        let help = "add certificates = [{ certificate = \"fullchain.pem\", key = \"key.pem\" }]";
        table.report(Diagnostic::new(Code::MissingKey, table.site(), title).help(help));
    }
    match Tls::new(&certificates, min, clients.as_ref(), http2) {
        Ok(tls) => Some(tls),
        Err(why) => {
            table.report(Diagnostic::new(Code::Certificate, table.site(), format!("TLS cannot be spoken here: {why}")));
            None
        }
    }
}

fn certificate(table: &Table<'_>) -> Option<Certificate> {
    let (chain, key) = (table.need::<String>("certificate"), table.need::<String>("key"));
    table.finish();
    let (chain, key) = (chain?, key?);
    let text = |named: &Located<String>| table.cx().text(&table.cx().file(&named.value), named.site.clone());
    let (chain_text, key_text) = (text(&chain), text(&key));
    let unusable = |at: &Located<String>, what: &str, why: &str, help: &str| {
        let title = format!("{what} {} cannot be used: {why}", at.value);
        table.report(Diagnostic::new(Code::Certificate, at.site.clone(), title).help(help.to_owned()));
    };
    match Certificate::parse(&chain_text?, &key_text?) {
        Ok(certificate) => {
            if !clock::read().is_ok_and(|now| certificate.is_valid(now)) {
                let title = format!("certificate {} is not valid now", chain.value);
                let help = "clients will refuse it; renew it and replace the files: they are read again while the gateway runs";
                table.report(Diagnostic::new(Code::CertificateTime, chain.site, title).help(help));
            }
            Some(certificate)
        }
        Err(Unusable::Certificate(why)) => {
            unusable(&chain, "certificate", &why, "write a PEM file with the server's certificate first, then its intermediates");
            None
        }
        Err(Unusable::Key(why)) => {
            unusable(
                &key,
                "key",
                &why,
                "write a PEM file with the certificate's private key: PKCS#8, PKCS#1 or SEC 1, without a passphrase",
            );
            None
        }
        Err(Unusable::Mismatch) => {
            let title = format!("key {} is not the one of certificate {}", key.value, chain.value);
            let diagnostic = Diagnostic::new(Code::Certificate, key.site, title).beside(chain.site, "this certificate");
            table.report(diagnostic.help("replace both files together, or the key with the certificate's own"));
            None
        }
    }
}

fn clients(table: &Table<'_>) -> Option<Clients> {
    let auth = table.get::<ClientAuth>("client_auth");
    let Some(written) = table.get::<String>("client_ca") else {
        if let Some(auth) = auth.filter(|_| !table.writes("client_ca")) {
            let help = "add client_ca = \"ca.pem\", whose certificates clients may show";
            table.report(Diagnostic::new(Code::NoEffect, auth.site, "`client_auth` does nothing without client_ca").help(help));
        }
        return None;
    };
    let text = table.cx().text(&table.cx().file(&written.value), written.site.clone())?;
    match Clients::parse(&text, auth.map_or(ClientAuth::default(), |a| a.value)) {
        Ok(clients) => Some(clients),
        Err(why) => {
            let title = format!("authority {} cannot be used: {why}", written.value);
            let help = "write a PEM file with the certificates that sign your clients' ones";
            table.report(Diagnostic::new(Code::Certificate, written.site, title).help(help));
            None
        }
    }
}

/// Reads `trusted_proxies` and `forwarded_by`.
pub(super) fn trusted(server: &Table<'_>) -> Trusted {
    let mut trusted = Trusted::default();
    for found in server.list::<Network>("trusted_proxies").unwrap_or_default() {
        match found.value {
            Network::Unix => trusted.unix = true,
            Network::Of(network) => {
                if network.prefix_len() == 0 {
                    let title = format!("`server.trusted_proxies` has {network}: anybody may say who they are");
                    let help = "write the addresses of your own proxies only; limits and audit records go by what they say";
                    server.report(Diagnostic::new(Code::TrustsAnybody, found.site, title).help(help));
                }
                trusted.networks.push(network);
            }
        }
    }
    let convention = server.get::<Convention>("forwarded_by");
    if let Some(convention) = convention.as_ref().filter(|_| !server.writes("trusted_proxies")) {
        let help = "add trusted_proxies = [\"10.0.0.0/8\"], the proxies that write these headers";
        let title = "`server.forwarded_by` does nothing without trusted_proxies";
        server.report(Diagnostic::new(Code::NoEffect, convention.site.clone(), title).help(help));
    }
    trusted.convention = convention.map_or(Convention::default(), |c| c.value);
    trusted
}

/// A PROXY protocol header from anybody would let anybody be anyone; a check from anybody would tell anybody anything, and a
/// listener that nobody may ask denies every request of an ingress.
pub(super) fn refuse_untrusted(server: &Table<'_>, trusted: &Trusted) {
    for table in server.tables("listener").iter().filter(|table| table.writes("forward_auth")) {
        let (asked, who) = if table.writes("unix") { (trusted.unix, "\"unix\"") } else { (!trusted.networks.is_empty(), "\"10.0.0.7\"") };
        if !asked {
            let title = "`forward_auth` has nobody who may ask: every request of the ingress would be denied";
            let help = format!("add [server] trusted_proxies = [{who}], the ingress as it connects here");
            server.report(Diagnostic::new(Code::ForwardAuthUntrusted, table.site_of("forward_auth"), title).help(help));
        }
    }
    if !trusted.networks.is_empty() || trusted.unix {
        return;
    }
    for table in server.tables("listener") {
        if table.or("proxy_protocol", false) {
            let title = "`proxy_protocol` has nobody who may speak it: no connection would be taken";
            let help = "add [server] trusted_proxies = [\"10.0.0.0/8\"], the addresses of the load balancers";
            server.report(Diagnostic::new(Code::ProxyUntrusted, table.site_of("proxy_protocol"), title).help(help));
        }
    }
}
