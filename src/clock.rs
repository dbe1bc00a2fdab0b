//! Wall-clock time as a value. Decisions take `now` as an argument; only [`read`] looks at the system clock, and it
//! refuses a clock that cannot be right, so that a machine booting in 1970 denies instead of accepting everything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(u64);

/// 2020-01-01T00:00:00Z: no build of this program is older, so an earlier clock is wrong (`threats` 12).
const EARLIEST_PLAUSIBLE: UnixTime = UnixTime::from_secs(1_577_836_800);

impl UnixTime {
    /// From whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// From milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Seconds with their fraction: what time claims (RFC 7519 `NumericDate`) are compared with.
    pub fn as_secs_f64(self) -> f64 {
        // 2^53 ms is the year 287396: no precision is lost for any time that a clock can show.
        self.0 as f64 / 1000.0
    }

    /// This time plus `by`.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The system clock shows a time before 2020: nothing that depends on time can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBehind;

/// The system's wall clock, read now.
///
/// # Errors
/// [`ClockBehind`] when it shows a time before 2020.
pub fn read() -> Result<UnixTime, ClockBehind> {
    #[allow(clippy::disallowed_methods)] // the one place that may ask
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ClockBehind)?;
    let now = UnixTime(u64::try_from(since.as_millis()).map_err(|_| ClockBehind)?);
    if now < EARLIEST_PLAUSIBLE { Err(ClockBehind) } else { Ok(now) }
}
