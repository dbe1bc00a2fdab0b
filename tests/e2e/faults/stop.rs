//! SIGSTOP and SIGCONT: who asked meanwhile is answered afterwards, by the time that it is then.

use std::time::{Duration, Instant};

use super::Row;
use super::load::{Load, SAID, echo};
use super::site::{Site, freeze};
use crate::gateway::{KEY, ORIGIN, in_seconds, jwt, until};
use crate::http::{self, Connection};

/// Stops and continues the process under load; each time with a token that ends while it stands still.
pub fn run(times: usize) -> Row {
    let upstream = echo();
    let site = Site::new(upstream.address(), "", "claims.leeway = \"0s\"");
    let running = site.start(&[]);
    let load = Load::start(site.address);
    let (mut wrong, mut requests, mut recovery) = (0, 0, Duration::ZERO);
    for _ in 0..times {
        load.more(50);
        freeze(running.pid());
        let end = in_seconds(2);
        let token = jwt(&serde_json::json!({ "user_id": "late", "exp": end }));
        let bearer = format!("Bearer {KEY}");
        let headers = [("Authorization", bearer.as_str()), ("Origin", ORIGIN), ("X-User-Token", &token)];
        let mut waiting = Connection::open(site.address); // the system accepts it
        waiting.send(&http::request("GET", "/late", &headers, b"")).expect("send");
        until("the token's end", || (in_seconds(0) > end).then_some(()));
        let continued = Instant::now();
        running.signal("CONT");
        let answer = waiting.answer("GET").expect("an answer");
        recovery = recovery.max(continued.elapsed());
        requests += 1;
        if answer.reason() != "token_expired" {
            eprintln!("a token that ended meanwhile: {answer:?}");
            wrong += 1;
        }
        upstream.forget();
    }
    load.more(50);
    let (others, others_wrong, lost, slowest) = load.finish();
    let note = format!("{times} times for 2 s, each with a token that ended meanwhile; slowest answer {slowest:.2?}");
    let (requests, wrong) = (requests + others, wrong + others_wrong);
    Row { fault: "SIGSTOP, SIGCONT", load: SAID.to_owned(), requests, wrong, lost, recovery: Some(recovery), note }
}

#[test]
fn who_asked_meanwhile_is_answered_by_the_time_that_it_is_then() {
    run(1).clean();
}
