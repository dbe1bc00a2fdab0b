//! What was measured: the table on the terminal, the same as Markdown, and a plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use crate::closed::Run;
use crate::open::Latencies;

/// Everything measured so far, in the order in which it came.
#[derive(Default)]
pub(crate) struct Report {
    scenarios: Vec<&'static str>,
    peers: Vec<&'static str>,
    runs: BTreeMap<(&'static str, &'static str), Vec<Run>>,
    latencies: BTreeMap<&'static str, Latencies>,
    memory: BTreeMap<&'static str, (u64, u64, u64, Duration)>,
}

/// p50, p99 and p99.9.
pub(crate) fn percentiles(latencies: &Latencies) -> String {
    let at = |quantile| latencies.value_at_quantile(quantile);
    format!("p50 {} µs, p99 {} µs, p99.9 {} µs", at(0.5), at(0.99), at(0.999))
}

impl Report {
    pub(crate) fn closed(&mut self, scenario: &'static str, peer: &'static str, run: Run) {
        if !self.scenarios.contains(&scenario) {
            self.scenarios.push(scenario);
        }
        if !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
        self.runs.entry((scenario, peer)).or_default().push(run);
    }

    pub(crate) fn open(&mut self, peer: &'static str, latencies: &Latencies) {
        match self.latencies.get_mut(peer) {
            Some(known) => known.add(latencies).unwrap(),
            None => drop(self.latencies.insert(peer, latencies.clone())),
        }
    }

    pub(crate) fn memory(&mut self, peer: &'static str, peak_kib: u64, idle: u64, stream: u64, up_after: Duration) {
        self.memory.insert(peer, (peak_kib, idle, stream, up_after));
    }

    /// Half the rate that the slowest peer reached with POSTs; 2,000 where that was not measured.
    pub(crate) fn half_of_the_slowest(&self) -> u64 {
        let rates = self.peers.iter().filter_map(|peer| self.cpu("POST", peer)).map(|(.., rate)| rate as u64 / 2);
        rates.min().unwrap_or(2000)
    }

    fn cpu(&self, scenario: &'static str, peer: &'static str) -> Option<(f64, f64, f64, f64)> {
        let runs = self.runs.get(&(scenario, peer))?;
        let mut cpu: Vec<_> = runs.iter().map(|run| run.cpu_us).collect();
        let mut rates: Vec<_> = runs.iter().map(|run| run.rate).collect();
        cpu.sort_by(f64::total_cmp);
        rates.sort_by(f64::total_cmp);
        Some((cpu[cpu.len() / 2], cpu[0], cpu[cpu.len() - 1], rates[rates.len() / 2]))
    }

    fn table(&self, rate: u64) -> String {
        let mut text = String::from(
            "| scenario | peer | CPU µs/request (median) | min | max | to HAProxy | requests/s |\n|---|---|--:|--:|--:|--:|--:|\n",
        );
        for scenario in &self.scenarios {
            let yardstick = self.cpu(scenario, "haproxy").or_else(|| self.cpu("POST", "haproxy"));
            let other = self.cpu(scenario, "haproxy").is_none();
            for peer in &self.peers {
                let Some((median, least, most, rate)) = self.cpu(scenario, peer) else { continue };
                let ratio = yardstick
                    .map_or_else(|| "-".to_owned(), |(of, ..)| format!("{:.2}{}", median / of, if other { " (its POST)" } else { "" }));
                writeln!(text, "| {scenario} | {peer} | {median:.1} | {least:.1} | {most:.1} | {ratio} | {rate:.0} |").unwrap();
            }
        }
        writeln!(text, "\n| POST at {rate}/s, open loop | p50 µs | p99 µs | p99.9 µs |\n|---|--:|--:|--:|").unwrap();
        for (peer, latencies) in &self.latencies {
            let at = |quantile| latencies.value_at_quantile(quantile);
            writeln!(text, "| {peer} | {} | {} | {} |", at(0.5), at(0.99), at(0.999)).unwrap();
        }
        text.push_str("\n| peer | peak memory MiB | per idle connection KiB | per SSE stream KiB | start to first answer ms |\n|---|--:|--:|--:|--:|\n");
        for (peer, (peak, idle, stream, up)) in &self.memory {
            let (peak, kib) = (*peak as f64 / 1024.0, |bytes: &u64| *bytes as f64 / 1024.0);
            writeln!(text, "| {peer} | {peak:.1} | {:.1} | {:.1} | {} |", kib(idle), kib(stream), up.as_millis()).unwrap();
        }
        text
    }

    pub(crate) fn print(&self, rate: u64) {
        println!("\n{}", self.table(rate));
    }

    /// Writes `peers.md` and `peers.svg`.
    pub(crate) fn write(&self, directory: &Path, rate: u64) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("peers.md"), self.table(rate)).unwrap();
        self.plot(&directory.join("peers.svg"));
    }

    fn plot(&self, file: &Path) {
        let bars: Vec<_> = ["POST", "GET"]
            .iter()
            .flat_map(|scenario| self.peers.iter().filter_map(move |peer| Some((*scenario, *peer, self.cpu(scenario, peer)?.0))))
            .collect();
        let most = bars.iter().map(|bar| bar.2).fold(1.0, f64::max) * 1.15;
        let height = 60 + 26 * u32::try_from(bars.len()).unwrap();
        let root = SVGBackend::new(file, (760, height)).into_drawing_area();
        root.fill(&WHITE).unwrap();
        let font = ("sans-serif", 14).into_font();
        root.draw(&Text::new("CPU µs per request, whole job, HS256 (less is better)", (16, 14), ("sans-serif", 16).into_font())).unwrap();
        for (row, (scenario, peer, cpu)) in bars.iter().enumerate() {
            let top = 46 + 26 * i32::try_from(row).unwrap();
            let right = 150 + (560.0 * cpu / most) as i32;
            let colour = if *peer == "doorward" { RGBColor(26, 115, 232) } else { RGBColor(160, 168, 178) };
            root.draw(&Text::new(format!("{scenario} {peer}"), (16, top + 3), font.clone())).unwrap();
            root.draw(&Rectangle::new([(150, top), (right, top + 18)], colour.filled())).unwrap();
            root.draw(&Text::new(format!("{cpu:.1}"), (right + 6, top + 3), font.clone())).unwrap();
        }
        root.present().unwrap();
    }
}
