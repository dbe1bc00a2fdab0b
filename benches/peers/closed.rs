//! The closed loop: wrk keeps so many connections busy; what counts is what the proxy spent on it.

use std::fs;
use std::time::Duration;

use crate::scenario::Scenario;
use crate::stand::{Process, Stand, needed, word};

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Microseconds of CPU time per request.
    pub(crate) cpu_us: f64,
    /// Requests per second.
    pub(crate) rate: f64,
}

/// Sends a scenario's requests in turn.
const SCRIPT: &str = r#"
local requests, at = nil, 0
function init(args) requests = dofile(args[1]) end
function request() at = at % #requests + 1; return requests[at] end
function done(summary)
    local e = summary.errors
    io.write(string.format("\n@ %d %d %d %d\n", summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
"#;

/// Measures one peer in one scenario; stops the whole run where an answer was not the expected one.
pub(crate) fn run(stand: &Stand, process: &Process, scenario: &Scenario, connections: usize, length: Duration) -> Run {
    let requests = stand.path(&format!("log/{}.lua", scenario.name));
    if !requests.exists() {
        // A quoted string of Rust is one of Lua: the requests are ASCII.
        let quoted: Vec<_> = stand.requests(scenario).iter().map(|request| format!("{request:?}")).collect();
        fs::write(&requests, format!("return {{\n{}\n}}\n", quoted.join(",\n"))).unwrap();
    }
    let script = stand.path("log/wrk.lua");
    fs::write(&script, SCRIPT).unwrap();
    let url = format!("http://127.0.0.1:{}", process.port);
    let mut command = stand.load(&word(&needed("wrk")));
    command.args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{}s", length.as_secs()),
        "-s",
        &word(&script),
        &url,
        "--",
        &word(&requests),
    ]);
    let before = process.cpu();
    let output = command.output().unwrap();
    let spent = process.cpu() - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("@ ")).unwrap_or_else(|| panic!("wrk said: {text}"));
    let figures: Vec<u32> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    let [count, micros, refused, failed] = figures[..] else { panic!("wrk said: {line}") };
    let expected = if scenario.expect.iter().all(|status| *status >= 400) { count } else { 0 };
    assert!(failed == 0 && refused.abs_diff(expected) <= count / 1000, "{}: {refused} refused, {failed} failed of {count}", scenario.name);
    Run { cpu_us: spent.as_secs_f64() * 1e6 / f64::from(count), rate: f64::from(count) * 1e6 / f64::from(micros) }
}
