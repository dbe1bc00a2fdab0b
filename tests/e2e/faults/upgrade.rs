//! One process follows another on the same sockets, again and again, and nobody notices.

use std::time::{Duration, Instant};

use super::Row;
use super::load::{Load, SAID, echo};
use super::site::Site;

/// Upgrades under load.
pub fn run(times: usize) -> Row {
    let upstream = echo();
    let site = Site::everywhere(upstream.address());
    let mut running = site.start(&[]);
    let load = Load::start(site.address);
    load.more(50);
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let started = Instant::now();
        let next = site.start(&["--upgrade"]);
        longest = longest.max(started.elapsed());
        assert_eq!(running.wait(), 0, "{}", running.log());
        assert!(!running.log().contains("still in flight"), "{}", running.log());
        running = next;
        load.more(50);
        upstream.forget();
    }
    let (requests, wrong, lost, slowest) = load.finish();
    let note = format!("{times} upgrades, each serving within {:.2} s of its start; slowest answer {slowest:.2?}", longest.as_secs_f64());
    Row { fault: "upgrade by socket hand-over", load: SAID.to_owned(), requests, wrong, lost, recovery: Some(Duration::ZERO), note }
}

#[test]
fn nobody_notices_an_upgrade() {
    let row = run(3);
    row.clean();
}
