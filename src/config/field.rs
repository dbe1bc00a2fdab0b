//! The types that a key's value can have: each reads itself from a TOML value or says what is wrong with it and how it is
//! written. Knows nothing about which key it stands for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::de::DeValue;
use url::{Host, Url};

use super::diagnostic::{Code, Diagnostic, Site};
use super::known::Shown;
use super::suggest::{nearest, one_of};
use crate::assertion::{KeyAlgorithm, Scheme};
use crate::clock::UnixTime;
use crate::limits::Per;
use crate::policy::{Audience, Level, Mode};
use crate::request::embed_key::EmbedKey;
use crate::request::forwarded::Convention;
use crate::request::origin::OriginRule;
use crate::request::original;
use crate::request::path::PathPattern;
use crate::secret::Encoding;
use crate::tenant::{MissingOrigin, OnExpired, OnStreamExpiry, UnsignedId};
use crate::tls::{ClientAuth, MinVersion};
use crate::token::FormatName;
use crate::upstream::Backend;

/// What is wrong with a value. The sentence goes on after the key's name.
#[derive(Debug)]
pub(super) struct Complaint {
    code: Code,
    sentence: String,
    help: Option<String>,
    /// The value may be a secret, so it is not shown.
    pub(super) hide: bool,
}

impl Complaint {
    pub(super) fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), help: None, hide: false }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn hidden(mut self) -> Self {
        self.hide = true;
        self
    }

    /// The same about a key at a place.
    pub(super) fn at(self, path: &str, site: Site) -> Diagnostic {
        let mut diagnostic = Diagnostic::new(self.code, site, format!("`{path}` {}", self.sentence));
        diagnostic.help = self.help;
        diagnostic
    }
}

/// A type of value.
pub(super) trait Field: Sized {
    /// How such a value is written.
    const EXAMPLE: &'static str;
    /// What is wanted, after "wants".
    const WANTED: &'static str;
    /// Every word that is taken, where there are no others.
    const WORDS: &'static [&'static str] = &[];

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint>;
}

/// A type of value that is written as a string.
pub(super) trait Word: Sized {
    const EXAMPLE: &'static str;
    /// What is wanted, after "wants".
    const WANTED: &'static str = "a string";
    /// Every word that is taken, where there are no others.
    const WORDS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, Complaint>;
}

impl<T: Word> Field for T {
    const EXAMPLE: &'static str = T::EXAMPLE;
    const WANTED: &'static str = T::WANTED;
    const WORDS: &'static [&'static str] = T::WORDS;

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        match value {
            DeValue::String(text) => T::parse(text),
            other => Err(wrong_type(T::WANTED, other).help(format!("write it like {}", T::EXAMPLE))),
        }
    }
}

/// What a value is, for "wants …, not …".
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn wrong_type(wanted: &str, value: &DeValue<'_>) -> Complaint {
    Complaint::new(Code::WrongType, format!("wants {wanted}, not {}", kind_of(value)))
}

impl Field for bool {
    const EXAMPLE: &'static str = "true";
    const WANTED: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        value.as_bool().ok_or_else(|| wrong_type(Self::WANTED, value).help("write true or false, without quotes"))
    }
}

impl Field for u64 {
    const EXAMPLE: &'static str = "1";
    const WANTED: &'static str = "an integer";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        let integer = value.as_integer().ok_or_else(|| wrong_type(Self::WANTED, value).help("write a number without quotes"))?;
        let parsed = u64::from_str_radix(integer.as_str(), integer.radix());
        parsed.map_err(|_| Complaint::new(Code::OutOfRange, "wants a number from 0 to 2^64 - 1"))
    }
}

impl Field for Vec<String> {
    const EXAMPLE: &'static str = "[\"one\"]";
    const WANTED: &'static str = "a list of strings";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        let wrong = |found| wrong_type(Self::WANTED, found).help(format!("write it like {}", <Self as Field>::EXAMPLE));
        let DeValue::Array(elements) = value else { return Err(wrong(value)) };
        elements.iter().map(|e| e.get_ref().as_str().map(str::to_owned).ok_or_else(|| wrong(e.get_ref()))).collect()
    }
}

impl Field for Duration {
    const EXAMPLE: &'static str = "\"30s\"";
    const WANTED: &'static str = "a duration";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        match value {
            DeValue::String(text) => duration(text),
            DeValue::Integer(number) => Err(no_unit(number.as_str(), "s")),
            other => Err(wrong_type(Self::WANTED, other).help("write it like \"250ms\", \"30s\", \"5m\" or \"1h\"")),
        }
    }
}

fn duration(text: &str) -> Result<Duration, Complaint> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(no_unit(text, "s"));
    }
    // The crate adds up to 2^64 - 1 seconds and panics one nanosecond further: no such number fits into 20 characters.
    let parsed = Some(text).filter(|t| t.len() <= 20).and_then(|t| humantime::parse_duration(t).ok());
    let bad = || Complaint::new(Code::BadValue, "is not a duration").help("write it like \"250ms\", \"30s\", \"5m\" or \"1h\"");
    parsed.ok_or_else(bad)
}

fn no_unit(number: &str, unit: &str) -> Complaint {
    Complaint::new(Code::UnitMissing, "has no unit").help(format!("write \"{number}{unit}\""))
}

/// A number of bytes, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) u64);

impl Field for Bytes {
    const EXAMPLE: &'static str = "\"1MiB\"";
    const WANTED: &'static str = "a size";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        let help = "write it like \"64KiB\" or \"1MiB\"";
        match value {
            DeValue::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Err(no_unit(text, "B")),
            DeValue::String(text) => {
                let size: Option<ByteSize> = text.parse().ok();
                size.map(|s| Self(s.as_u64())).ok_or_else(|| Complaint::new(Code::BadValue, "is not a size").help(help))
            }
            DeValue::Integer(number) => Err(no_unit(number.as_str(), "B")),
            other => Err(wrong_type(Self::WANTED, other).help(help)),
        }
    }
}

impl Field for UnixTime {
    const EXAMPLE: &'static str = "2026-11-20T12:00:00Z";
    const WANTED: &'static str = "a time";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        let text = match value {
            DeValue::Datetime(time) => time.to_string(),
            DeValue::String(text) => text.to_string(),
            other => return Err(wrong_type(Self::WANTED, other).help("write it like 2026-11-20T12:00:00Z (RFC 3339)")),
        };
        let time: Option<jiff::Timestamp> = text.parse().ok();
        let millis = time.and_then(|t| u64::try_from(t.as_millisecond()).ok()).map(Self::from_millis);
        millis.ok_or_else(|| {
            Complaint::new(Code::BadValue, "is not a time since 1970 with its offset").help("write it like 2026-11-20T12:00:00Z (RFC 3339)")
        })
    }
}

impl Word for String {
    const EXAMPLE: &'static str = "\"…\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(
                Complaint::new(Code::BadValue, "is empty or has control characters").help("write visible text, or leave the key out")
            );
        }
        Ok(text.to_owned())
    }
}

/// A name that appears in headers, metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) String);

impl Word for Id {
    const EXAMPLE: &'static str = "\"a1\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain && (1..=64).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Complaint::new(Code::BadValue, "is not an id").help("an id has 1 to 64 letters, digits, dots, dashes and underscores"))
    }
}

/// The name of an environment variable. What is none may be the secret itself, so it is hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvName(pub(super) String);

impl Word for EnvName {
    const EXAMPLE: &'static str = "\"ACME_IDENTITY_SECRET\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain && text.len() <= 64 && text.bytes().next().is_some_and(|b| !b.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        let help = "env takes the variable's name, file a path; a secret itself never stands in this file";
        Err(Complaint::new(Code::BadValue, "is not the name of an environment variable").help(help).hidden())
    }
}

impl Word for SocketAddr {
    const EXAMPLE: &'static str = "\"127.0.0.1:8080\"";
    const WANTED: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        text.parse().map_err(|_| {
            let guess = match text.split_once(':') {
                Some(("", port)) => {
                    format!("write the address too: \"0.0.0.0:{port}\" for every interface, \"127.0.0.1:{port}\" for this machine")
                }
                Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\": names are not resolved here"),
                _ => "write an IP address and a port, like \"127.0.0.1:8080\" or \"[::]:8080\"".to_owned(),
            };
            Complaint::new(Code::BadValue, "is not an address to listen on").help(guess)
        })
    }
}

/// `host:port` of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort(pub(super) Backend);

impl Word for HostPort {
    const EXAMPLE: &'static str = "\"127.0.0.1:3000\"";
    const WANTED: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let bad = |help: String| Complaint::new(Code::BadValue, "is not host:port").help(help);
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or_default();
            return Err(bad(format!("write the host and the port only, without {scheme}://: \"{host}\"")));
        }
        let shape = || bad("write a host and a port, like \"127.0.0.1:3000\", \"agent.internal:3000\" or \"[::1]:3000\"".to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
        let name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        let number = port.parse::<u16>().ok().filter(|number| *number > 0 && port.bytes().all(|b| b.is_ascii_digit()));
        match number {
            Some(port) if v6 || name => Ok(Self(Backend::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port })),
            _ => Err(shape()),
        }
    }
}

/// A host name as a browser sends it, without a port.
pub(super) struct HostName(pub(super) String);

impl Word for HostName {
    const EXAMPLE: &'static str = "\"doorward.internal\"";
    const WANTED: &'static str = "a host name";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let v6 = text.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        if v6 || !text.is_empty() && !text.ends_with('.') && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        let help = "write the name alone, in lower case: no scheme, port, path or star, like \"doorward.internal\"";
        Err(Complaint::new(Code::BadValue, "is not a host name").help(help))
    }
}

/// Where an issuer publishes its keys, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuerUrl(pub(super) String);

impl Word for IssuerUrl {
    const EXAMPLE: &'static str = "\"https://login.example.com/.well-known/jwks.json\"";
    const WANTED: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let bad = |help: &str| Complaint::new(Code::BadValue, "is not where keys can be fetched").help(help);
        let url = Url::parse(text).map_err(|_| bad(&format!("write it like {}", <Self as Word>::EXAMPLE)))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("keys are public: write the address without a name or password").hidden());
        }
        let here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if here => {}
            "http" => return Err(bad("write https: whoever changes the answer on its way can be anybody; http is for this machine only")),
            _ => return Err(bad("write https, or http for this machine")),
        }
        if url.fragment().is_some() {
            return Err(bad("write it without what follows the #: it is never sent"));
        }
        Ok(Self(url.into()))
    }
}

/// Permissions of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketMode(pub(super) u32);

impl Word for SocketMode {
    const EXAMPLE: &'static str = "\"0660\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            let help = "write \"0660\" for owner and group, \"0600\" for the owner, \"0666\" for everybody";
            Complaint::new(Code::BadValue, "is not a file mode in octal").help(help)
        })
    }
}

/// A trusted proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Whoever connects to a Unix socket.
    Unix,
    /// Every address in it.
    Of(IpNet),
}

impl Word for Network {
    const EXAMPLE: &'static str = "\"10.0.0.0/8\"";
    const WANTED: &'static str = "a network";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let network = network.ok_or_else(|| {
            let help = "write an address or a network, like \"10.0.0.0/8\" or \"::1\", or \"unix\" for Unix sockets";
            Complaint::new(Code::BadValue, "is not a network").help(help)
        })?;
        if network.addr() != network.network() {
            let help = format!("write \"{}\", or \"{}\" for the one address", network.trunc(), network.addr());
            return Err(Complaint::new(Code::BadValue, "has bits beyond its prefix").help(help));
        }
        Ok(Self::Of(network))
    }
}

impl Word for PathPattern {
    const EXAMPLE: &'static str = "\"/approvals/*\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Self::parse(text).map_err(|why| Complaint::new(Code::BadValue, "is not a path pattern").help(why))
    }
}

impl Word for EmbedKey {
    const EXAMPLE: &'static str = "\"pk_live_0123456789abcdef\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        // What has dots may be a pasted token.
        let complaint =
            |why| Complaint::new(Code::BadValue, "is not an embed key").help(format!("{why}; make one with doorward embed-key new"));
        Self::parse(text).map_err(|why| if text.contains('.') { complaint(why).hidden() } else { complaint(why) })
    }
}

impl Word for OriginRule {
    const EXAMPLE: &'static str = "\"https://app.example.com\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        Self::parse(text).map_err(|why| {
            let why = if why.starts_with("is ") || why.starts_with("has ") { format!("it {why}") } else { why };
            Complaint::new(Code::BadValue, "is not an origin that can be allowed").help(why)
        })
    }
}

impl Word for http::Method {
    const EXAMPLE: &'static str = "\"POST\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') && !matches!(text, "TRACE" | "CONNECT") {
            return text.parse().map_err(|_| Complaint::new(Code::BadValue, "is not a method"));
        }
        let help = nearest(text, known)
            .map_or_else(|| format!("write {}", one_of(known)), |near| format!("write \"{near}\": methods are upper case (RFC 9110)"));
        Err(Complaint::new(Code::BadValue, "is not a method that is forwarded").help(help))
    }
}

/// Implements [`Word`] and [`Shown`] for a type whose values have names.
macro_rules! choices {
    ($($of:ty, $example:literal: $($word:literal => $value:expr),+;)*) => {$(
        impl Word for $of {
            const EXAMPLE: &'static str = $example;
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn parse(text: &str) -> Result<Self, Complaint> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(unknown_word(text, <Self as Word>::WORDS)),
                }
            }
        }

        impl Shown for $of {
            fn shown(&self) -> String {
                let known = [$(($word, $value)),+];
                let word = known.into_iter().find(|(_, value)| value == self).map_or("", |(word, _)| word);
                format!("\"{word}\"")
            }
        }
    )*};
}

/// Complains about a word that is not one of the known ones.
pub(super) fn unknown_word(text: &str, known: &[&str]) -> Complaint {
    let help = match nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write {}", one_of(known.iter().copied())),
    };
    Complaint::new(Code::UnknownValue, format!("does not take \"{text}\"")).help(help)
}

/// `[audit] subject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubjectWord {
    Plain,
    Hash,
    Omitted,
}

/// `upstream.balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BalanceWord {
    RoundRobin,
    LeastConnections,
    ConsistentHash,
}

/// `tenant.body_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyIds {
    Checked,
    Unchecked,
}

/// `claims.expiry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpiryRequired(pub(super) bool);

/// A JWT algorithm of an identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenAlgorithm(pub(super) jsonwebtoken::Algorithm);

choices! {
    Mode, "\"enforce\"": "off" => Self::Off, "monitor" => Self::Monitor, "enforce" => Self::Enforce;
    Per, "\"client\"": "embed_key" => Self::EmbedKey, "client" => Self::Client, "subject" => Self::Subject;
    Audience, "\"anyone\"": "anyone" => Self::Anyone, "users" => Self::Users;
    MissingOrigin, "\"verified\"": "verified" => Self::Verified, "deny" => Self::Deny, "allow" => Self::Allow;
    UnsignedId, "\"deny\"": "deny" => Self::Deny, "claimed" => Self::Claimed;
    OnStreamExpiry, "\"close\"": "finish" => Self::Finish, "close" => Self::Close;
    OnExpired, "\"deny\"": "deny" => Self::Deny, "anonymous" => Self::Anonymous;
    Level, "\"verified\"": "anonymous" => Self::Anonymous, "claimed" => Self::Claimed, "verified" => Self::Verified, "stepped_up" => Self::SteppedUp;
    Encoding, "\"text\"": "text" => Self::Text, "hex" => Self::Hex, "base64" => Self::Base64;
    FormatName, "\"jwt\"": "hmac" => Self::Hmac, "karta-v2" => Self::KartaV2, "jwt" => Self::Jwt;
    Scheme, "\"http-message-signatures\"": "http-message-signatures" => Self::HttpMessageSignatures, "jwt" => Self::Jwt;
    KeyAlgorithm, "\"HS256\"": "HS256" => Self::Hs256, "ES256" => Self::Es256, "EdDSA" => Self::EdDsa;
    SubjectWord, "\"plain\"": "plain" => Self::Plain, "hash" => Self::Hash, "none" => Self::Omitted;
    MinVersion, "\"1.2\"": "1.2" => Self::Tls12, "1.3" => Self::Tls13;
    ClientAuth, "\"required\"": "required" => Self::Required, "optional" => Self::Optional;
    BalanceWord, "\"round_robin\"": "round_robin" => Self::RoundRobin, "least_connections" => Self::LeastConnections, "consistent_hash" => Self::ConsistentHash;
    Convention, "\"x-forwarded\"": "x-forwarded" => Self::XForwarded, "forwarded" => Self::Forwarded;
    original::Convention, "\"nginx\"":
        "nginx" => Self::Nginx, "traefik" => Self::Traefik, "caddy" => Self::Caddy, "envoy" => Self::Envoy;
    BodyIds, "\"unchecked\"": "checked" => Self::Checked, "unchecked" => Self::Unchecked;
    ExpiryRequired, "\"required\"": "required" => Self(true), "optional" => Self(false);
    TokenAlgorithm, "\"HS256\"":
        "HS256" => Self(jsonwebtoken::Algorithm::HS256), "HS384" => Self(jsonwebtoken::Algorithm::HS384),
        "HS512" => Self(jsonwebtoken::Algorithm::HS512), "RS256" => Self(jsonwebtoken::Algorithm::RS256),
        "ES256" => Self(jsonwebtoken::Algorithm::ES256), "EdDSA" => Self(jsonwebtoken::Algorithm::EdDSA);
}
