//! Every reason has a case file named after it that ends in it.

use doorward::reason::Reason;
use libtest_mimic::Trial;

use crate::{case, files, trial};

/// Reasons that need a socket, a clock or a fault to happen: the end-to-end tests show them.
const ELSEWHERE: [Reason; 12] = [
    Reason::ClockBehind,
    Reason::GatewayInternal,
    Reason::UpstreamUnreachable,
    Reason::UpstreamTimeout,
    Reason::UpstreamProtocol,
    Reason::ClientDisconnected,
    Reason::BodyTooSlow,
    Reason::GatewayOverloaded,
    Reason::PathNotServed,
    Reason::UpstreamTls,
    Reason::ForwardAuthUntrusted,
    Reason::StreamDrained,
];

/// One test per direction.
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("reasons::each_has_a_case", each_has_a_case), trial("reasons::each_case_has_its_reason", each_case_has_its_reason)]
}

fn each_has_a_case() -> Result<(), String> {
    let missing = |reason: &&Reason| !files::root().join(format!("tests/cases/reason/{reason}.case")).is_file();
    let missing: Vec<_> = Reason::ALL.iter().filter(|r| !ELSEWHERE.contains(r)).filter(missing).map(ToString::to_string).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("no case for {}", missing.join(", "))) }
}

/// The first section shows the reason; the harmless twin and variants may follow.
fn each_case_has_its_reason() -> Result<(), String> {
    for path in files::below("tests/cases/reason", "case") {
        let code = path.file_stem().unwrap().to_string_lossy().into_owned();
        let reason = Reason::from_code(&code).ok_or(format!("{code} is no reason"))?;
        if ELSEWHERE.contains(&reason) {
            return Err(format!("{code} has a case: take it off the list of those that cannot have one"));
        }
        let sections = case::sections(&files::read(format!("tests/cases/reason/{code}.case")))?;
        let words: Vec<_> = sections[0].expected().split([' ', '\n']).collect();
        if words.first() != Some(&"deny") || words.get(2) != Some(&code.as_str()) {
            return Err(format!("{code}.case expects {}", sections[0].expected()));
        }
    }
    Ok(())
}
