//! Faults: what goes wrong around the gateway, and what it does then. Each module injects some, has a short run that is a test
//! here, and a long one that `make soak` prints as rows of a table (tests/soak).

use std::time::Duration;

pub mod clock;
pub mod kill;
pub mod load;
pub mod site;
pub mod stop;
pub mod terminate;
pub mod upgrade;

/// What a fault did, as a line of the summary.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What went wrong.
    pub fault: &'static str,
    /// Under which load.
    pub load: String,
    /// Requests of those who did nothing wrong.
    pub requests: u64,
    /// Answers that were not the expected ones, or somebody else's.
    pub wrong: u64,
    /// Requests that got no answer, or part of one.
    pub lost: u64,
    /// From the end of the fault to the first good answer.
    pub recovery: Option<Duration>,
    /// What else is worth knowing.
    pub note: String,
}

impl Row {
    /// Fails a test where anything was wrong or lost.
    #[track_caller]
    pub fn clean(&self) {
        let Self { fault, load, requests, wrong, lost, note, .. } = self;
        assert!(*requests > 0 && *wrong == 0 && *lost == 0, "{fault}: {wrong} wrong and {lost} lost of {requests} ({load}; {note})");
    }
}
