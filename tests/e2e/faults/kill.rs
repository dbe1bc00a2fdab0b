//! `kill -9` under load. Who was being answered at that moment is cut off, and only they are; the next process finds the sockets that
//! were left behind and serves at once.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Row;
use super::load::{Load, SAID, echo};
use super::site::Site;
use crate::gateway::{KEY, ORIGIN, until};
use crate::http;

/// Kills and starts under load. Lost are the requests that were under way at a kill: at most two of each caller, one on its
/// connection and one on the connection that the system still took for a process that was being taken apart.
pub fn run(times: usize) -> Row {
    let upstream = echo();
    let site = Site::everywhere(upstream.address());
    let mut running = site.start(&[]);
    let load = Load::start(site.address);
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        load.more(50);
        running.signal("KILL");
        assert_eq!(running.wait(), -1);
        let started = Instant::now();
        running = site.start(&[]);
        let key = format!("Bearer {KEY}");
        let probe = http::request("GET", "/", &[("Authorization", &key), ("Origin", ORIGIN), ("Connection", "close")], b"");
        until("an answer", || {
            TcpStream::connect(site.address).ok()?;
            (http::send(site.address, &probe).status == 200).then_some(())
        });
        longest = longest.max(started.elapsed());
        upstream.forget();
    }
    load.more(50);
    let (requests, wrong, lost, _) = load.finish();
    let note = format!("{times} times, with a Unix listener and an upgrade socket left behind; lost: under way when it was killed");
    Row { fault: "kill -9", load: SAID.to_owned(), requests, wrong, lost, recovery: Some(longest), note }
}

#[test]
fn the_next_process_serves_at_once() {
    let row = run(5);
    assert_eq!(row.wrong, 0, "{row:?}");
    assert!(row.lost <= 5 * 6 * 2, "at most two of each caller for each kill: {row:?}");
    // Alone it takes a tenth of a second; other tests run beside this one.
    assert!(row.recovery.is_some_and(|took| took < Duration::from_secs(10)), "{row:?}");
}
