//! Floods of HTTP/2 frames that each cost the sender little: rapid reset, CONTINUATION, resets that the server is made to send,
//! empty DATA, SETTINGS, PING (`threats` 28). Somebody else is served meanwhile, and what a flood may cost ends with it.

use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Bystander, Met, Notes, Row, echo, processor, resident, table};
use crate::gateway::{Gateway, KEY, ORIGIN, until};
use crate::http2::{END_HEADERS, END_STREAM, PREFACE, fields, frame};
use crate::pki::{Authority, connect};
use crate::tls::{ONE, start, with_tls};
use crate::upstream::Upstream;

/// What is sent in each round.
type Flood = fn(u32, &[u8]) -> Vec<u8>;

const FLOODS: [(&str, Flood); 8] = [
    ("HTTP/2 rapid reset", |round, block| {
        let stream = round * 2 + 1;
        [frame(1, END_STREAM | END_HEADERS, stream, block), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    }),
    ("HTTP/2 CONTINUATION flood", |round, block| {
        if round == 0 { frame(1, END_STREAM, 1, block) } else { frame(9, 0, 1, &fields(&[("x-filler", "0123456789abcdef")])) }
    }),
    ("HTTP/2 empty CONTINUATION flood", |round, block| if round == 0 { frame(1, END_STREAM, 1, block) } else { frame(9, 0, 1, &[]) }),
    // A window that overflows: the server must reset, over and over (CVE-2025-8671).
    ("HTTP/2 MadeYouReset", |round, block| {
        let stream = round * 2 + 1;
        [frame(1, END_STREAM | END_HEADERS, stream, block), frame(8, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
    }),
    ("HTTP/2 empty DATA flood", |round, block| if round == 0 { frame(1, END_HEADERS, 1, block) } else { frame(0, 0, 1, &[]) }),
    ("HTTP/2 SETTINGS flood", |_, _| frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
    ("HTTP/2 PING flood", |_, _| frame(6, 0, 0, &[0; 8])),
    ("HTTP/2 PRIORITY flood", |round, _| frame(2, 0, round * 2 + 1, &[0, 0, 0, 0, 16])),
];

/// One flood for this long, on connection after connection, from two of them at once; a row with what a bystander met.
async fn flood(
    (gateway, upstream): (&Gateway, &Upstream),
    authority: &Authority,
    (fault, flood): (&'static str, Flood),
    length: Duration,
) -> Row {
    let notes = Notes::default();
    let bearer = format!("Bearer {KEY}");
    let block = fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/flood"),
        (":authority", "a.example"),
        ("authorization", &bearer),
        ("origin", ORIGIN),
    ]);
    let config = authority.client_config(&["h2"]);
    let bystanders: Vec<_> = (0..2).map(|n| Bystander::start(gateway.address, n, notes.clone())).collect();
    let (used, started) = (processor(gateway.pid()), Instant::now());
    let one = || async {
        let (mut connections, mut sent, mut buffer) = (0_u64, 0_u64, vec![0; 16 * 1024]);
        while started.elapsed() < length {
            let Ok(stream) = connect(gateway.last_place(), "a.example", &config).await else { continue };
            connections += 1;
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = write.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await;
            let writing = async {
                for round in 0..u32::MAX / 4 {
                    let bytes = flood(round, &block);
                    if started.elapsed() >= length || write.write_all(&bytes).await.is_err() {
                        break;
                    }
                    sent += 1;
                }
            };
            let reading = async { while let Ok(1..) = read.read(&mut buffer).await {} };
            tokio::select! {
                () = writing => {}
                () = reading => {}
            }
        }
        (connections, sent)
    };
    let (first, second) = tokio::join!(one(), one());
    let (over, used) = (Instant::now(), processor(gateway.pid()).saturating_sub(used));
    let share = used.as_secs_f64() / started.elapsed().as_secs_f64();
    until("the floods to be over", || (gateway.metric("doorward_connections") <= 2.0).then_some(()));
    let recovery = Some(over.elapsed());
    let connections = first.0 + second.0;
    let reached = upstream.seen().iter().filter(|seen| seen.target == "/flood").count() as u64;
    assert!(reached <= connections * 130, "{fault}: {reached} requests of {connections} connections reached the backend");
    let met = bystanders.into_iter().map(Bystander::end).fold(Met::default(), Met::and);
    let wrong = notes.take();
    let note = format!(
        "{} rounds on {connections} connections, {reached} requests reached the backend; slowest answer {:.2} s; {:.0} % of a core; {} MiB{}",
        first.1 + second.1,
        met.slowest.as_secs_f64(),
        share * 100.0,
        resident(gateway.pid()) >> 20,
        wrong.join("; ")
    );
    let load = format!("2 connections at a time for {} s, 2 callers", length.as_secs_f64());
    Row { fault, load, requests: met.requests, wrong: wrong.len() as u64, lost: met.lost, recovery, note }
}

/// All of them, one after the other. Fails where a flood leaves work behind, or memory.
pub fn run(length: Duration) -> Vec<Row> {
    let upstream = Upstream::start(|seen, stream| std::io::Write::write_all(stream, &echo(seen)));
    let authority = Authority::new("test");
    let pair = authority.server(&["a.example"]);
    let gateway = start(&with_tls(upstream.address(), ONE), &[("a", &pair)], &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let rows: Vec<_> = FLOODS
        .iter()
        .map(|one| {
            let row = runtime.block_on(flood((&gateway, &upstream), &authority, *one, length));
            upstream.forget();
            row
        })
        .collect();
    until("everything to be over", || (gateway.metric("doorward_requests_in_flight") == 0.0).then_some(()));
    let (used, started) = (processor(gateway.pid()), Instant::now());
    thread::park_timeout(Duration::from_secs(1));
    let (used, took) = (processor(gateway.pid()).saturating_sub(used), started.elapsed());
    assert!(used < took / 4, "{used:?} of {took:?} with nothing to do");
    assert!(resident(gateway.pid()) < 200 << 20, "{} MiB are left", resident(gateway.pid()) >> 20);
    rows
}

#[test]
fn floods_of_frames_hold_up_nobody_else() {
    let rows = run(Duration::from_millis(400));
    eprintln!("{}", table(&rows));
    rows.iter().for_each(Row::clean);
}
