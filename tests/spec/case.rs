//! Case files, `tests/cases/**/*.case`. A file is one or more sections between lines of `===`; a section is
//!
//! ```text
//! # why this case exists
//! use basic                      a fixture
//! with audience = "users"        a key of the fixture's first tenant, changed (repeatable)
//! at 1790000000.5                Unix time
//! revoke secret {{…}}            a line of the revocations file (repeatable)
//! body too-large                 what happens when the body is asked for (or too-slow)
//! check nginx                    an ingress asks about it in this convention (or traefik, caddy, envoy)
//! again 2                        the same request came so often before, from the same address
//!
//! POST /chat HTTP/1.1
//! Host: gw.example
//!
//! {"a body": "without its last line feed"}
//! ---
//! the decision, exactly
//! ```
//! A later section starts with the directives of the one before. Macros: see `tokens.rs`.

use doorward::admission::Decision;
use doorward::clock::UnixTime;
use doorward::request::original::Convention;
use doorward::revocations::Revocations;
use doorward::snapshot::Snapshot;
use libtest_mimic::Trial;

use crate::exchange::{self, Arrival, Raw};
use crate::{files, fixture, tokens, trial, updating};

const FOLDER: &str = "tests/cases";

/// One test per file.
pub(crate) fn trials() -> Vec<Trial> {
    let paths = files::below(FOLDER, "case");
    let one = |path: std::path::PathBuf| {
        let name = path.with_extension("").to_string_lossy().into_owned();
        trial(format!("case::{name}"), move || run(&format!("{FOLDER}/{}", path.display())))
    };
    paths.into_iter().map(one).collect()
}

fn run(path: &str) -> Result<(), String> {
    let text = files::read(path);
    let sections = sections(&text)?;
    let mut rewritten = String::new();
    let mut wrong = String::new();
    for (index, section) in sections.iter().enumerate() {
        let got = section.decide().map_err(|e| format!("section {}: {e}", index + 1))?;
        if got != section.expected {
            let request = section.request.first().map_or("", |l| l);
            wrong += &format!("section {} ({request})\nexpected {}\ngot      {got}\n", index + 1, section.expected);
        }
        rewritten += &format!("{}{}---\n{got}\n", if index > 0 { "===\n" } else { "" }, section.upper);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    if !updating() {
        return Err(format!("{path}\n{wrong}"));
    }
    // A matrix is written from the specification; derived expectations would agree with every bug.
    if path.starts_with("tests/cases/matrix/") {
        return Err(format!("{path} is written by hand; UPDATE_CASES does not touch it\n{wrong}"));
    }
    std::fs::write(files::root().join(path), rewritten).map_err(|e| e.to_string())
}

/// One request and the decision expected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    upper: String,
    fixture: String,
    changes: Vec<String>,
    at: Option<UnixTime>,
    revocations: String,
    arrival: Arrival,
    again: usize,
    check: Option<Convention>,
    request: Vec<String>,
    body: String,
    expected: String,
}

impl Section {
    /// The decision that the file expects.
    pub(crate) fn expected(&self) -> &str {
        &self.expected
    }

    fn decide(&self) -> Result<String, String> {
        let snapshot = fixture::load(&self.fixture, &self.changes)?;
        Ok(exchange::describe(&self.decide_by(&snapshot)?))
    }

    /// What another configuration decides about the same request.
    pub(crate) fn decide_by(&self, snapshot: &Snapshot) -> Result<Decision, String> {
        let revocations = Revocations::parse(&self.revocations).map_err(|e| format!("revoke: {e:?}"))?;
        Ok(exchange::decide(&self.raw()?, snapshot, &revocations, self.at()?))
    }

    /// The request.
    pub(crate) fn raw(&self) -> Result<Raw, String> {
        let lines: Vec<_> = self.request.iter().map(|l| tokens::expand(l)).collect::<Result<_, _>>()?;
        let raw = Raw::new(lines.iter().map(Vec::as_slice), tokens::expand(&self.body)?, self.arrival);
        Ok(Raw { before: self.again, check: self.check, ..raw })
    }

    /// When it comes.
    pub(crate) fn at(&self) -> Result<UnixTime, String> {
        self.at.ok_or("no `at`".to_owned())
    }

    /// Its configuration: the fixture, and what is changed of its first tenant.
    pub(crate) fn configured(&self) -> (&str, &[String]) {
        (&self.fixture, &self.changes)
    }
}

/// Reads a case file.
pub(crate) fn sections(text: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    let text = text.strip_suffix('\n').unwrap_or(text);
    for (index, part) in text.split("\n===\n").enumerate() {
        let number = index + 1;
        let (upper, expected) = match part.split_once("\n---\n") {
            Some((upper, expected)) => (format!("{upper}\n"), expected.trim_end().to_owned()),
            None if part.ends_with("\n---") => (part.strip_suffix("---").unwrap_or(part).to_owned(), String::new()),
            None => return Err(format!("section {number}: no line of ---")),
        };
        let mut section = sections.last().cloned().unwrap_or_default();
        section.arrival = Arrival::Whole;
        section.again = 0;
        section.check = None;
        let (directives, request) = upper.split_once("\n\n").ok_or(format!("section {number}: no empty line before the request"))?;
        for line in directives.lines() {
            section.direct(line).map_err(|e| format!("section {number}: {e}"))?;
        }
        let request = request.strip_suffix('\n').unwrap_or(request);
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        section.request = head.lines().map(str::to_owned).collect();
        section.body = body.to_owned();
        section.expected = expected;
        section.upper = upper;
        sections.push(section);
    }
    if !text.starts_with('#') {
        return Err("a case begins with its why: a line that starts with #".to_owned());
    }
    Ok(sections)
}

impl Section {
    fn direct(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "#" => {}
            "use" => {
                self.fixture = rest.to_owned();
                self.changes.clear();
            }
            "with" => self.changes.push(tokens::expand_text(rest)?),
            "at" => self.at = Some(time(rest)?),
            "revoke" => self.revocations += &format!("{}\n", tokens::expand_text(rest)?),
            "check" => self.check = Some(convention(rest)?),
            "again" => self.again = rest.parse().map_err(|_| format!("again {rest}"))?,
            "body" => {
                self.arrival = match rest {
                    "too-large" => Arrival::TooLarge,
                    "too-slow" => Arrival::TooSlow,
                    other => return Err(format!("no body {other}")),
                }
            }
            other => return Err(format!("no directive {other}")),
        }
        Ok(())
    }
}

fn convention(name: &str) -> Result<Convention, String> {
    let all = [Convention::Nginx, Convention::Traefik, Convention::Caddy, Convention::Envoy];
    all.into_iter().find(|convention| convention.as_str() == name).ok_or(format!("check {name}"))
}

/// Unix seconds, with a fraction where the case needs one.
pub(crate) fn time(text: &str) -> Result<UnixTime, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("at {text}"))?;
    Ok(UnixTime::from_millis((seconds * 1000.0).round() as u64))
}
