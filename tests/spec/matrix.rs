//! The decision matrix: every row of the decision table × mode × preset, `tests/cases/matrix/PRESET.md`. The expectations are
//! written by hand from the specification and nothing rewrites them. This file knows the rows, so a missing cell fails.
//!
//! A table's file has one fenced block with the preset's ingredients (`request`, `header` lines for every request, and
//! `NAME = header …`, `NAME = query …` or `NAME = body …`), then the table: row | off | monitor | enforce. A cell is
//! `anonymous`, `claimed ID`, `verified SUBJECT by METHOD` or `STATUS REASON`, and `, would deny REASON` behind it where
//! enforce would.

use std::collections::BTreeMap;

use doorward::admission::{Caller, Decision};
use doorward::clock::UnixTime;
use doorward::revocations::Revocations;
use libtest_mimic::Trial;

use crate::exchange::{self, Arrival, Raw};
use crate::{files, fixture, tokens, trial};

const PRESETS: [&str; 6] = ["karta", "agentic-trust-hmac", "agentic-trust-jwt", "halo", "widgent", "none"];
const MODES: [&str; 3] = ["off", "monitor", "enforce"];
/// Presets whose tokens carry no time: rows about expiry do not exist for them.
const WITHOUT_EXPIRY: [&str; 2] = ["karta", "agentic-trust-hmac"];
const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

const USERS: &str = r#"audience = "users""#;
const ROUTE: &str = r#"route = [{ path = "/*", require = "verified" }]"#;
const DENY_IDS: &str = r#"unsigned_id = "deny""#;
const CLAIM_IDS: &str = r#"unsigned_id = "claimed""#;
const EXPIRED_DENIED: &str = r#"on_expired = "deny""#;
const EXPIRED_ANONYMOUS: &str = r#"on_expired = "anonymous""#;

/// A row: its name, what the tenant has beside its mode, what the caller sends.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Every row. `id` and `other` stand in different places of the request, `id` in its head where the preset has such a place.
const ROWS: [Row; 28] = [
    ("nothing", &[], &[]),
    ("nothing, audience users", &[USERS], &[]),
    ("nothing, route wants verified", &[ROUTE], &[]),
    ("an id", &[DENY_IDS], &["id"]),
    ("an id, unsigned_id claimed", &[CLAIM_IDS], &["id"]),
    ("an id, unsigned_id claimed, audience users", &[CLAIM_IDS, USERS], &["id"]),
    ("an id, as the preset has it", &[], &["id"]),
    ("an id in the body", &[DENY_IDS], &["body-id"]),
    ("an id in the body, unsigned_id claimed", &[CLAIM_IDS], &["body-id"]),
    ("the id \"anonymous\"", &[DENY_IDS], &["anonymous-id"]),
    ("two differing ids", &[DENY_IDS], &["id", "other"]),
    ("two differing ids, unsigned_id claimed", &[CLAIM_IDS], &["id", "other"]),
    ("a good token", &[], &["good"]),
    ("a good token and its id", &[], &["good", "id"]),
    ("a good token and its id, audience users", &[USERS], &["good", "id"]),
    ("a good token and the id \"anonymous\"", &[], &["good", "anonymous-id"]),
    ("a bad token", &[], &["bad"]),
    ("a bad token and an id", &[], &["bad", "id"]),
    ("a bad token and an id, unsigned_id claimed", &[CLAIM_IDS], &["bad", "id"]),
    ("a malformed token and an id", &[], &["malformed", "id"]),
    ("an expired token", &[EXPIRED_DENIED], &["expired"]),
    ("an expired token and its id", &[EXPIRED_DENIED], &["expired", "id"]),
    ("an expired token, on_expired anonymous", &[EXPIRED_ANONYMOUS], &["expired"]),
    ("an expired token, on_expired anonymous, audience users", &[EXPIRED_ANONYMOUS, USERS], &["expired"]),
    ("an expired token, as the preset has it", &[], &["expired"]),
    ("an expired token with a bad signature, on_expired anonymous", &[EXPIRED_ANONYMOUS], &["expired-bad"]),
    ("a good token and another id", &[], &["good", "other"]),
    ("a good token, its id and another", &[], &["good", "id", "other"]),
];

/// One test per preset and row, and one that nothing weakens the default mode.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for preset in PRESETS {
        for row in ROWS.into_iter().filter(|row| applies(preset, row)) {
            trials.push(trial(format!("matrix::{preset}::{}", row.0), move || check(preset, &row)));
        }
        trials.push(trial(format!("matrix::{preset}::has no other rows"), move || no_other_rows(preset)));
        trials.push(trial(format!("matrix::{preset}::enforces by default"), move || enforces_by_default(preset)));
    }
    trials.push(trial("matrix::there is one table per preset", one_table_per_preset));
    trials
}

fn applies(preset: &str, (name, _, _): &Row) -> bool {
    !(WITHOUT_EXPIRY.contains(&preset) && name.starts_with("an expired token"))
}

fn check(preset: &str, row: &Row) -> Result<(), String> {
    let table = Table::read(preset)?;
    let (name, changes, send) = *row;
    let cells = table.rows.get(name).ok_or_else(|| format!("{preset}.md has no row: {name}"))?;
    let mut wrong = Vec::new();
    for (mode, wanted) in MODES.iter().zip(cells) {
        let got = table.decide(Some(mode), changes, send)?;
        if got != *wanted {
            wrong.push(format!("{preset}, {name}, {mode}\nexpected {wanted}\ngot      {got}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn no_other_rows(preset: &str) -> Result<(), String> {
    let table = Table::read(preset)?;
    let known = |name: &str| ROWS.iter().any(|row| row.0 == name && applies(preset, row));
    let unknown: Vec<_> = table.rows.keys().filter(|name| !known(name)).cloned().collect();
    if unknown.is_empty() { Ok(()) } else { Err(format!("no such rows: {}", unknown.join("; "))) }
}

/// Without `mode` every preset decides what its `enforce` column says.
fn enforces_by_default(preset: &str) -> Result<(), String> {
    let table = Table::read(preset)?;
    let (name, changes, send) = ROWS.iter().find(|row| row.0 == "a bad token and an id").unwrap();
    let wanted = &table.rows.get(*name).ok_or("no row of bad tokens")?[2];
    let got = table.decide(None, changes, send)?;
    if got == *wanted { Ok(()) } else { Err(format!("expected {wanted}, got {got}")) }
}

fn one_table_per_preset() -> Result<(), String> {
    let found: Vec<_> = files::below("tests/cases/matrix", "md").into_iter().map(|p| p.with_extension("").display().to_string()).collect();
    let mut wanted = PRESETS.to_vec();
    wanted.sort_unstable();
    let presets = files::below("src/tenant/presets", "toml").into_iter().map(|p| p.with_extension("").display().to_string());
    if found != wanted {
        return Err(format!("tables for {found:?}, presets {wanted:?}"));
    }
    let presets: Vec<_> = presets.collect();
    if presets == wanted { Ok(()) } else { Err(format!("the program has presets {presets:?}, the matrix {wanted:?}")) }
}

/// One preset's file.
struct Table {
    preset: String,
    lines: Vec<String>,
    ingredients: BTreeMap<String, String>,
    rows: BTreeMap<String, [String; 3]>,
}

impl Table {
    fn read(preset: &str) -> Result<Self, String> {
        let text = files::read(format!("tests/cases/matrix/{preset}.md"));
        let mut table = Self { preset: preset.to_owned(), lines: Vec::new(), ingredients: BTreeMap::new(), rows: BTreeMap::new() };
        let (_, rest) = text.split_once("```text\n").ok_or("no fenced block")?;
        let (block, rest) = rest.split_once("```\n").ok_or("the fenced block has no end")?;
        for line in block.lines() {
            match line.split_once(" = ") {
                Some((name, how)) if !name.contains(' ') => drop(table.ingredients.insert(name.to_owned(), how.to_owned())),
                _ => table.lines.push(line.to_owned()),
            }
        }
        for line in rest.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| row ")) {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
            let [name, off, monitor, enforce] = <[String; 4]>::try_from(cells).map_err(|c| format!("not four cells: {c:?}"))?;
            if table.rows.insert(name.clone(), [off, monitor, enforce]).is_some() {
                return Err(format!("{preset}.md has a row twice: {name}"));
            }
        }
        Ok(table)
    }

    fn decide(&self, mode: Option<&str>, changes: &[&str], send: &[&str]) -> Result<String, String> {
        let mode = mode.map(|mode| format!("mode = \"{mode}\""));
        let changes: Vec<_> = mode.into_iter().chain(changes.iter().map(|c| (*c).to_owned())).collect();
        let snapshot = fixture::load(&format!("matrix-{}", self.preset), &changes)?;
        let decision = exchange::decide(&self.request(send)?, &snapshot, &Revocations::default(), NOW);
        Ok(cell(&decision))
    }

    /// The block's lines with the ingredients added where they belong.
    fn request(&self, send: &[&str]) -> Result<Raw, String> {
        let (mut headers, mut query, mut members) = (Vec::new(), Vec::new(), vec!["\"message\": \"hello\"".to_owned()]);
        for name in send {
            let how = self.ingredients.get(*name).ok_or_else(|| format!("{}.md does not say how to send: {name}", self.preset))?;
            let how = tokens::expand_text(how)?;
            match how.split_once(' ') {
                Some(("header", line)) => headers.push(line.to_owned()),
                Some(("query", pair)) => query.push(pair.to_owned()),
                Some(("body", member)) => members.push(member.to_owned()),
                _ => return Err(format!("{name} = header …, query … or body …, not {how}")),
            }
        }
        let mut lines = self.lines.clone();
        let target = lines.first_mut().ok_or("no request line")?;
        if !query.is_empty() {
            *target = target.replace(" HTTP/1.1", &format!("?{} HTTP/1.1", query.join("&")));
        }
        lines.extend(headers);
        let body = format!("{{{}}}", members.join(", ")).into_bytes();
        Ok(Raw::new(lines.iter().map(String::as_bytes), body, Arrival::Whole))
    }
}

/// A decision as a cell.
fn cell(decision: &Decision) -> String {
    match decision {
        Decision::Forward(admitted) => {
            let who = match admitted.caller() {
                Caller::Anonymous => "anonymous".to_owned(),
                Caller::Claimed(id) => format!("claimed {}", id.as_str()),
                Caller::Verified(who, None) => format!("verified {} by {}", who.subject(), who.format().as_str()),
                Caller::Verified(who, Some(_)) => format!("stepped_up {} by {}", who.subject(), who.format().as_str()),
            };
            who + &admitted.would_deny().map(|why| format!(", would deny {}", why.reason)).unwrap_or_default()
        }
        Decision::Deny(denial) => {
            let reason = denial.why.reason;
            format!("{} {reason}", denial.tenant.as_ref().map_or(reason.row().status, |t| t.status(reason)))
        }
        Decision::Preflight(_) | Decision::NeedBody | Decision::Own(_) => format!("{decision:?}"),
    }
}
