//! The wall clock is set an hour ahead and an hour back (libfaketime). Tokens are judged by the new time; limits and deadlines
//! run on a clock that nobody can set.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Row;
use super::load::echo;
use super::site::{Process, Site};
use crate::gateway::{KEY, ORIGIN, in_seconds, jwt, until};
use crate::http;

const HOUR: i64 = 3600;

/// A caller whose clock is right.
struct Caller {
    site: Site,
    requests: u64,
    wrong: u64,
}

impl Caller {
    /// Asks with a token that is good for ten minutes from this time on, and expects this.
    fn expects(&mut self, from: i64, status: u16, reason: &str) {
        let times = serde_json::json!({ "user_id": "ann", "nbf": in_seconds(from), "exp": in_seconds(from + 600) });
        let (key, token) = (format!("Bearer {KEY}"), jwt(&times));
        let headers = [("Authorization", key.as_str()), ("Origin", ORIGIN), ("X-User-Token", &token), ("Connection", "close")];
        let answer = http::send(self.site.address, http::request("GET", "/a", &headers, b""));
        self.requests += 1;
        if (answer.status, answer.reason()) != (status, reason) {
            eprintln!("expected {status} {reason}: {answer:?}");
            self.wrong += 1;
        }
    }

    fn sets(&self, offset: &str) {
        self.site.write("clock", &format!("{offset}\n"));
    }
}

/// Sets the clock of a running process.
pub fn run() -> Row {
    let upstream = echo();
    let limit = "[[tenant.limit]]\nper = \"subject\"\nrequests = 5\nperiod = \"24h\"";
    let site = Site::new(upstream.address(), "", limit);
    let mut caller = Caller { site, requests: 0, wrong: 0 };
    caller.sets("+0");
    let mut command = caller.site.command(&[]);
    command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", caller.site.path("clock"));
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    let mut running = Process::of(command);
    running.serving();
    caller.expects(0, 200, "");
    caller.expects(HOUR, 403, "token_not_yet_valid");

    caller.sets("+3600");
    let set = Instant::now();
    caller.expects(0, 403, "token_expired");
    caller.expects(HOUR, 200, "");
    let steps = |caller: &Caller| {
        let answer = http::get(caller.site.admin, "/metrics");
        answer.text().lines().find_map(|line| line.strip_prefix("doorward_clock_steps_total ")?.parse::<f64>().ok())
    };
    until("the step to be noticed", || steps(&caller).filter(|steps| *steps == 1.0));
    let noticed = set.elapsed();

    caller.sets("-3600");
    caller.expects(0, 403, "token_not_yet_valid");
    caller.expects(-HOUR, 200, "");
    caller.sets("+0");
    caller.expects(0, 200, "");
    caller.expects(0, 200, "");
    for (offset, from) in [("+0", 0), ("+3600", HOUR), ("-3600", -HOUR)] {
        caller.sets(offset);
        caller.expects(from, 429, "rate_limited"); // five in a day, whatever the clock says
    }
    caller.sets("+3600");
    running.signal("TERM");
    let told = Instant::now();
    assert_eq!(running.wait(), 0);
    assert!(told.elapsed() < Duration::from_secs(15), "the drain went by the wall clock");
    let Caller { requests, wrong, .. } = caller;
    let note = format!("ahead, back and right again; the step was logged and counted after {:.1} s", noticed.as_secs_f64());
    Row { fault: "wall clock ±1 h", load: "1 caller".to_owned(), requests, wrong, lost: 0, recovery: Some(Duration::ZERO), note }
}

fn library() -> PathBuf {
    let below = |directory: &str| std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let directories = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].into_iter().flat_map(|d| below(d).chain([PathBuf::from(d)]));
    let library = directories.map(|d| d.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    library.expect("libfaketimeMT.so.1 (Debian: faketime); make test installs it")
}

#[test]
fn tokens_are_judged_by_the_new_time_and_limits_are_not() {
    run().clean();
}
