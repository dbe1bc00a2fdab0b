//! The page's side: the script that pages load from the gateway, compiled in. Decides nothing; served by the server where
//! sessions are on, since without them it has nothing to do.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha384};

/// One file of the script.
#[derive(Debug)]
pub struct Script {
    /// Where it is served.
    pub path: &'static str,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The file.
    pub text: &'static str,
    /// Subresource Integrity (W3C SRI §3.3): what a page's `integrity` attribute may say.
    pub integrity: String,
    /// The same, as a strong entity tag (RFC 9110 §8.8.3).
    pub etag: String,
}

impl Script {
    fn new(path: &'static str, content_type: &'static str, text: &'static str) -> Self {
        let integrity = format!("sha384-{}", STANDARD.encode(Sha384::digest(text)));
        Self { path, content_type, text, etag: format!("\"{integrity}\""), integrity }
    }
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

static SCRIPTS: LazyLock<[Script; 3]> = LazyLock::new(|| {
    [
        Script::new("/doorward.js", JAVASCRIPT, include_str!("doorward.min.js")),
        Script::new("/doorward.mjs", JAVASCRIPT, include_str!("doorward.min.mjs")),
        Script::new("/doorward.d.ts", "text/plain; charset=utf-8", include_str!("doorward.d.ts")),
    ]
});

/// Every file.
pub fn scripts() -> &'static [Script] {
    &*SCRIPTS
}

/// The file that is served at a path.
pub fn at(path: &str) -> Option<&'static Script> {
    SCRIPTS.iter().find(|script| script.path == path)
}
