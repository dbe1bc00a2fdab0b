//! Doorward beside its peers: each does the same job, as far as it can, in front of the same backend, in turns, in one run.
//! What counts is CPU time of the proxy's process per request: on a shared machine it is steadier than wall time. Prints one
//! table and writes it, with a plot, under `target/bench`.
//!
//! `cargo bench --bench peers -- --help` lists what can be set. Each peer's configuration stands beside this file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic)] // stops where it cannot measure
#![allow(missing_docs)]

mod bare;
mod closed;
mod open;
mod peer;
mod report;
mod scenario;
mod stand;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The allocator of the binary: the bare proxy must have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "CPU time per request of Doorward and its peers")]
struct Options {
    /// Rounds; each measures every peer in every scenario once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections of the closed loop.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests per second of the open loop, from which latencies come; default: half of what the slowest reached.
    #[arg(long)]
    rate: Option<u64>,
    /// Only these peers, by name.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only these scenarios, by name.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Doorward's binary; default: the one that was built with this.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_doorward"))]
    doorward: PathBuf,
    /// Envoy's binary; default: found by `make bench`, else left out.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// Be the bare Pingora proxy, between these two ports.
    #[arg(long, num_args = 2, hide = true)]
    bare: Option<Vec<u16>>,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if let Some([port, upstream]) = options.bare.as_deref() {
        bare::serve(*port, *upstream);
        return;
    }
    let stand = stand::Stand::new();
    let _upstream = stand.upstream();
    let mut peers: Vec<_> =
        peer::all(&options).into_iter().filter(|p| options.peers.is_empty() || options.peers.iter().any(|n| n == p.name)).collect();
    let scenarios: Vec<_> =
        scenario::ALL.iter().filter(|s| options.scenarios.is_empty() || options.scenarios.iter().any(|n| n == s.name)).collect();
    println!("{}", stand.describe());
    let mut running = Vec::new();
    for peer in peers.drain(..) {
        let started = stand.start(&peer);
        let answers = stand.checked(&peer, &started);
        println!("{:<10} up after {:>4} ms; {answers}; {}", peer.name, started.up_after.as_millis(), peer.leaves_out);
        running.push((peer, started));
    }
    let mut report = report::Report::default();
    for round in 1..=options.rounds {
        for scenario in &scenarios {
            for (peer, process) in &running {
                if scenario.for_peer(peer) {
                    let run = closed::run(&stand, process, scenario, options.connections, Duration::from_secs(options.seconds));
                    println!(
                        "round {round}/{}: {:<12} {:<10} {:>6.1} µs, {:>6.0} requests/s",
                        options.rounds, scenario.name, peer.name, run.cpu_us, run.rate
                    );
                    report.closed(scenario.name, peer.name, run);
                }
            }
        }
    }
    let rate = options.rate.unwrap_or_else(|| report.half_of_the_slowest());
    for round in 1..=options.rounds {
        for (name, port) in running.iter().map(|(peer, process)| (peer.name, process.port)).chain([("upstream", stand.upstream_port)]) {
            let latencies = open::run(&stand, port, rate, Duration::from_secs(options.seconds));
            println!("round {round}/{}: open loop    {name:<10} {} at {rate}/s", options.rounds, report::percentiles(&latencies));
            report.open(name, &latencies);
        }
    }
    for (peer, process) in &mut running {
        let idle = stand.memory_per_connection(process, "/v1/chat");
        let streams = stand.memory_per_connection(process, "/silence");
        report.memory(peer.name, process.peak_kib(), idle, streams, process.up_after);
    }
    report.print(rate);
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("bench");
    report.write(&directory, rate);
    println!("written: {}", directory.display());
}
