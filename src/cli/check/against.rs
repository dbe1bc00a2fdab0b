//! `doorward check --against`: judges the records of an audit log again, by the configuration that is being checked, and
//! counts what would change. Reads one line at a time, whatever the file's size; what cannot be read or judged is counted
//! and said, never left out. The judging itself is [`crate::admission::again`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use super::line;
use crate::admission::again::{self, Again, Ended};
use crate::observe::past::{self, Recorded};
use crate::observe::plain::plain;
use crate::policy::Mode;
use crate::reason::Reason;
use crate::snapshot::Snapshot;
use crate::status::words::{many, number};

/// Longest line that is read: no record comes near it.
const LONGEST_LINE: usize = 1024 * 1024;
/// Examples of each change, and lines named of each trouble.
const EXAMPLES: usize = 3;
/// Most tenants that are told apart.
const MOST_TENANTS: usize = 1000;

/// What became of all records.
#[derive(Debug, Default)]
pub struct Tally {
    records: u64,
    judged: u64,
    generations: BTreeSet<u64>,
    tenants: BTreeSet<String>,
    /// Denied before and denied after, by tenant and reason.
    denied: BTreeMap<(String, Reason), (u64, u64)>,
    newly_denied: Changes<Reason>,
    newly_admitted: Changes<Reason>,
    /// Denied then and now, for another reason.
    otherwise: Changes<(Reason, Reason)>,
    /// Admitted, and what enforce would deny: where it is not enforced.
    would_deny: BTreeMap<(String, Reason), u64>,
    unknown: BTreeMap<&'static str, u64>,
    malformed: BTreeMap<&'static str, (u64, Vec<u64>)>,
}

type Changes<What> = BTreeMap<(String, What), (u64, Vec<String>)>;

impl Tally {
    /// Judges every line.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of(mut lines: impl BufRead, snapshot: &Snapshot, mode: Option<Mode>) -> io::Result<Self> {
        let mut tally = Self::default();
        let (mut line, mut number) = (Vec::new(), 0);
        while let Some(whole) = read_line(&mut lines, &mut line)? {
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let read = if whole { past::read(&line) } else { Err("a line of more than 1 MiB") };
            match read {
                Ok(recorded) => tally.judge(&recorded, snapshot, mode),
                Err(why) => note(tally.malformed.entry(why).or_default(), number),
            }
        }
        Ok(tally)
    }

    fn judge(&mut self, recorded: &Recorded, snapshot: &Snapshot, mode: Option<Mode>) {
        let past = &recorded.past;
        self.records += 1;
        self.generations.insert(recorded.generation);
        let again = again::judge(past, &snapshot.tenants, snapshot.sessions.are_on(), mode);
        let tenant = self.tenant(past.tenant.as_deref());
        let before = if let Ended::Denied(reason) = past.ended { Some(reason) } else { None };
        let after = match again {
            Again::Unknown(why) => return *self.unknown.entry(why).or_default() += 1,
            Again::Denied(reason) => Some(reason),
            Again::Admitted(would_deny) => {
                if let Some(reason) = would_deny {
                    *self.would_deny.entry((tenant.clone(), reason)).or_default() += 1;
                }
                None
            }
        };
        self.judged += 1;
        if let Some(reason) = before {
            self.denied.entry((tenant.clone(), reason)).or_default().0 += 1;
        }
        if let Some(reason) = after {
            self.denied.entry((tenant.clone(), reason)).or_default().1 += 1;
        }
        let example = || format!("{} {} ({})", plain(past.method.as_str(), 20), plain(&past.path, 80), plain(&recorded.request_id, 64));
        match (before, after) {
            (None, Some(reason)) => note(self.newly_denied.entry((tenant, reason)).or_default(), example()),
            (Some(reason), None) => note(self.newly_admitted.entry((tenant, reason)).or_default(), example()),
            (Some(then), Some(now)) if then != now => note(self.otherwise.entry((tenant, (then, now))).or_default(), example()),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// As it is shown and told apart.
    fn tenant(&mut self, id: Option<&str>) -> String {
        let Some(id) = id else { return "-".to_owned() };
        let shown = plain(id, 64);
        if !self.tenants.contains(&shown) {
            if self.tenants.len() >= MOST_TENANTS {
                return "(others)".to_owned();
            }
            self.tenants.insert(shown.clone());
        }
        shown
    }

    /// Whether something was judged, and nothing of it would be newly denied.
    pub fn is_safe(&self) -> bool {
        self.judged > 0 && self.newly_denied.is_empty()
    }

    /// For a terminal.
    pub fn describe(&self, name: &str, mode: Option<Mode>) -> String {
        let mut text = String::new();
        let asked = mode.map(|mode| format!(", with every tenant in mode {}", mode.as_str())).unwrap_or_default();
        let shown: Vec<_> = self.generations.iter().take(EXAMPLES).map(u64::to_string).collect();
        let more = if self.generations.len() > EXAMPLES { " …" } else { "" };
        line(&mut text, format_args!("\nagainst {}{asked}", plain(name, 200)));
        line(&mut text, format_args!("{}, judged {}", many(self.records, "record"), number(self.judged)));
        line(&mut text, format_args!("configurations then: {}{more}", shown.join(" ")));
        self.table(&mut text);
        let word = |reason: &Reason| reason.code().to_owned();
        changes(&mut text, "newly denied", &self.newly_denied, word);
        changes(&mut text, "newly admitted", &self.newly_admitted, word);
        changes(&mut text, "denied for another reason", &self.otherwise, |(then, now)| format!("{then} → {now}"));
        let would: u64 = self.would_deny.values().sum();
        if would > 0 {
            line(&mut text, format_args!("\nadmitted, and enforce would deny: {}", number(would)));
            self.would_deny.iter().for_each(|((tenant, reason), count)| line(&mut text, format_args!("  {count:>8}  {tenant}  {reason}")));
        }
        let unknown: u64 = self.unknown.values().sum();
        if unknown > 0 {
            line(&mut text, format_args!("\nnot judged: {}", number(unknown)));
            self.unknown.iter().for_each(|(why, count)| line(&mut text, format_args!("  {count:>8}  {why}")));
        }
        let malformed: u64 = self.malformed.values().map(|(count, _)| count).sum();
        if malformed > 0 {
            line(&mut text, format_args!("\nnot read: {}", many(malformed, "line")));
            for (why, (count, lines)) in &self.malformed {
                let lines: Vec<_> = lines.iter().map(u64::to_string).collect();
                let more = if *count > lines.len() as u64 { " …" } else { "" };
                line(&mut text, format_args!("  {count:>8}  {why}: line {}{more}", lines.join(", ")));
            }
        }
        line(&mut text, format_args!("\nnot looked at: limits, revocations, session keys, upstreams"));
        text
    }

    fn table(&self, text: &mut String) {
        if self.denied.is_empty() {
            return;
        }
        text.push('\n');
        let widest = |least: usize, width: &dyn Fn(&(String, Reason)) -> usize| self.denied.keys().map(width).max().unwrap_or(0).max(least);
        let (tenants, reasons) = (widest(6, &|(tenant, _)| tenant.chars().count()), widest(6, &|(_, reason)| reason.code().len()));
        let mut row = |tenant: &str, reason: &str, before: &str, after: &str| {
            line(text, format_args!("{tenant:tenants$}  {reason:reasons$}  {before:>10}  {after:>10}"));
        };
        row("tenant", "denied", "before", "after");
        for ((tenant, reason), (before, after)) in &self.denied {
            row(tenant, reason.code(), &number(*before), &number(*after));
        }
        let (before, after) = self.denied.values().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
        row("", "in all", &number(before), &number(after));
    }
}

fn changes<What: Ord>(text: &mut String, title: &str, changes: &Changes<What>, words: impl Fn(&What) -> String) {
    let all: u64 = changes.values().map(|(count, _)| count).sum();
    line(text, format_args!("\n{title}: {}", number(all)));
    for ((tenant, what), (count, examples)) in changes {
        line(text, format_args!("  {count:>8}  {tenant}  {}", words(what)));
        examples.iter().for_each(|example| line(text, format_args!("            {example}")));
    }
}

/// Counts one, and keeps it as an example while there are few.
fn note<Example>(counted: &mut (u64, Vec<Example>), example: Example) {
    counted.0 += 1;
    if counted.1.len() < EXAMPLES {
        counted.1.push(example);
    }
}

/// The next line without its end: whether it is there as a whole, or `None` where there is no more. What is too long is
/// skipped without being kept.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let (mut any, mut whole) = (false, true);
    loop {
        let piece = lines.fill_buf()?;
        if piece.is_empty() {
            return Ok(any.then_some(whole));
        }
        any = true;
        let end = memchr::memchr(b'\n', piece);
        let taken = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
        whole &= line.len() + taken.len() <= LONGEST_LINE;
        if whole {
            line.extend_from_slice(taken);
        }
        let used = taken.len() + usize::from(end.is_some());
        lines.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_long_ones_skipped() {
        let text = format!("one\n\n{}\ntwo", "x".repeat(LONGEST_LINE + 1));
        let mut lines = io::BufReader::with_capacity(7, text.as_bytes());
        let mut line = Vec::new();
        let mut next = || {
            let whole = read_line(&mut lines, &mut line).unwrap();
            whole.map(|whole| (whole, if whole { String::from_utf8(line.clone()).unwrap() } else { String::new() }))
        };
        assert_eq!(next(), Some((true, "one".to_owned())));
        assert_eq!(next(), Some((true, String::new())));
        assert_eq!(next(), Some((false, String::new())));
        assert_eq!(next(), Some((true, "two".to_owned())));
        assert_eq!(next(), None);
    }
}
