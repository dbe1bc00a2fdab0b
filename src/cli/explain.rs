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
        let near = Reason::ALL.iter().max_by(|a, b| {
            let score = |r: &Reason| strsim::jaro_winkler(&code, r.code());
            score(a).total_cmp(&score(b))
        });
        let hint = near.map(|r| format!("; did you mean {}?", r.code())).unwrap_or_default();
        eprintln!("error: there is no reason \"{code}\"{hint}");
        ExitCode::from(2)
    }
}
