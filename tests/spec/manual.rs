//! The manual against the code: the table of reasons is generated, the files that the threats name exist.

use std::fmt::Write as _;

use doorward::reason::{Challenge, Reason};
use libtest_mimic::Trial;

use crate::{files, trial, updating};

/// One test per document.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("manual::reasons_are_the_table", reasons_are_the_table),
        trial("manual::threats_name_their_tests", threats_name_their_tests),
        trial("manual::every_threat_case_is_named", every_threat_case_is_named),
    ]
}

fn reasons_are_the_table() -> Result<(), String> {
    let path = "src/manual/reasons.md";
    let wanted = reasons();
    if files::root().join(path).is_file() && files::read(path) == wanted {
        return Ok(());
    }
    if updating() {
        return std::fs::write(files::root().join(path), wanted).map_err(|e| e.to_string());
    }
    Err(format!("{path} differs from src/reason.rs: UPDATE_CASES=1 rewrites it"))
}

fn reasons() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Every way to stop a request. The code is the same in the answer's body (`reason`), the `X-Doorward-Reason` header, the metrics'\n\
         `reason` label, the audit record and `doorward explain`. The status is the gateway's own; a preset may answer a stage with another\n\
         one (Halo's client acts on 403), the code stays. Generated from `src/reason.rs`.\n\n\
         | code | status | stage | `WWW-Authenticate` | what happened, what to do |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let row = reason.row();
        let challenge = match row.challenge {
            Challenge::No => "",
            Challenge::Bearer => "`Bearer`",
            Challenge::InvalidToken => "`invalid_token`",
            Challenge::StepUp => "`insufficient_user_authentication`",
        };
        let stage = format!("{:?}", row.stage).to_lowercase();
        // Placeholders such as <payload> would be read as HTML.
        let sentence = row.sentence.replace('<', "&lt;").replace('>', "&gt;");
        writeln!(text, "| `{}` | {} | {stage} | {challenge} | **{}.** {sentence} |", row.code, row.status, row.title).unwrap();
    }
    text
}

const THREATS: &str = "src/manual/threats.md";

/// Every number from 1 to 42 has its line, and every file that stands in backticks exists.
fn threats_name_their_tests() -> Result<(), String> {
    let text = files::read(THREATS);
    let mut wrong = Vec::new();
    for number in 1..=42 {
        if !text.lines().any(|l| l.starts_with(&format!("| {number} |"))) {
            wrong.push(format!("threat {number} has no line"));
        }
    }
    for (index, line) in text.lines().enumerate() {
        for path in line.split('`').skip(1).step_by(2).filter(|p| p.starts_with("tests/") || p.starts_with("src/")) {
            if !files::root().join(path).exists() {
                wrong.push(format!("{THREATS}:{}: {path} does not exist", index + 1));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The other way round: no threat case is left out of the table. Cases are named by number.
fn every_threat_case_is_named() -> Result<(), String> {
    let text = files::read(THREATS);
    let unnamed = files::below("tests/cases/threats", "case").into_iter().map(|p| p.to_string_lossy().into_owned());
    let unnamed: Vec<_> = unnamed.filter(|p| !text.contains(p.as_str())).collect();
    if unnamed.is_empty() { Ok(()) } else { Err(format!("{THREATS} does not name {}", unnamed.join(", "))) }
}
