//! Where a gateway that runs by a file answers probes. Reads the two keys that say so and nothing else, from a file that may
//! have been broken since: the gateway would go on with what it last loaded, and a probe must not stop it for the file's
//! sake. Loads nothing and reads no secret. Called by `doorward health`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::de::DeTable;

use super::server::ADMIN;

/// Why the file does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untold {
    /// `server.probes` or `server.admin`, this one, is no address.
    NotAnAddress(&'static str),
    /// The port of this one is 0: chosen when the gateway started.
    AnyPort(&'static str),
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnAddress(key) => write!(f, "`server.{key}` is no address and port"),
            Self::AnyPort(key) => write!(f, "`server.{key}` has port 0, so the port was chosen at start"),
        }
    }
}

/// `server.probes`, or `server.admin` where there is none, or its default. An address that means "all of them" is this
/// machine's own.
///
/// # Errors
/// Where the key that counts does not name an address and port.
pub fn address(text: &str) -> Result<SocketAddr, Untold> {
    let (root, _) = DeTable::parse_recoverable(text);
    let server = root.get_ref().get("server").and_then(|value| value.get_ref().as_table());
    let written = |key| server.and_then(|table| table.get(key)).map(|value| value.get_ref().as_str());
    let (key, address) = match (written("probes"), written("admin")) {
        (Some(probes), _) => ("probes", probes.and_then(|text| text.parse().ok())),
        (None, Some(admin)) => ("admin", admin.and_then(|text| text.parse().ok())),
        (None, None) => ("admin", Some(ADMIN)),
    };
    match address.ok_or(Untold::NotAnAddress(key))? {
        address if address.port() == 0 => Err(Untold::AnyPort(key)),
        address => Ok(own(address)),
    }
}

/// The address to connect to for what listens there.
fn own(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str, wanted: &str) {
        assert_eq!(address(text).map(|a| a.to_string()), Ok(wanted.to_owned()), "{text}");
    }

    #[test]
    fn probes_come_before_admin_and_admin_before_its_default() {
        is("[server]\nadmin = \"127.0.0.1:1\"\nprobes = \"10.0.0.1:2\"", "10.0.0.1:2");
        is("[server]\nadmin = \"127.0.0.1:1\"", "127.0.0.1:1");
        is("[server]\nlisten = \"127.0.0.1:1\"", "127.0.0.1:9090");
        is("", "127.0.0.1:9090");
    }

    #[test]
    fn every_address_is_asked_at_home() {
        is("[server]\nprobes = \"0.0.0.0:2\"", "127.0.0.1:2");
        is("[server]\nprobes = \"[::]:2\"", "[::1]:2");
    }

    #[test]
    fn what_is_broken_elsewhere_hides_nothing() {
        for broken in ["[[tenant]", "x = ", "\"\"\"", "[server]\n", "= 3", "[server]\nlisten = \"127.0.0.1:1"] {
            is(&format!("[server]\nprobes = \"127.0.0.1:2\"\n{broken}"), "127.0.0.1:2");
        }
    }

    #[test]
    fn what_names_no_port_is_not_guessed() {
        for (text, why) in [
            ("[server]\nprobes = 3", Untold::NotAnAddress("probes")),
            ("[server]\nadmin = \"localhost\"", Untold::NotAnAddress("admin")),
            ("[server]\nprobes = \"127.0.0.1:0\"", Untold::AnyPort("probes")),
        ] {
            assert_eq!(address(text), Err(why), "{text}");
        }
    }
}
