//! W3C Trace Context: a caller's trace is continued, or one is started. Reads and writes `traceparent`; nothing is decided
//! by it and nothing is trusted: an id that joins logs, no more. `tracestate` goes with a trace that is continued and is
//! dropped with one that is not (Trace Context §3.2, §4.3).

use http::{HeaderMap, HeaderName};

/// The header that names the trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The `sampled` flag. A trace that starts here has it: a backend that follows its parent would record nothing otherwise.
const SAMPLED: u8 = 1;

/// The trace that a request belongs to, and the gateway's own span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 16],
    span: [u8; 8],
    sampled: bool,
    /// The caller's span, where the trace is the caller's.
    parent: Option<[u8; 8]>,
}

/// How many of the traces that start here are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRatio(u64);

impl SampleRatio {
    /// From 0 (none) to 1 (all).
    pub fn new(ratio: f64) -> Option<Self> {
        // 2^63 is what 63 random bits stay below.
        (0.0..=1.0).contains(&ratio).then_some(Self((ratio * 9_223_372_036_854_775_808.0) as u64))
    }

    /// Decided by the trace's id, as every OpenTelemetry SDK decides (`TraceIdRatioBased`): services with one ratio agree.
    fn takes(self, id: [u8; 16]) -> bool {
        let [_, _, _, _, _, _, _, _, low @ ..] = id;
        u64::from_be_bytes(low) >> 1 < self.0
    }
}

impl Trace {
    /// The trace that `headers` name, else one with the id `fresh`; `span` is the gateway's in either. Neither may be all
    /// zeros: random bytes are not.
    pub fn of(headers: &HeaderMap, fresh: [u8; 16], span: [u8; 8]) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = values.next().filter(|_| values.next().is_none());
        match only.and_then(|value| parse(value.as_bytes())) {
            Some((id, parent, flags)) => Self { id, span, sampled: flags & SAMPLED != 0, parent: Some(parent) },
            None => Self { id: fresh, span, sampled: true, parent: None },
        }
    }

    /// The same, sampled by this ratio where it starts here. What a caller decided stays: a trace is sampled whole.
    pub fn sampled_by(self, ratio: SampleRatio) -> Self {
        if self.is_continued() { self } else { Self { sampled: ratio.takes(self.id), ..self } }
    }

    /// Whether whoever traces should record it.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The ids of the trace, of the gateway's span, and of the caller's where there is one.
    pub fn ids(&self) -> ([u8; 16], [u8; 8], Option<[u8; 8]>) {
        (self.id, self.span, self.parent)
    }

    /// The trace's id, 32 hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// Whether it was the caller's: then its `tracestate` goes on too.
    pub fn is_continued(&self) -> bool {
        self.parent.is_some()
    }

    /// `traceparent` for the upstream, whose parent is the gateway.
    pub fn header(&self) -> String {
        format!("00-{}-{}-{:02x}", hex::encode(self.id), hex::encode(self.span), u8::from(self.sampled))
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`, all lower-case hexadecimal (Trace Context §3.2.2). A version that is not
/// known yet may have more behind it.
fn parse(value: &[u8]) -> Option<([u8; 16], [u8; 8], u8)> {
    let (known, more) = value.split_at_checked(55)?;
    let mut parts = known.split(|b| *b == b'-');
    let [version] = digits(parts.next()?)?;
    let id: [u8; 16] = digits(parts.next()?)?;
    let parent: [u8; 8] = digits(parts.next()?)?;
    let [flags] = digits(parts.next()?)?;
    let length = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    (length && parts.next().is_none() && id != [0; 16] && parent != [0; 8]).then_some((id, parent, flags))
}

fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn of(values: &[&str]) -> Trace {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        Trace::of(&headers, [0xab; 16], [0xcd; 8])
    }

    #[test]
    fn a_valid_parent_is_continued() {
        for (value, flags) in [
            (format!("00-{ID}-{PARENT}-01"), "01"),
            (format!("00-{ID}-{PARENT}-00"), "00"),
            (format!("00-{ID}-{PARENT}-ff"), "01"),
            (format!("00-{ID}-{PARENT}-02"), "00"),
            (format!("01-{ID}-{PARENT}-01"), "01"),
            (format!("cc-{ID}-{PARENT}-01-what-the-future-will-be-like"), "01"),
        ] {
            let trace = of(&[&value]);
            assert!(trace.is_continued(), "{value}");
            assert_eq!((trace.id(), trace.header()), (ID.to_owned(), format!("00-{ID}-cdcdcdcdcdcdcdcd-{flags}")), "{value}");
        }
    }

    #[test]
    fn a_ratio_samples_what_starts_here_and_leaves_what_goes_on() {
        let started = |low: u64| Trace { id: (0xab_u128 << 64 | u128::from(low)).to_be_bytes(), span: [1; 8], sampled: true, parent: None };
        for (ratio, low, sampled) in [
            (0.0, 0, false),
            (1.0, u64::MAX, true),
            (0.5, u64::MAX / 2, true),
            (0.5, u64::MAX / 2 + 1, false),
            (0.25, u64::MAX / 4, true),
            (0.25, u64::MAX / 2, false),
        ] {
            assert_eq!(started(low).sampled_by(SampleRatio::new(ratio).unwrap()).is_sampled(), sampled, "{ratio} {low}");
        }
        for (flags, sampled) in [("00", false), ("01", true)] {
            let trace = of(&[&format!("00-{ID}-{PARENT}-{flags}")]);
            assert_eq!(trace.sampled_by(SampleRatio::new(1.0).unwrap()).is_sampled(), sampled);
            assert_eq!(trace.sampled_by(SampleRatio::new(0.0).unwrap()).is_sampled(), sampled);
            assert_eq!(trace.ids().2.map(hex::encode).as_deref(), Some(PARENT));
        }
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(SampleRatio::new(wrong), None);
        }
    }

    #[test]
    fn anything_else_starts_a_trace() {
        let good = format!("00-{ID}-{PARENT}-01");
        let zero = "0".repeat(32);
        for value in [
            String::new(),
            "x".to_owned(),
            format!("ff-{ID}-{PARENT}-01"),
            format!("00-{ID}-{PARENT}-01-more"),
            format!("00-{ID}-{PARENT}-01-"),
            format!("cc-{ID}-{PARENT}-01.more"),
            format!("00-{zero}-{PARENT}-01"),
            format!("00-{ID}-0000000000000000-01"),
            good.to_uppercase(),
            format!("00-{ID}-{PARENT}-1"),
            format!("00-{ID}-{PARENT}"),
            format!("00-{ID}-{PARENT}-0x"),
            format!("0-0{ID}-{PARENT}-01"),
            format!("00-{ID}_{PARENT}-01"),
            format!(" {good}").trim_end().to_owned(),
        ] {
            let trace = of(&[&value]);
            assert!(!trace.is_continued(), "{value}");
            assert_eq!(trace.header(), format!("00-{}-cdcdcdcdcdcdcdcd-01", "ab".repeat(16)), "{value}");
        }
        assert!(!of(&[]).is_continued());
        assert!(!of(&[&good, &good]).is_continued(), "two of them");
    }
}
