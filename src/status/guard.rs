//! Who may look at the status page: a browser that was pointed at it by its own name, from no other site. A page of a
//! stranger can make a browser ask anything of an address it can reach, and can have a name of its own point there (DNS
//! rebinding); so a name must be known, and what comes from another site is refused. Knows nothing of what is shown.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, Uri};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Asked for by a name that is not ours.
    Host,
    /// Another site's page asks.
    Site,
    /// It has a query: the page takes none, and a token must not stand in one.
    Query,
}

impl Refusal {
    /// The answer's status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Site => StatusCode::FORBIDDEN,
            Self::Query => StatusCode::BAD_REQUEST,
        }
    }

    /// What to do instead. Nothing of the request.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Host => {
                "This listener answers to localhost, loopback addresses and its own address. Another name is listed in server.admin_hosts.\n"
            }
            Self::Site => "Another site may not ask here. Type or bookmark the address instead of following a link.\n",
            Self::Query => "The status page takes no query, and never a token: doorward token explain reads one offline.\n",
        }
    }
}

/// Refuses a name that is neither local, nor the listener's address, nor configured (RFC 9110 §7.4).
///
/// # Errors
/// [`Refusal::Host`].
pub fn own_name(uri: &Uri, headers: &HeaderMap, listener: SocketAddr, names: &[String]) -> Result<(), Refusal> {
    let host = host(uri, headers).ok_or(Refusal::Host)?;
    let name = without_port(host);
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let known = match literal.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address == listener.ip() && !address.is_unspecified(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    };
    let listed = || names.iter().any(|listed| name.eq_ignore_ascii_case(listed));
    if known || listed() { Ok(()) } else { Err(Refusal::Host) }
}

/// Refuses what a browser says another site asked for (Fetch Metadata), or whose Origin is not the listener's own.
///
/// # Errors
/// [`Refusal::Site`].
pub fn own_site(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    // `none`: the user did, by typing or a bookmark.
    let sites = headers.get_all(&SEC_FETCH_SITE).iter();
    let foreign_site = sites.map(|site| site.as_bytes()).any(|site| !matches!(site, b"same-origin" | b"none"));
    let host = host(uri, headers);
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(own));
    if foreign_site || foreign_origin { Err(Refusal::Site) } else { Ok(()) }
}

/// Refuses a query.
///
/// # Errors
/// [`Refusal::Query`].
pub fn no_query(uri: &Uri) -> Result<(), Refusal> {
    if uri.query().is_some() { Err(Refusal::Query) } else { Ok(()) }
}

/// The one host that is asked for.
fn host<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r str> {
    let mut values = headers.get_all(header::HOST).iter();
    let host = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    uri.authority().is_none_or(|target| target.as_str() == host).then_some(host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_its_own_names_are_answered() {
        let (names, uri) = (["doorward.internal".to_owned()], Uri::from_static("/"));
        let by = |hosts: &[&str], listener: &str| {
            let mut map = HeaderMap::new();
            for host in hosts {
                map.append(header::HOST, host.parse().unwrap());
            }
            own_name(&uri, &map, listener.parse().unwrap(), &names).is_ok()
        };
        let local = "127.0.0.1:9090";
        for own in
            ["127.0.0.1:9090", "localhost", "LOCALHOST:9090", "[::1]:9090", "127.9.9.9", "doorward.internal:9090", "[::ffff:127.0.0.1]"]
        {
            assert!(by(&[own], local), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost.",
            "evil.localhost",
            "10.0.0.5",
            "[2001:db8::1]:9090",
            "xdoorward.internal",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "",
            "127.0.0.1:9090:9090",
            "evil.example, localhost",
            "localhost@evil.example",
        ] {
            assert!(!by(&[other], local), "{other}");
        }
        assert!(by(&["10.0.0.5:9090"], "10.0.0.5:9090"), "its own address");
        assert!(!by(&["10.0.0.5:9090"], "0.0.0.0:9090") && !by(&["0.0.0.0:9090"], "0.0.0.0:9090"), "every address is none");
        assert!(!by(&[], local) && !by(&["localhost", "localhost"], local), "exactly one");
        let absolute = Uri::from_static("http://evil.example/");
        assert!(own_name(&absolute, &headers(&[("host", "localhost")]), local.parse().unwrap(), &names).is_err());
    }

    #[test]
    fn other_sites_are_refused() {
        let uri = Uri::from_static("/");
        let site = |fields: &[(&'static str, &str)]| {
            let mut map = headers(fields);
            map.insert(header::HOST, "localhost:9090".parse().unwrap());
            own_site(&uri, &map).is_ok()
        };
        assert!(site(&[]) && site(&[("sec-fetch-site", "none")]) && site(&[("sec-fetch-site", "same-origin")]));
        assert!(site(&[("origin", "http://localhost:9090")]));
        for foreign in ["cross-site", "same-site", "Same-Origin", "", "none, cross-site"] {
            assert!(!site(&[("sec-fetch-site", foreign)]), "{foreign}");
        }
        for foreign in ["null", "http://evil.example", "http://localhost", "http://localhost:9091", "localhost:9090", ""] {
            assert!(!site(&[("origin", foreign)]), "{foreign}");
        }
    }
}
