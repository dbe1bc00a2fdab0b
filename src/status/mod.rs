//! The status page: what an operator looks at before changing something. One HTML page without script or anything from
//! elsewhere, rendered here from counters and rules; it works in any browser, and so does keeping it to the operator's own
//! browser ([`guard`]). Shows nothing but what metrics, audit records and `doorward check` show: no key, no token. Takes
//! nothing: no query, no form. Served by the admin listener.

mod chart;
pub mod guard;
mod view;
pub mod words;

use std::sync::LazyLock;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

pub use view::{Sources, Upstream, View};

const STYLE: &str = include_str!("page/page.css");
/// How often a page that refreshes itself does, in seconds.
const REFRESH: u32 = 15;

/// What a browser may do with the page: show it, with this style sheet.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
});

#[derive(Template)]
#[template(path = "index.html", config = "src/status/askama.toml")]
struct Page<'v> {
    style: &'static str,
    refresh: Option<u32>,
    view: &'v View,
}

/// The page, as one that refreshes itself where `live`.
///
/// # Errors
/// When the template cannot be rendered.
pub fn page(view: &View, live: bool) -> Result<String, askama::Error> {
    Page { style: STYLE, refresh: live.then_some(REFRESH), view }.render()
}
