//! The long runs of the faults, one after the other, and a table of what came of them. `make soak` calls it with the release
//! build; `cargo test` leaves it out. Ends with 1 where anybody who did nothing wrong got a wrong answer, or none, or where a
//! bound was broken. With a word behind `--`, only the parts that have it in their name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic)] // in a test a panic is the answer
#![allow(dead_code, unused_imports)] // the end-to-end tests' own

#[path = "../e2e/faults/mod.rs"]
mod faults;
#[path = "../e2e/gateway.rs"]
mod gateway;
#[path = "../e2e/http.rs"]
mod http;
#[path = "../e2e/http2.rs"]
mod http2;
#[path = "../e2e/pki.rs"]
mod pki;
#[path = "../e2e/tls.rs"]
mod tls;
#[path = "../e2e/upstream.rs"]
mod upstream;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use faults::{self as process, Row, floods, mixed, resources, slow, table};

/// A part of it: what it is called, about how many seconds it takes, how many requests it may lose, and how it is run.
type Part = (&'static str, u64, u64, fn() -> Vec<Row>);

const MIXED: &str = "mixed traffic";

/// In this order.
const PARTS: [Part; 12] = [
    ("failing backends", 40, 0, || faults::upstream::run(10)),
    ("256 file descriptors", 15, 0, || vec![resources::few_descriptors(10)]),
    ("64 MiB of memory", 60, 0, || vec![resources::little_memory(Duration::from_secs(60))]),
    ("logs that cannot be written", 15, 0, || resources::no_log(2000)),
    ("slow clients", 35, 0, || slow::run(30, 1000)),
    ("HTTP/2 floods", 45, 0, || floods::run(Duration::from_secs(5))),
    ("20 upgrades", 60, 0, || vec![process::upgrade::run(20)]),
    ("50 SIGTERM", 120, 0, || vec![process::terminate::run(50)]),
    // Who was under way at a kill: at most two requests of each of six callers.
    ("50 kill -9", 60, 50 * 6 * 2, || vec![serves_within_a_second(process::kill::run(50))]),
    ("SIGSTOP and SIGCONT", 20, 0, || vec![process::stop::run(5)]),
    ("the clock", 20, 0, || vec![process::clock::run()]),
    (MIXED, 0, 0, || vec![mixed::run(minutes(), progress)]),
];

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let parts: Vec<_> = PARTS.into_iter().filter(|(name, ..)| name.contains(&word)).collect();
    let whole: u64 = parts.iter().map(|(name, seconds, ..)| if *name == MIXED { minutes().as_secs() } else { *seconds }).sum();
    println!("This takes about {} minutes; SOAK_MINUTES sets how long mixed traffic does.", whole.div_ceil(60));
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for (name, _, losable, run) in parts {
        let started = Instant::now();
        println!("==> {name}");
        match catch_unwind(run) {
            Ok(part) => {
                let failed = part.iter().filter(|row| row.requests == 0 || row.wrong > 0 || row.lost > losable);
                broken.extend(failed.map(|row| row.fault.to_owned()));
                rows.extend(part);
            }
            Err(_) => broken.push(format!("{name}: a bound was broken, see above")),
        }
        println!("==> {name}: {} s", started.elapsed().as_secs());
    }
    println!("\n{}", table(&rows));
    if broken.is_empty() {
        println!("{} faults: no wrong decision, nothing lost that was promised", rows.len());
        return ExitCode::SUCCESS;
    }
    println!("BROKEN: {}", broken.join("; "));
    ExitCode::FAILURE
}

/// What a killed process owes.
fn serves_within_a_second(row: Row) -> Row {
    assert!(row.recovery.is_some_and(|took| took <= Duration::from_secs(1)), "{row:?}");
    row
}

/// How long mixed traffic takes: `SOAK_MINUTES`, 10 by default.
fn minutes() -> Duration {
    let minutes = std::env::var_os("SOAK_MINUTES").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(10.0);
    Duration::from_secs_f64(60.0 * minutes)
}

/// A line every half minute.
fn progress(at: Duration, state: &str) {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let half_minutes = at.as_secs() / 30;
    if SAID.fetch_max(half_minutes, Ordering::Relaxed) < half_minutes {
        println!("    {:>4} s: {state}", at.as_secs());
    }
}
