//! Key material: where it comes from, how it is decoded, and a fingerprint to talk about it. The bytes never reach a log:
//! `Debug` shows the fingerprint. The only place that reads the environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Shorter than this is refused (`threats` 15).
pub const MIN_BYTES: usize = 16;
/// Shorter than this is warned about: HMAC-SHA256's own output size (RFC 2104 §3).
pub const GOOD_BYTES: usize = 32;

/// How the text that a source yields stands for bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The text's own bytes, as vendors use their secrets.
    #[default]
    Text,
    /// Two hex digits a byte.
    Hex,
    /// RFC 4648 base64 or base64url, padded or not.
    Base64,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An environment variable of the process, read at start and on reload.
    Env(String),
    /// A file. A reload waits until it holds still and looks again afterwards: see [`crate::reload`].
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// Decoded key material. Cheap to clone; shown as its fingerprint.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyBytes(Arc<[u8]>);

impl KeyBytes {
    /// Takes decoded bytes as they are.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The material. Callers hand it to a MAC or signature implementation and nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A short name for this material that reveals nothing of it.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::new().chain_update(b"doorward key fingerprint v1\0").chain_update(&self.0).finalize();
        let mut short = [0; 8];
        short.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        Fingerprint(short)
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({})", self.fingerprint())
    }
}

/// First 8 bytes of a domain-separated SHA-256 of key material, shown as 16 hex digits. Names a secret in logs, in
/// `/status` and in the revocations file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Fingerprint([u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 16];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ())?;
        Ok(Self(bytes))
    }
}

/// Why a secret cannot be used. The text names the fix and never the material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The variable is unset or not Unicode, or the file cannot be read.
    Unreadable(String),
    /// It does not decode in its declared encoding.
    Undecodable(&'static str),
    /// Fewer than [`MIN_BYTES`] bytes.
    TooShort(usize),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::Undecodable(why) => f.write_str(why),
            Self::TooShort(0) => f.write_str("is empty"),
            Self::TooShort(n) => write!(f, "has {n} bytes; at least {MIN_BYTES} are needed, {GOOD_BYTES} are good"),
        }
    }
}

/// What a source yielded, with what an operator should hear about it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The decoded material.
    pub key: KeyBytes,
    /// Fewer than [`GOOD_BYTES`] bytes.
    pub short: bool,
    /// The text ended in a newline. It is part of a `text` secret's bytes only if the file has nothing to cut: see [`resolve`].
    pub trailing_newline: bool,
}

/// Reads and decodes a secret. One newline at the end of a file is not part of the secret: every editor and `echo` adds
/// one; it is reported so that an operator whose secret really ends in one can encode it.
///
/// # Errors
/// [`Unusable`] when it cannot be read or decoded, or is too short to be a key.
pub fn resolve(source: &Source, encoding: Encoding) -> Result<Resolved, Unusable> {
    let raw = read(source)?;
    let cut = raw.strip_suffix(b"\n").map(|r| r.strip_suffix(b"\r").unwrap_or(r));
    let text = cut.unwrap_or(&raw);
    let bytes = decode(text, encoding)?;
    if bytes.len() < MIN_BYTES || bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Unusable::TooShort(if bytes.iter().all(u8::is_ascii_whitespace) { 0 } else { bytes.len() }));
    }
    Ok(Resolved { short: bytes.len() < GOOD_BYTES, trailing_newline: cut.is_some(), key: KeyBytes::new(bytes) })
}

/// Decodes a secret's text.
///
/// # Errors
/// [`Unusable::Undecodable`] when the text is not of that encoding.
pub fn decode(text: &[u8], encoding: Encoding) -> Result<Vec<u8>, Unusable> {
    match encoding {
        Encoding::Text => Ok(text.to_vec()),
        Encoding::Hex => std::str::from_utf8(text)
            .ok()
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or(Unusable::Undecodable("is not hex: an even number of the digits 0-9 a-f was expected")),
        Encoding::Base64 => [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
            .iter()
            .find_map(|engine| engine.decode(text).ok())
            .ok_or(Unusable::Undecodable("is not base64 (RFC 4648)")),
    }
}

/// The text that a source yields, as it stands: nothing is cut or decoded.
///
/// # Errors
/// [`Unusable::Unreadable`].
pub fn read(source: &Source) -> Result<Vec<u8>, Unusable> {
    match source {
        #[allow(clippy::disallowed_methods)] // the one place that may ask
        Source::Env(name) => std::env::var(name).map(String::into_bytes).map_err(|e| Unusable::Unreadable(e.to_string())),
        Source::File(path) => std::fs::read(path).map_err(|e| Unusable::Unreadable(e.to_string())),
    }
}
