//! SIGTERM under load: what was accepted is answered. Between two processes nobody listens, and connections are refused; that is
//! no loss, since no request was made.

use std::time::{Duration, Instant};

use super::Row;
use super::load::{Load, SAID, echo};
use super::site::Site;

/// Stops and starts under load.
pub fn run(times: usize) -> Row {
    let upstream = echo();
    let site = Site::new(upstream.address(), "", "");
    let mut running = site.start(&[]);
    let load = Load::start(site.address);
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        load.more(50);
        let told = Instant::now();
        running.signal("TERM");
        assert_eq!(running.wait(), 0, "{}", running.log());
        assert!(!running.log().contains("still in flight"), "{}", running.log());
        longest = longest.max(told.elapsed());
        running = site.start(&[]);
        upstream.forget();
    }
    load.more(50);
    let (requests, wrong, lost, slowest) = load.finish();
    let note = format!("{times} times; drained within {:.2} s; slowest answer {slowest:.2?}", longest.as_secs_f64());
    Row { fault: "SIGTERM", load: SAID.to_owned(), requests, wrong, lost, recovery: None, note }
}

#[test]
fn what_was_accepted_is_answered() {
    run(5).clean();
}
