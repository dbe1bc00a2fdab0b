//! `Signature-Input` and `Signature` in the one way in which the gateway writes them; another label, or a second one, is
//! none of its.

use base64::prelude::{BASE64_STANDARD, Engine as _};

/// What is signed, and with which parameters.
pub struct Input<'t> {
    /// The list of components and all parameters: the last line of what is signed.
    pub params: &'t str,
    pub names: Vec<&'t str>,
    pub created: u64,
    pub expires: u64,
    pub key_id: &'t str,
}

impl<'t> Input<'t> {
    pub fn parse(value: &'t [u8]) -> Option<Self> {
        let params = std::str::from_utf8(value).ok()?.strip_prefix("doorward=")?;
        let (names, rest) = params.strip_prefix("(\"")?.split_once("\");created=")?;
        let (created, rest) = rest.split_once(";expires=")?;
        let (expires, rest) = rest.split_once(";nonce=\"")?;
        let (nonce, rest) = rest.split_once("\";keyid=\"")?;
        let key_id = rest.strip_suffix("\";alg=\"hmac-sha256\";tag=\"doorward\"")?;
        let names: Vec<_> = names.split("\" \"").collect();
        let component = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-@".contains(&c);
        let word = |more: &'static [u8]| move |c: u8| c.is_ascii_alphanumeric() || more.contains(&c);
        let plain = names.iter().all(|name| of(name, component)) && of(nonce, word(b"-_")) && of(key_id, word(b"-_."));
        let (created, expires) = (seconds(created)?, seconds(expires)?);
        plain.then_some(Self { params, names, created, expires, key_id })
    }
}

/// The 32 bytes of an HMAC-SHA256; others of the same length where the last digit has spare bits, which match nothing.
pub fn mac(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?.strip_prefix("doorward=:")?.strip_suffix(':')?;
    let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43)?;
    of(digits, |c| c.is_ascii_alphanumeric() || b"+/".contains(&c)).then(|| BASE64_STANDARD.decode(text).unwrap_or_default())
}

fn seconds(text: &str) -> Option<u64> {
    if text.len() <= 12 && of(text, |c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Whether a text is not empty and has only such bytes.
fn of(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}
