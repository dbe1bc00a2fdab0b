//! `doorward explain REASON`.

use std::process::ExitCode;

use crate::reason::Reason;

/// Say what a reason code means and what to do about it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  doorward explain subject_mismatch")]
pub struct Explain {
    /// The code in X-Doorward-Reason, in the response's "reason", in metrics and in the audit record; all of them without.
    reason: Option<String>,
}

impl Explain {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let Some(code) = self.reason else {
            for reason in Reason::ALL {
                let row = reason.row();
                println!("{:28} {}  {}", row.code, row.status, row.title);
            }
            return ExitCode::SUCCESS;
        };
        if let Some(reason) = Reason::from_code(&code) {
            let row = reason.row();
            println!("{} ({} {})\n\n{}", row.code, row.status, row.title, row.sentence);
            return ExitCode::SUCCESS;
        }
        let likeness = |r: &&Reason| strsim::jaro_winkler(&code, r.code());
        let near = Reason::ALL.iter().filter(|r| likeness(r) > 0.8).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = near.map_or("; doorward explain lists them".to_owned(), |r| format!("; did you mean {}?", r.code()));
        eprintln!("error: there is no reason \"{code}\"{hint}");
        ExitCode::from(2)
    }
}
