//! Who the client is where proxies stand in front of us: `X-Forwarded-*` or `Forwarded` (RFC 7239), believed only as far as
//! each hop was added by a trusted one. Decides nothing else; the server asks once per request, limits and the audit record
//! go by its answer, and what the backend gets is written from it anew.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Every header that says whom a request came from or through: a client's own copies never pass.
pub static FAMILY: [HeaderName; 7] = [
    FORWARDED,
    FOR,
    HOST,
    HeaderName::from_static("x-forwarded-port"),
    PROTO,
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];

/// Most hops that are looked at: what is further away is nobody's concern.
const MAX_HOPS: usize = 32;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// The client's address and the proxies' after it.
pub const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, as the client spoke it.
pub const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client asked for.
pub const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Which of the two conventions the trusted proxies write. Only that one is read: the other may be the client's own, which a
/// proxy that does not know it passes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Convention {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// Who may say where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Proxies by address.
    pub networks: Vec<IpNet>,
    /// Whoever may connect to a Unix socket.
    pub unix: bool,
    /// What they write.
    pub convention: Convention,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, or as the PROXY protocol announced it.
    Address(IpAddr),
    /// Over a Unix socket.
    Unix,
    /// Not known.
    Unknown,
}

/// Where a request came from, as far as it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The rightmost address that is not a trusted proxy's; none for a local process.
    pub address: Option<IpAddr>,
    /// Whether the client spoke TLS, to us or to a trusted proxy.
    pub secure: bool,
    /// The host that it asked a trusted proxy for.
    pub host: Option<String>,
    /// The trusted proxies between it and us, the nearest last.
    pub via: Vec<IpAddr>,
}

impl Client {
    /// `X-Forwarded-For` for the backend: the client, then the proxies that it came through.
    pub fn chain(&self) -> Option<String> {
        let hops: Vec<_> = self.address.iter().chain(&self.via).map(IpAddr::to_string).collect();
        (!hops.is_empty()).then(|| hops.join(", "))
    }

    /// `X-Forwarded-Proto` for the backend.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl Trusted {
    /// Whether this end of a connection is one of them.
    pub fn contains(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => self.networks.iter().any(|network| network.contains(&address.to_canonical())),
            Peer::Unix => self.unix,
            Peer::Unknown => false,
        }
    }

    /// Where a request on this connection came from.
    pub fn client(&self, peer: Peer, secure: bool, headers: &HeaderMap) -> Client {
        let address = if let Peer::Address(address) = peer { Some(address.to_canonical()) } else { None };
        let mut client = Client { address, secure, host: None, via: Vec::new() };
        if self.contains(peer) {
            match self.convention {
                Convention::XForwarded => self.by_x_forwarded(&mut client, headers),
                Convention::Forwarded => self.by_forwarded(&mut client, headers),
            }
            client.via.reverse();
        }
        client
    }

    fn by_x_forwarded(&self, client: &mut Client, headers: &HeaderMap) {
        let hops = from_the_right(headers, &FOR, |text| text.split(',').map(str::to_owned).collect());
        for hop in &hops {
            if !self.step(client, Some(hop.as_str())) {
                break;
            }
        }
        let last = |name| from_the_right(headers, name, |text| text.split(',').map(|v| v.trim().to_owned()).collect()).into_iter().next();
        told(client, last(&PROTO).as_deref(), last(&HOST).as_deref());
    }

    fn by_forwarded(&self, client: &mut Client, headers: &HeaderMap) {
        for element in from_the_right(headers, &FORWARDED, |text| split(text, ',')) {
            let parameters: Vec<_> = split(&element, ';').iter().filter_map(|pair| parameter(pair)).collect();
            let of = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
            // Each element is about the connection that its hop came over, so the client's own comes last.
            told(client, of("proto"), of("host"));
            if !self.step(client, of("for")) {
                break;
            }
        }
    }

    /// Goes one hop further away. Returns whether that hop is trusted to name the next.
    fn step(&self, client: &mut Client, hop: Option<&str>) -> bool {
        let Some(address) = hop.and_then(|hop| node(hop.trim())) else { return false };
        client.via.extend(client.address.replace(address));
        self.contains(Peer::Address(address))
    }
}

/// What the nearest proxy says about the connection it took.
fn told(client: &mut Client, proto: Option<&str>, host: Option<&str>) {
    match proto {
        Some(proto) if proto.eq_ignore_ascii_case("https") => client.secure = true,
        Some(proto) if proto.eq_ignore_ascii_case("http") => client.secure = false,
        Some(_) | None => {}
    }
    if let Some(host) = host.filter(|host| super::is_authority(host)) {
        client.host = Some(host.to_owned());
    }
}

/// A list header's elements, all its lines together, the last first.
fn from_the_right(headers: &HeaderMap, name: &HeaderName, split: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    let mut elements = Vec::new();
    for line in lines.into_iter().rev() {
        // What is no text cannot be passed over: who knows what stood there.
        let mut these = line.to_str().map_or_else(|_| vec![String::new()], &split);
        these.reverse();
        elements.extend(these);
        if elements.len() >= MAX_HOPS {
            elements.truncate(MAX_HOPS);
            break;
        }
    }
    elements
}

/// An address, with or without a port (RFC 7239 §6). `unknown` and obfuscated names are none.
fn node(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

/// The parts between separators that stand outside quotes.
fn split(text: &str, separator: char) -> Vec<String> {
    let (mut parts, mut part, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts
}

/// `name=value` or `name="value"`, the name in lower case.
fn parameter(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.trim().split_once('=')?;
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.replace('\\', ""),
        None => value.to_owned(),
    };
    Some((name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(convention: Convention) -> Trusted {
        Trusted { networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], unix: true, convention }
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn peer(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    fn seen(client: &Client) -> (Option<String>, &'static str, Option<&str>) {
        (client.chain(), client.scheme(), client.host.as_deref())
    }

    #[test]
    fn a_stranger_speaks_for_itself_only() {
        let lies = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.example"),
            ("forwarded", "for=1.2.3.4;proto=https"),
        ]);
        for convention in [Convention::XForwarded, Convention::Forwarded] {
            let trusted = trusted(convention);
            assert_eq!(seen(&trusted.client(peer("192.0.2.7"), false, &lies)), (Some("192.0.2.7".into()), "http", None));
            assert_eq!(seen(&trusted.client(peer("192.0.2.7"), true, &lies)), (Some("192.0.2.7".into()), "https", None));
            assert_eq!(seen(&trusted.client(Peer::Unknown, false, &lies)), (None, "http", None));
        }
        assert_eq!(seen(&Trusted::default().client(peer("127.0.0.1"), false, &lies)).0.as_deref(), Some("127.0.0.1"));
        assert_eq!(Trusted::default().client(Peer::Unix, false, &lies).address, None);
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        for (lines, chain) in [
            (&["203.0.113.9"][..], "203.0.113.9, 10.0.0.1"),
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9, 10.0.0.1"),
            (&["1.1.1.1", "203.0.113.9"], "203.0.113.9, 10.0.0.1"),
            (&["1.1.1.1, 203.0.113.9, 10.0.0.3, 10.0.0.2"], "203.0.113.9, 10.0.0.3, 10.0.0.2, 10.0.0.1"),
            (&["10.0.0.3,10.0.0.2"], "10.0.0.3, 10.0.0.2, 10.0.0.1"),
            (&["203.0.113.9:4711"], "203.0.113.9, 10.0.0.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1, 10.0.0.1"),
            (&["2001:db8::1, fd00::2"], "2001:db8::1, fd00::2, 10.0.0.1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9, 10.0.0.1"),
            // What is no address stops the walk: the client is whoever sent it.
            (&["203.0.113.9, unknown"], "10.0.0.1"),
            (&["203.0.113.9, "], "10.0.0.1"),
            (&["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2, 10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let client = trusted(Convention::XForwarded).client(peer("::ffff:10.0.0.1"), false, &headers(&lines));
            assert_eq!(client.chain().as_deref(), Some(chain), "{lines:?}");
        }
        let client = trusted(Convention::XForwarded).client(Peer::Unix, false, &headers(&[("x-forwarded-for", "203.0.113.9")]));
        assert_eq!((client.chain().as_deref(), client.via.len()), (Some("203.0.113.9"), 0));
    }

    #[test]
    fn endless_chains_are_not_followed() {
        let long = vec!["10.0.0.2"; 10_000].join(",");
        let client = trusted(Convention::XForwarded).client(peer("10.0.0.1"), false, &headers(&[("x-forwarded-for", &long)]));
        assert_eq!(client.via.len(), MAX_HOPS);
    }

    #[test]
    fn scheme_and_host_are_the_nearest_proxys_word() {
        for (proto, host, expected) in [
            ("https", "app.example", ("https", Some("app.example"))),
            ("HTTPS", "app.example:8443", ("https", Some("app.example:8443"))),
            ("https, http", "evil.example, app.example", ("http", Some("app.example"))),
            ("gopher", "a/b", ("http", None)),
            ("", "", ("http", None)),
        ] {
            let lines = headers(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", proto), ("x-forwarded-host", host)]);
            let client = trusted(Convention::XForwarded).client(peer("10.0.0.1"), false, &lines);
            assert_eq!((client.scheme(), client.host.as_deref()), expected, "{proto} {host}");
        }
    }

    #[test]
    fn only_the_written_convention_is_read() {
        let both = headers(&[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=203.0.113.9")]);
        assert_eq!(trusted(Convention::XForwarded).client(peer("10.0.0.1"), false, &both).address, "1.1.1.1".parse().ok());
        assert_eq!(trusted(Convention::Forwarded).client(peer("10.0.0.1"), false, &both).address, "203.0.113.9".parse().ok());
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (line, expected) in [
            ("for=203.0.113.9;proto=https;host=app.example", (Some("203.0.113.9, 10.0.0.1"), "https", Some("app.example"))),
            ("For=\"203.0.113.9:4711\" ; by=10.0.0.1", (Some("203.0.113.9, 10.0.0.1"), "http", None)),
            ("for=\"[2001:db8::1]:4711\";PROTO=\"https\"", (Some("2001:db8::1, 10.0.0.1"), "https", None)),
            ("for=\"[2001:db8::1]\"", (Some("2001:db8::1, 10.0.0.1"), "http", None)),
            ("for=1.1.1.1, for=203.0.113.9;proto=https, for=10.0.0.2;proto=http", (Some("203.0.113.9, 10.0.0.2, 10.0.0.1"), "https", None)),
            ("for=1.1.1.1;host=\"a,b\", for=203.0.113.9;host=\"x;y\"", (Some("203.0.113.9, 10.0.0.1"), "http", None)),
            ("for=1.1.1.1, for=_hidden", (Some("10.0.0.1"), "http", None)),
            ("for=\"203.0.113.9", (Some("10.0.0.1"), "http", None)),
            ("proto=https", (Some("10.0.0.1"), "https", None)),
            ("", (Some("10.0.0.1"), "http", None)),
        ] {
            let client = trusted(Convention::Forwarded).client(peer("10.0.0.1"), false, &headers(&[("forwarded", line)]));
            let (chain, scheme, host) = seen(&client);
            assert_eq!((chain.as_deref(), scheme, host), expected, "{line}");
        }
    }
}
