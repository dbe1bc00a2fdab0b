//! Backends that fail in every way that a byte stream knows, while others on the same pool of connections are served: a clean
//! error or a clean cut, nobody else's answer, and no connection used again that was left in doubt (`threats` 29).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Bystander, CALLER, Met, Notes, Outcome, Row, echo, is_own, request, token};
use crate::gateway::{Gateway, halo, until};
use crate::http::{self, Connection, PATIENCE};
use crate::http2::Client;
use crate::pki::{Authority, connect};
use crate::tls::{ONE, start, with_tls};
use crate::upstream::{Seen, Upstream};

/// How a backend fails.
#[derive(Clone, Copy)]
struct Fault {
    group: &'static str,
    name: &'static str,
    method: &'static str,
    answer: Answer,
    /// What the client may see, as [`Outcome::told`] puts it.
    seen: &'static [&'static str],
    /// Whether the connection may carry another request.
    again: bool,
}

#[derive(Clone, Copy)]
enum Answer {
    /// These bytes, then silence until the gateway hangs up.
    Bytes(&'static str),
    /// These bytes and the end.
    Then(&'static str, fn(&mut TcpStream) -> io::Result<()>),
    /// These bytes, and only then the rest of the request is read.
    Early(&'static str),
    /// Whatever this does.
    Does(fn(&mut TcpStream) -> io::Result<()>),
}

fn hang_up() -> io::Result<()> {
    Err(io::Error::other("hang up"))
}

fn end(_: &mut TcpStream) -> io::Result<()> {
    hang_up()
}

/// Closes with a reset instead of an end.
#[expect(deprecated, reason = "a linger of zero never blocks")]
fn reset(stream: &mut TcpStream) -> io::Result<()> {
    tokio::net::TcpSocket::from_std_stream(stream.try_clone()?).set_linger(Some(Duration::ZERO))?;
    hang_up()
}

/// Stays on the line, silent, until the gateway hangs up.
fn stay(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut nothing = [0; 64 * 1024];
    while stream.read(&mut nothing)? > 0 {}
    hang_up()
}

fn half_close(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stay(stream)
}

fn go_on(_: &mut TcpStream) -> io::Result<()> {
    Ok(())
}

/// Says this over and over, until the gateway hangs up: a hundred megabytes at most.
fn flood(stream: &mut TcpStream, beginning: &str, more: &str) -> io::Result<()> {
    stream.write_all(beginning.as_bytes())?;
    let many = more.repeat(16 * 1024 / more.len());
    (0..6400).try_for_each(|_| stream.write_all(many.as_bytes()))?;
    stay(stream)
}

/// In pieces, `pause` apart.
fn trickle(stream: &mut TcpStream, pieces: &[&str], pause: Duration) -> io::Result<()> {
    for piece in pieces {
        stream.write_all(piece.as_bytes())?;
        thread::park_timeout(pause);
    }
    Ok(())
}

const PROTOCOL: &[&str] = &["502 upstream_protocol"];
const TIMEOUT: &[&str] = &["504 upstream_timeout"];
const CUT_OFF: &[&str] = &["200 cut off"];
const WHOLE: &[&str] = &["200"];
/// Whether the head was on its way already depends on what was read at once.
const EITHER: &[&str] = &["200 cut off", "502 upstream_protocol"];

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
const HALF_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";

const ENDS: &str = "reset, ended early or half-closed";
const SLOW: &str = "silent or slow";
const FLOODS: &str = "floods of 1xx, fields, trailers, extensions";
const LENGTHS: &str = "bad lengths and codings";
const HEADS: &str = "heads that have no reading";
const CHUNKS: &str = "broken chunks";
const UNASKED: &str = "bodies and switches that nobody asked for";
const EARLY: &str = "answers before the request was read";

/// Well within every timeout between two bytes.
const DRIP: Duration = Duration::from_millis(100);

/// All of them; their index is in the path that asks for them.
fn faults() -> Vec<Fault> {
    use Answer::{Bytes, Does, Early, Then};
    let fault = |group, name, answer, seen| Fault { group, name, method: "GET", answer, seen, again: false };
    let head = |name, answer| Fault { method: "HEAD", ..fault(UNASKED, name, answer, WHOLE) };
    let early = |name, answer, seen| Fault { method: "POST", ..fault(EARLY, name, answer, seen) };
    let mut all = vec![
        fault(ENDS, "reset before the head", Then("", reset), PROTOCOL),
        fault(ENDS, "reset within the head", Then("HTTP/1.1 200 OK\r\nX-A: ", reset), PROTOCOL),
        fault(ENDS, "end before the head", Then("", end), PROTOCOL),
        fault(ENDS, "end within the head", Then("HTTP/1.1 200 OK\r\nX-A: ", end), PROTOCOL),
        fault(ENDS, "reset within a body", Then(HALF, reset), EITHER),
        fault(ENDS, "end within a body", Then(HALF, end), CUT_OFF),
        fault(ENDS, "reset between chunks", Then(HALF_CHUNKED, reset), EITHER),
        fault(ENDS, "end between chunks", Then(HALF_CHUNKED, end), CUT_OFF),
        fault(ENDS, "end within a chunk", Then("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf", end), CUT_OFF),
        fault(ENDS, "half-closed after the answer", Then("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", half_close), WHOLE),
        fault(ENDS, "half-closed within the answer", Then(HALF, half_close), CUT_OFF),
        fault(SLOW, "silent", Bytes(""), TIMEOUT),
        fault(SLOW, "silent within the head", Bytes("HTTP/1.1 200 OK\r\nX-A: "), TIMEOUT),
        fault(
            SLOW,
            "a head that goes on, slowly",
            Does(|s| {
                trickle(s, &["HTTP/1.1 200 OK\r\n"], DRIP).and_then(|()| (0..200).try_for_each(|_| trickle(s, &["X-A: a\r\n"], DRIP)))
            }),
            TIMEOUT,
        ),
        fault(SLOW, "silent within the body", Bytes(HALF), CUT_OFF),
        fault(SLOW, "a length that is longer than the body", Bytes("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"), CUT_OFF),
        fault(
            SLOW,
            "a chunk of 2^63",
            Bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000002\r\nok\r\n0\r\n\r\n"),
            CUT_OFF,
        ),
        Fault {
            again: true,
            ..fault(
                SLOW,
                "slow, and within every timeout",
                Does(|s| trickle(s, &["HTTP/1.1 200", " OK\r\nContent-Le", "ngth: 4\r\n\r", "\no", "k", "ok"], Duration::from_millis(60))),
                WHOLE,
            )
        },
        fault(FLOODS, "1xx without end", Does(|s| flood(s, "", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")), PROTOCOL),
        fault(FLOODS, "100 without end", Does(|s| flood(s, "", "HTTP/1.1 100 Continue\r\n\r\n")), PROTOCOL),
        fault(FLOODS, "a field without end", Does(|s| flood(s, "HTTP/1.1 200 OK\r\nX-A: ", "a")), PROTOCOL),
        fault(FLOODS, "fields without end", Does(|s| flood(s, "HTTP/1.1 200 OK\r\n", "X-Filler: 0123456789abcdef\r\n")), PROTOCOL),
        fault(FLOODS, "a head of 300 kB", Does(large_head), PROTOCOL),
        fault(
            FLOODS,
            "trailers without end",
            Does(|s| flood(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", "X-Filler: 0123456789abcdef\r\n")),
            CUT_OFF,
        ),
        fault(
            FLOODS,
            "a chunk extension without end",
            Does(|s| flood(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", "a")),
            EITHER,
        ),
        fault(
            UNASKED,
            "more than its length says",
            Bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
            WHOLE,
        ),
        fault(UNASKED, "101", Bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), PROTOCOL),
        fault(UNASKED, "204 with a body", Bytes("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged"), PROTOCOL),
        fault(
            UNASKED,
            "204 with chunks",
            Bytes("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nforged\r\n0\r\n\r\n"),
            PROTOCOL,
        ),
        fault(UNASKED, "304 with a body", Bytes("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nforged"), &["304"]),
        head("a body after HEAD", Bytes("HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")),
        head("a body after HEAD, a little later", Does(late_body)),
        Fault { again: true, ..early("whole, and reads on", Early("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), WHOLE) },
        early(
            "whole, and closes",
            Then("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", end),
            &["200", "200 cut off", "502 upstream_protocol"],
        ),
        early("an end and no answer", Then("", end), PROTOCOL),
        early("a reset and no answer", Then("", reset), PROTOCOL),
    ];
    all.extend(HEADS_BYTES.iter().map(|(name, bytes)| fault(HEADS, name, Bytes(bytes), PROTOCOL)));
    all.extend(LENGTHS_BYTES.iter().map(|(name, bytes)| fault(LENGTHS, name, Bytes(bytes), PROTOCOL)));
    // RFC 9112 §6.3: chunks go before a length.
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    all.push(Fault { again: true, ..fault(LENGTHS, "a length beside chunks", Then(both, go_on), WHOLE) });
    all.extend(CHUNKS_BYTES.iter().map(|(name, bytes)| fault(CHUNKS, name, Bytes(bytes), EITHER)));
    all
}

const HEADS_BYTES: [(&str, &str); 14] = [
    ("garbage", "\x16\x03\x01\0\0 no HTTP at all\r\n\r\n"),
    ("a greeting", "SSH-2.0-OpenSSH_9.2\r\n"),
    ("HTTP/0.9", "<html>hello</html>\r\n\r\n"),
    ("HTTP/2 in HTTP/1's words", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status 99", "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"),
    ("status 1000", "HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n"),
    ("status -200", "HTTP/1.1 -200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("a carriage return in a value", "HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok"),
    ("a NUL in a value", "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok"),
    ("a space in a name", "HTTP/1.1 200 OK\r\nX A: a\r\nContent-Length: 2\r\n\r\nok"),
    ("a field without a colon", "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok"),
    ("a folded first field", "HTTP/1.1 200 OK\r\n X-A: a\r\nContent-Length: 2\r\n\r\nok"),
    ("a carriage return in the reason", "HTTP/1.1 200 OK\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok"),
    ("a folded status line", "HTTP/1.1\r\n 200 OK\r\nContent-Length: 2\r\n\r\nok"),
];

const LENGTHS_BYTES: [(&str, &str); 14] = [
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk"),
    ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokk"),
    ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
    ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
    ("a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok"),
    ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok"),
    ("a length of 2^64", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nok"),
    ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok"),
    ("two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("a coding after chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("a chunked that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nok"),
    ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("two lengths in HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk"),
];

const CHUNKS_BYTES: [(&str, &str); 7] = [
    ("a size in words", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ntwo\r\nok\r\n0\r\n\r\n"),
    ("a negative size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n"),
    ("a size of 2^64", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n"),
    ("more than the size says", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n"),
    ("a size with 0x", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n"),
    ("a size with an underscore", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0_2\r\nok\r\n0\r\n\r\n"),
    ("no end of a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok0\r\n\r\n"),
];

fn large_head(stream: &mut TcpStream) -> io::Result<()> {
    let field = format!("X-Filler: {}\r\n", "a".repeat(3000));
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", field.repeat(100)).as_bytes())?;
    stay(stream)
}

fn late_body(stream: &mut TcpStream) -> io::Result<()> {
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    trickle(stream, &["HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n", forged], Duration::from_millis(2))?;
    stay(stream)
}

/// An agent with all the faults, asked for by path; everything else is answered as it should be. Notes requests that come on a
/// connection that should not have been used again.
pub fn agent(notes: Notes) -> impl Fn(&Seen, &mut TcpStream) -> io::Result<()> + Send + Sync {
    let (faults, doubtful) = (faults(), Mutex::new(HashMap::new()));
    move |seen, stream| {
        if let Some(name) = doubtful.lock().unwrap().get(&seen.connection) {
            notes.add(format!("{} came on the connection of {name:?}", seen.target));
        }
        let index = seen.target.rsplit_once("/fault/").and_then(|(_, index)| index.parse::<usize>().ok());
        let Some(fault) = index.and_then(|index| faults.get(index)) else { return stream.write_all(&echo(seen)) };
        if !fault.again {
            doubtful.lock().unwrap().insert(seen.connection, fault.name);
        }
        match fault.answer {
            Answer::Bytes(bytes) => stream.write_all(bytes.as_bytes()).and_then(|()| stay(stream)),
            Answer::Then(bytes, then) => stream.write_all(bytes.as_bytes()).and_then(|()| then(stream)),
            Answer::Does(does) => does(stream),
            Answer::Early(bytes) => {
                stream.write_all(bytes.as_bytes())?;
                let rest = seen.one("content-length").parse::<u64>().unwrap() - seen.body.len() as u64;
                let read = io::copy(&mut stream.take(rest), &mut io::sink())?;
                if read == rest { Ok(()) } else { hang_up() }
            }
        }
    }
}

/// Asks for the faults that take no time, one after the other, while `goes_on` says so; how many there were.
pub fn suffer_all(gateway: SocketAddr, notes: &Notes, goes_on: impl Fn() -> bool) -> u64 {
    let faults: Vec<_> = faults().into_iter().enumerate().filter(|(_, fault)| fault.group != SLOW).collect();
    let mut suffered = 0;
    for (index, fault) in faults.iter().cycle().take_while(|_| goes_on()) {
        suffer(gateway, *index, fault).into_iter().for_each(|wrong| notes.add(wrong));
        suffered += 1;
        thread::park_timeout(Duration::from_millis(50));
    }
    suffered
}

/// With one thread: with more, a connection that was kept is not always found again.
fn gateway(upstream: SocketAddr) -> Gateway {
    Gateway::start(
        &halo(upstream, "")
            .replace("threads = 2", "threads = 1")
            .replace("[assertion]", "connect_timeout = \"1s\"\nfirst_byte_timeout = \"2s\"\nread_timeout = \"2s\"\n[assertion]"),
    )
}

/// Asks for a fault; says what came instead of what may come.
fn suffer(gateway: SocketAddr, index: usize, fault: &Fault) -> Option<String> {
    let mut connection = Connection::open(gateway);
    let (path, body) = if fault.group == EARLY { ("/early/fault", 4 << 20) } else { ("/fault", 0) };
    // It may answer and close before it has read everything.
    let _ = connection.send(&request(fault.method, &format!("{path}/{index}"), &token("mallory"), &vec![b' '; body]));
    let told = Outcome::of(&mut connection, fault.method).told();
    (!fault.seen.contains(&told.as_str())).then(|| format!("{} {:?}: {told}, not {:?}", fault.group, fault.name, fault.seen))
}

/// Every fault, `times` over, with two bystanders. One row per kind of fault.
pub fn run(times: usize) -> Vec<Row> {
    let notes = Notes::default();
    let upstream = Upstream::start(agent(notes.clone()));
    let gateway = gateway(upstream.address());
    let all: Vec<_> = faults().into_iter().enumerate().collect();
    let groups = [ENDS, SLOW, FLOODS, UNASKED, EARLY, HEADS, LENGTHS, CHUNKS];
    let row = |group: &'static str| {
        let faults: Vec<_> = all.iter().filter(|(_, fault)| fault.group == group).copied().collect();
        let bystanders: Vec<_> = (0..2).map(|n| Bystander::start(gateway.address, n, notes.clone())).collect();
        thread::scope(|scope| {
            // Side by side, since some of them take their time.
            for half in faults.chunks(faults.len().div_ceil(3)) {
                let (notes, address) = (&notes, gateway.address);
                scope.spawn(move || {
                    for (index, fault) in (0..times).flat_map(|_| half) {
                        suffer(address, *index, fault).into_iter().for_each(|wrong| notes.add(wrong));
                    }
                });
            }
        });
        let over = Instant::now();
        let answer = http::send(gateway.address, request("GET", "/ok/after", &token("after"), b""));
        if !is_own(&answer, "after", "/ok/after") {
            notes.add(format!("after {group}: {} {} {}", answer.status, answer.reason(), answer.text()));
        }
        let recovery = Some(over.elapsed());
        let met = bystanders.into_iter().map(Bystander::end).fold(Met::default(), Met::and);
        upstream.forget();
        let wrong = notes.take();
        let load = format!("{} faults × {times}, 2 callers beside them", faults.len());
        Row { fault: group, load, requests: met.requests + 1, wrong: wrong.len() as u64, lost: met.lost, recovery, note: wrong.join("; ") }
    };
    groups.into_iter().map(row).collect()
}

#[test]
fn a_failing_backend_harms_its_own_request_only() {
    let rows = run(1);
    eprintln!("{}", super::table(&rows));
    rows.iter().for_each(Row::clean);
}

#[test]
fn floods_cost_little_memory_and_are_counted_with_a_reason() {
    let notes = Notes::default();
    let upstream = Upstream::start(agent(notes.clone()));
    let gateway = gateway(upstream.address());
    assert!(is_own(&http::send(gateway.address, request("GET", "/ok", &token("u"), b"")), "u", "/ok"));
    let before = super::resident(gateway.pid());
    let floods: Vec<_> = faults().into_iter().enumerate().filter(|(_, fault)| fault.group == FLOODS).collect();
    thread::scope(|scope| {
        for (index, fault) in floods.iter().flat_map(|flood| [flood; 3]) {
            let address = gateway.address;
            scope.spawn(move || assert_eq!(suffer(address, *index, fault), None));
        }
    });
    let grown = super::resident(gateway.pid()).saturating_sub(before);
    assert!(grown < 48 << 20, "{} floods took {grown} bytes", floods.len() * 3);
    let failed = |reason: &str| format!(r#"doorward_requests_total{{level="verified",outcome="failed",reason="{reason}",tenant="acme"}}"#);
    gateway.counted(&failed("upstream_protocol"), (floods.len() * 3) as f64);
    gateway.counted("doorward_requests_in_flight", 0.0);
    let details: Vec<_> = ["more than 16 interim answers", "a head of more than 64 KiB"].into();
    until("the reasons in the audit", || details.iter().all(|detail| gateway.audit_text().contains(detail)).then_some(()));
    assert_eq!(notes.take(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_http_2_it_is_the_request_that_fails() {
    let notes = Notes::default();
    let upstream = Upstream::start(agent(notes.clone()));
    let authority = Authority::new("test");
    let gateway = start(&with_tls(upstream.address(), ONE), &[("a", &authority.server(&["a.example"]))], &[]);
    let config = authority.client_config(&["h2"]);
    let mut client = Client::over(connect(gateway.last_place(), "a.example", &config).await.unwrap()).await;
    let bearer = format!("Bearer {}", token("ann"));
    let request = |method: &str, path: &str| {
        let request = ::http::Request::builder().method(method).uri(format!("https://a.example{path}")).version(::http::Version::HTTP_2);
        request.header("x-embed-key", CALLER[0].1).header("origin", CALLER[1].1).header("authorization", &bearer).body(()).unwrap()
    };
    for (index, fault) in faults().iter().enumerate().filter(|(_, fault)| ![SLOW, EARLY].contains(&fault.group)) {
        let told = match client.ask(request(fault.method, &format!("/fault/{index}")), &[]).await {
            Ok(answer) if answer.status == 502 => "502 upstream_protocol".to_owned(),
            Ok(answer) => answer.status.as_str().to_owned(),
            Err(error) if error.is_reset() => "200 cut off".to_owned(), // the stream, not the connection
            Err(error) => format!("{error}"),
        };
        assert!(fault.seen.contains(&told.as_str()), "{:?}: {told}", fault.name);
        assert_eq!(client.ask(request("GET", "/ok"), &[]).await.unwrap().status, 200, "after {:?}", fault.name);
    }
    assert_eq!(notes.take(), Vec::<String>::new());
}

#[test]
fn what_comes_on_an_idle_connection_is_nobodys_answer() {
    let (ask, told) = (Arc::new(Mutex::new(false)), Arc::new(AtomicBool::new(false)));
    let (asked, said) = (Arc::clone(&ask), Arc::clone(&told));
    let upstream = Upstream::start(move |seen, stream| {
        stream.write_all(&echo(seen))?;
        if seen.target == "/first" {
            until("the first answer to be read", || asked.lock().unwrap().then_some(()));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")?;
            said.store(true, Ordering::SeqCst);
        }
        Ok(())
    });
    let gateway = gateway(upstream.address());
    let mut connection = Connection::open(gateway.address);
    for (target, subject) in [("/first", "ann"), ("/second", "bob"), ("/third", "cy")] {
        connection.send(&request("GET", target, &token(subject), b"")).unwrap();
        let answer = connection.answer("GET").unwrap();
        assert!(is_own(&answer, subject, target), "{answer:?}");
        *ask.lock().unwrap() = true;
        until("the second answer", || told.load(Ordering::SeqCst).then_some(()));
    }
    let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [1, 2, 2], "the one that spoke up is given up");
}

#[test]
fn a_head_leaves_no_connection_behind() {
    let upstream = Upstream::start(|seen, stream| stream.write_all(&echo(seen)));
    let gateway = gateway(upstream.address());
    for (method, target) in [("GET", "/1"), ("HEAD", "/2"), ("GET", "/3"), ("GET", "/4")] {
        assert_eq!(http::send(gateway.address, request(method, target, &token("u"), b"")).status, 200);
    }
    let seen: Vec<_> = upstream.seen().iter().map(|seen| (seen.connection, seen.all("connection").join(","))).collect();
    let close = (1, "close".to_owned());
    assert_eq!(seen[1], close, "a backend that sends a body all the same answers nobody with it");
    assert!(seen[2].0 == 2 && seen[3].0 == 2, "{seen:?}");
}

#[test]
fn interim_answers_are_passed_on_in_reason_and_to_those_who_know_them() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(16);
    let upstream = Upstream::answering(hints + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = gateway(upstream.address());
    let mut connection = Connection::open(gateway.address);
    connection.send(&request("GET", "/a", &token("u"), b"")).unwrap();
    let statuses: Vec<_> = (0..17).map(|_| connection.head().unwrap().0).collect();
    assert_eq!(statuses, [vec![103; 16], vec![200]].concat());
    let old = format!("GET /a HTTP/1.0\r\nHost: h\r\n{}: {}\r\n{}: {}\r\n\r\n", CALLER[0].0, CALLER[0].1, CALLER[1].0, CALLER[1].1);
    let mut connection = Connection::open(gateway.address);
    connection.send(old.as_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().0, 200, "HTTP/1.0 has no interim answers");
}

#[test]
fn a_backend_that_takes_no_connection_is_not_waited_for() {
    // A queue that is full: the system drops what else would like to connect.
    let socket = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap().into_std().unwrap()
    });
    let address = socket.local_addr().unwrap();
    let mut queue = Vec::new();
    until("the queue to be full", || match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        Ok(stream) => {
            queue.push(stream);
            None
        }
        Err(_) => Some(()),
    });
    let gateway = gateway(address);
    let started = Instant::now();
    let answer = http::send(gateway.address, request("GET", "/a", &token("u"), b""));
    assert_eq!((answer.status, answer.reason()), (504, "upstream_timeout"));
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    drop(socket);
}
