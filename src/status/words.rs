//! What counts mean to an operator: is a tenant safe to enforce, is a secret safe to remove. A verdict says what it stands
//! on, how long was watched and how many came, and what it cannot know. Pure; called when the page is
//! gathered.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::observe::history::SinceMode;
use crate::policy::Mode;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Shorter than this says little: a day has every hour in it.
pub const LONG_ENOUGH: Duration = Duration::from_secs(DAY);
/// Fewer requests than this say little.
pub const MANY_ENOUGH: u64 = 1000;

/// How a verdict looks. The words say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Go ahead.
    Good,
    /// Not known yet.
    Wait,
    /// Do not.
    Bad,
    /// Nothing to decide.
    Quiet,
}

impl Tone {
    /// The CSS class.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wait => "wait",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }
}

/// An answer, and what it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How it looks.
    pub tone: Tone,
    /// The answer in two or three words.
    pub short: &'static str,
    /// What it stands on.
    pub sentence: String,
}

impl Verdict {
    fn new(tone: Tone, short: &'static str, sentence: impl Into<String>) -> Self {
        Self { tone, short, sentence: sentence.into() }
    }

    /// For a key that an issuer publishes.
    pub fn issuers() -> Self {
        Self::new(Tone::Quiet, "its issuer's", "Its issuer adds and removes it.")
    }

    /// For a tenant that has no counts of its own.
    pub fn shared() -> Self {
        let sentence = "Beyond metrics.max_tenants: it is counted together with others. Raise that, or read its audit records.";
        Self::new(Tone::Quiet, "not known", sentence)
    }
}

/// Whether a tenant is safe to enforce. `hour` is how many requests went on in the last hour, and how many of them enforce
/// would have denied.
pub fn safe_to_enforce(mode: Mode, since: SinceMode, hour: (u64, u64)) -> Verdict {
    let (watched, seen) = (long(since.watched), number(since.forwarded));
    match mode {
        Mode::Enforce => Verdict::new(Tone::Quiet, "enforced", "What it denies is under recent denials."),
        Mode::Off => {
            Verdict::new(Tone::Quiet, "not known", "Mode off looks at no token, so nobody can tell. Set mode = \"monitor\" and come back.")
        }
        Mode::Monitor if since.forwarded == 0 => {
            Verdict::new(Tone::Wait, "nothing seen", format!("No request went on in {watched} of watching."))
        }
        Mode::Monitor if hour.1 > 0 => Verdict::new(
            Tone::Bad,
            "not yet",
            format!(
                "Enforce would have denied {} of {} in the last hour, and {} of {seen} in {watched} of watching.",
                number(hour.1),
                many(hour.0, "request"),
                number(since.would_deny)
            ),
        ),
        Mode::Monitor if since.would_deny > 0 => Verdict::new(
            Tone::Wait,
            "not yet sure",
            format!(
                "None in the last hour, but enforce would have denied {} of {} in {watched} of watching. If what caused them is mended, a day without one says so.",
                number(since.would_deny),
                many(since.forwarded, "request"),
            ),
        ),
        Mode::Monitor if since.watched < LONG_ENOUGH || since.forwarded < MANY_ENOUGH => Verdict::new(
            Tone::Wait,
            "too early to say",
            format!(
                "None of {} in {watched} of watching would have been denied. A day and {} requests are the least to go by.",
                many(since.forwarded, "request"),
                number(MANY_ENOUGH)
            ),
        ),
        Mode::Monitor => Verdict::new(
            Tone::Good,
            "looks safe",
            format!("None of {seen} requests in {watched} of watching would have been denied. Who did not come in that time is not in it."),
        ),
    }
}

/// What is known about a secret.
#[derive(Clone, Copy, Debug)]
pub struct SecretSeen {
    /// The tenant's mode.
    pub mode: Mode,
    /// Tokens it verified.
    pub uses: u64,
    /// When it last did.
    pub last: Option<UnixTime>,
    /// For how long it was watched.
    pub watched: Duration,
    /// Its time has not begun.
    pub early: bool,
    /// Its time is over.
    pub over: bool,
    /// No other live secret takes its format.
    pub only: bool,
}

/// Whether a secret is safe to remove.
pub fn safe_to_remove(seen: SecretSeen, now: UnixTime) -> Verdict {
    let watched = long(seen.watched);
    let since_last = seen.last.map(|last| Duration::from_millis(now.millis().saturating_sub(last.millis())));
    let used = seen.last.map_or(String::new(), |last| format!("Last used {}, {} so far. ", ago(last, now), many(seen.uses, "time")));
    if seen.over {
        return Verdict::new(Tone::Good, "its time is over", format!("{used}It verifies nothing any more."));
    }
    if seen.early {
        return Verdict::new(Tone::Quiet, "its time has not begun", "It verifies nothing yet.");
    }
    match since_last {
        _ if seen.mode == Mode::Off => Verdict::new(Tone::Quiet, "not known", "Mode off looks at no token, so nobody can tell."),
        Some(since) if since < Duration::from_secs(HOUR) => Verdict::new(Tone::Bad, "in use", used.trim_end()),
        Some(since) if since < LONG_ENOUGH => Verdict::new(
            Tone::Wait,
            "used lately",
            format!("{used}Tokens that it signed may still be around: wait for the longest life that they have, and a day at least."),
        ),
        None if seen.watched < LONG_ENOUGH => Verdict::new(
            Tone::Wait,
            "too early to say",
            format!("Never used in {watched} of watching; a day is the least. What was before this process started is not known."),
        ),
        Some(_) | None if seen.only => Verdict::new(
            Tone::Wait,
            "the only one",
            format!("{used}Not used for a day or more, but no other live secret takes its tokens: without it they are all refused."),
        ),
        Some(_) => Verdict::new(Tone::Good, "looks removable", format!("{used}Clients that come more rarely than that are not in it.")),
        None => Verdict::new(
            Tone::Good,
            "looks removable",
            format!("Never used in {watched} of watching. Clients that come more rarely than that are not in it."),
        ),
    }
}

/// A number with its thousands apart.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things.
pub fn many(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// A duration in its two largest units.
pub fn long(duration: Duration) -> String {
    let secs = duration.as_secs();
    let two =
        |big: u64, one: &str, small: u64, two: &str| if small == 0 { format!("{big} {one}") } else { format!("{big} {one} {small} {two}") };
    match secs {
        0..MINUTE => format!("{secs} s"),
        MINUTE..HOUR => format!("{} min", secs / MINUTE),
        HOUR..DAY => two(secs / HOUR, "h", secs % HOUR / MINUTE, "min"),
        _ => two(secs / DAY, "d", secs % DAY / HOUR, "h"),
    }
}

/// How long ago a time was.
pub fn ago(then: UnixTime, now: UnixTime) -> String {
    match now.millis().checked_sub(then.millis()) {
        None => "in the future".to_owned(), // the clock was set back
        Some(millis) if millis < 1000 => "just now".to_owned(),
        Some(millis) => format!("{} ago", long(Duration::from_millis(millis))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(hours: u64, forwarded: u64, would_deny: u64, hour: (u64, u64)) -> Verdict {
        safe_to_enforce(Mode::Monitor, SinceMode { watched: Duration::from_secs(hours * HOUR), forwarded, would_deny }, hour)
    }

    #[test]
    fn a_tenant_is_safe_after_a_day_of_many_without_one() {
        for (verdict, short, tone) in [
            (monitor(48, 5000, 0, (10, 0)), "looks safe", Tone::Good),
            (monitor(24, 1000, 0, (0, 0)), "looks safe", Tone::Good),
            (monitor(23, 5000, 0, (10, 0)), "too early to say", Tone::Wait),
            (monitor(48, 999, 0, (10, 0)), "too early to say", Tone::Wait),
            (monitor(48, 5000, 1, (10, 0)), "not yet sure", Tone::Wait),
            (monitor(48, 5000, 1, (10, 1)), "not yet", Tone::Bad),
            (monitor(48, 0, 0, (0, 0)), "nothing seen", Tone::Wait),
        ] {
            assert_eq!((verdict.short, verdict.tone), (short, tone), "{}", verdict.sentence);
        }
        assert_eq!(
            monitor(50, 12_345, 7, (1200, 2)).sentence,
            "Enforce would have denied 2 of 1,200 requests in the last hour, and 7 of 12,345 in 2 d 2 h of watching."
        );
    }

    #[test]
    fn a_secret_is_removable_after_a_day_without_use_unless_it_is_the_only_one() {
        let now = UnixTime::from_secs(1_800_000_000);
        let seen = |last: Option<u64>, hours: u64, only| SecretSeen {
            mode: Mode::Enforce,
            uses: last.map_or(0, |_| 3),
            last: last.map(|ago| UnixTime::from_secs(1_800_000_000 - ago)),
            watched: Duration::from_secs(hours * HOUR),
            early: false,
            over: false,
            only,
        };
        let short = |seen| safe_to_remove(seen, now).short;
        assert_eq!(short(seen(Some(60), 100, false)), "in use");
        assert_eq!(short(seen(Some(HOUR), 100, false)), "used lately");
        assert_eq!(short(seen(Some(DAY), 100, false)), "looks removable");
        assert_eq!(short(seen(Some(DAY), 100, true)), "the only one");
        assert_eq!(short(seen(None, 23, false)), "too early to say");
        assert_eq!(short(seen(None, 24, false)), "looks removable");
        assert_eq!(short(seen(None, 24, true)), "the only one");
        assert_eq!(short(SecretSeen { over: true, ..seen(Some(60), 1, true) }), "its time is over");
        assert_eq!(short(SecretSeen { early: true, ..seen(None, 1, false) }), "its time has not begun");
        assert_eq!(short(SecretSeen { mode: Mode::Off, ..seen(None, 100, false) }), "not known");
        assert_eq!(safe_to_remove(seen(Some(60), 1, false), now).sentence, "Last used 1 min ago, 3 times so far.");
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!([0, 7, 999, 1000, 1_234_567].map(number), ["0", "7", "999", "1,000", "1,234,567"]);
        let long = |secs| long(Duration::from_secs(secs));
        assert_eq!(
            [0, 59, 60, 3599, 3600, 3660, 86_400, 90_000].map(long),
            ["0 s", "59 s", "1 min", "59 min", "1 h", "1 h 1 min", "1 d", "1 d 1 h"]
        );
        let at = UnixTime::from_millis;
        assert_eq!([ago(at(5), at(900)), ago(at(0), at(61_000)), ago(at(9), at(0))], ["just now", "1 min ago", "in the future"]);
    }
}
