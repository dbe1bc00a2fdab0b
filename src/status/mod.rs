//! The status page: what an operator looks at before changing something. One HTML page without script or anything from
//! elsewhere, rendered here from counters and rules; it works in any browser, and so does keeping it to the operator's own
//! browser ([`guard`]). Shows nothing but what metrics, audit records and `doorward check` show: no key, no token. Takes
//! nothing: no query, no form. Served by the admin listener.

mod chart;
mod gather;
pub mod guard;
mod view;
pub mod words;

use std::sync::LazyLock;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

pub use gather::{Sources, Upstream, upstreams};
pub use view::View;

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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::UnixTime;
    use crate::config;
    use crate::observe::history::History;
    use crate::observe::metrics::{LastReload, Metrics, Reload};
    use crate::observe::recent::{Event, Kind};
    use crate::reason::Reason;
    use crate::upstream::address::Standing;

    const HOSTILE: &str =
        "</td></pre></title><script>alert(1)</script><img src=x onerror='x' a=\"b\">&lt;\u{202e}\u{2066}\u{0}\u{1b}[2J\r\n{{7*7}}";

    /// Wherever a text comes from, and whatever it is: it is shown, and it does nothing.
    #[test]
    fn every_text_is_inert() {
        crate::install_crypto();
        let loaded = config::load(Path::new("tests/config/good.toml"), 1, &|_, _| Arc::default()).unwrap();
        let (metrics, mut history) = (Metrics::new().unwrap(), History::default());
        let at = UnixTime::from_secs(1_800_000_000);
        metrics.tried(LastReload { result: Reload::Refused, at, generation: 1, problem: Some(HOSTILE.to_owned()) });
        for kind in [Kind::Stopped, Kind::WouldDeny] {
            let event = Event {
                at,
                kind,
                reason: Reason::TokenMissing,
                detail: HOSTILE,
                tenant: Some(HOSTILE),
                method: HOSTILE,
                path: HOSTILE,
                request_id: HOSTILE,
            };
            metrics.recent.note(event);
        }
        history.look(&metrics, &loaded.snapshot.tenants, Duration::from_secs(90));
        let upstream = Upstream {
            name: HOSTILE.to_owned(),
            backend: HOSTILE.to_owned(),
            address: Some(HOSTILE.to_owned()),
            in_flight: 0,
            standing: Standing::Ejected,
            trouble: Some((at, HOSTILE.to_owned())),
        };
        let view = View::of(&Sources {
            snapshot: &loaded.snapshot,
            revocations: 0,
            metrics: &metrics,
            history: &history,
            upstreams: &[upstream],
            ready: Ok(()),
            running: Duration::from_secs(90),
            now: at,
        });
        let html = page(&view, false).unwrap();
        for never in ["<script", "<img", "</td></pre>", "\u{202e}", "\u{2066}", "\u{0}", "\u{1b}", "\r", "'x'", "\"b\""] {
            assert!(!html.contains(never), "{never:?}");
        }
        let shown = "&#60;script&#62;alert(1)&#60;/script&#62;&#60;img src=x onerror=&#39;x&#39; a=&#34;b&#34;&#62;&#38;lt;\\u{202e}\\u{2066}\\0\\u{1b}[2J";
        assert!(html.contains(shown), "as it was sent, but for what hides or reorders");
        // Tenant, detail, method, path and request id of two denials that are not alike; the upstream's; the problem.
        assert_eq!(html.matches("&#60;script&#62;alert(1)").count(), 2 * 5 + 3 + 1);
        let open = |tag: &str| html.matches(&format!("<{tag}")).count() - html.matches(&format!("</{tag}>")).count();
        assert_eq!(["table", "tr", "section", "bdi", "main", "pre", "svg"].map(open), [0, 0, 0, 0, 0, 0, 0]);
    }
}
