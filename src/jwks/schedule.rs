//! When a key set is fetched: regularly, sooner after a failure, and soon where somebody showed a key that is not known, but
//! never in a flood. Pure: time and chance are arguments.

use std::time::Duration;

/// Least time between two fetches that unknown keys ask for, where `refresh` is not shorter still.
const COOLDOWN: Duration = Duration::from_secs(30);
/// Least time that an answer's `max-age` can ask for, where `refresh` is not shorter still.
const LEAST_AGE: Duration = Duration::from_secs(60);
/// The wait after the first failure; it doubles with every further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How long until the next regular fetch: `refresh`, or sooner where the answer says `max-age` (RFC 9111 §5.2.2.1), less up
/// to a tenth, so that gateways which started together do not ask together. `chance` is from 0 to 1.
pub(super) fn regular(refresh: Duration, max_age: Option<Duration>, chance: f64) -> Duration {
    let age = max_age.unwrap_or(refresh).max(LEAST_AGE).min(refresh);
    age.mul_f64(1.0 - 0.1 * chance)
}

/// How long until the next try after this many failures in a row: doubling, less up to a half.
pub(super) fn retry(refresh: Duration, failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LAST_RETRY).min(refresh).mul_f64(1.0 - 0.5 * chance)
}

/// How long after a fetch that was asked for another one may be.
pub(super) fn cooldown(refresh: Duration) -> Duration {
    COOLDOWN.min(refresh)
}

/// `max-age` of a `Cache-Control` field, without which (and with `no-store` or `no-cache`, which say nothing about keys) the
/// configuration's own time holds.
pub(super) fn max_age<'v>(cache_control: impl Iterator<Item = &'v str>) -> Option<Duration> {
    let mut directives = cache_control.flat_map(|field| field.split(',')).filter_map(|directive| directive.trim().split_once('='));
    let (_, seconds) = directives.find(|(name, _)| name.eq_ignore_ascii_case("max-age"))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_can_ask_for_less_time_and_never_for_more() {
        for (refresh, max_age, expected) in [
            (10 * MINUTE, None, 10 * MINUTE),
            (10 * MINUTE, Some(5 * MINUTE), 5 * MINUTE),
            (10 * MINUTE, Some(60 * MINUTE), 10 * MINUTE),
            (10 * MINUTE, Some(Duration::ZERO), MINUTE),
            (MINUTE / 60, Some(Duration::ZERO), MINUTE / 60),
        ] {
            assert_eq!(regular(refresh, max_age, 0.0), expected, "{refresh:?} {max_age:?}");
            assert_eq!(regular(refresh, max_age, 1.0), expected.mul_f64(0.9), "{refresh:?} {max_age:?}");
        }
    }

    #[test]
    fn failures_double_the_wait_up_to_a_minute() {
        let waits: Vec<_> = (1..=9).map(|failures| retry(10 * MINUTE, failures, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(retry(10 * MINUTE, u32::MAX, 1.0), MINUTE / 2);
        assert_eq!(retry(MINUTE / 30, 9, 0.0), MINUTE / 30, "never later than the regular fetch");
    }

    #[test]
    fn max_age_is_found_in_any_spelling() {
        for (fields, expected) in [
            (&["max-age=15"][..], Some(15)),
            (&["public, MAX-AGE=\"60\" , must-revalidate"], Some(60)),
            (&["public", "max-age=300"], Some(300)),
            (&["s-maxage=9"], None),
            (&["no-store"], None),
            (&["max-age=-1"], None),
            (&["max-age"], None),
            (&[], None),
        ] {
            assert_eq!(max_age(fields.iter().copied()), expected.map(Duration::from_secs), "{fields:?}");
        }
    }
}
