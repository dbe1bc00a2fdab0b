//! Wall-clock time as a value. Decisions take `now` as an argument; only [`read`] looks at the system clock, and it
//! refuses a clock that cannot be right, so that a machine booting in 1970 denies instead of accepting everything.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

/// 2020-01-01T00:00:00Z: no build of this program is older, so an earlier clock is wrong (`threats` 12).
const EARLIEST_PLAUSIBLE: UnixTime = UnixTime::from_secs(1_577_836_800);

impl UnixTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

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

/// A step of the wall clock that is worth a word: the default leeway.
const STEP: Duration = Duration::from_secs(60);

/// Compares the wall clock with the monotonic one, which nobody can set (`threats` 12).
#[derive(Debug)]
pub struct Watch {
    last: Option<(UnixTime, Instant)>,
}

impl Watch {
    /// Starts with the next look.
    #[allow(clippy::new_without_default)] // a watch that starts now is no default
    pub fn new() -> Self {
        Self { last: None }
    }

    /// By how many seconds the wall clock was set since the last look, where that is more than a minute.
    pub fn look(&mut self) -> Option<i64> {
        self.compare(read().ok()?, Instant::now())
    }

    fn compare(&mut self, wall: UnixTime, steady: Instant) -> Option<i64> {
        let (last_wall, last_steady) = self.last.replace((wall, steady))?;
        let expected = last_wall.plus(steady.saturating_duration_since(last_steady));
        let ahead = i64::try_from(wall.millis()).ok()?.checked_sub(i64::try_from(expected.millis()).ok()?)?;
        (ahead.unsigned_abs() > STEP.as_millis() as u64).then_some(ahead / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_noticed_once_and_a_slow_look_is_none() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let wall = |secs: u64| UnixTime::from_secs(1_800_000_000 + secs);
        let mut watch = Watch::new();
        assert_eq!(watch.compare(wall(0), at(0)), None, "nothing to compare with");
        assert_eq!(watch.compare(wall(3600), at(3600)), None, "an hour passed on both");
        assert_eq!(watch.compare(wall(3670), at(3610)), None, "a minute is forgiven");
        assert_eq!(watch.compare(wall(7280), at(3620)), Some(3600));
        assert_eq!(watch.compare(wall(7290), at(3630)), None, "said once");
        assert_eq!(watch.compare(wall(3690), at(3640)), Some(-3610));
    }
}
