//! The one path: what policy matches, what is signed and what is sent are the same bytes (`threats` 25). Percent-encoded
//! unreserved characters are decoded and hex digits upper-cased (RFC 3986 §6.2.2); whatever servers read in two ways is
//! refused instead of guessed.

use std::borrow::Cow;

use crate::reason::{Denied, Reason};

/// A normalised absolute path without dot segments, empty segments, or encoded separators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a>(Cow<'a, str>);

impl<'a> Path<'a> {
    /// Normalises a request target's path.
    ///
    /// # Errors
    /// `request_path_ambiguous` for what servers read differently, `request_malformed` for what is no path.
    pub fn parse(raw: &'a str) -> Result<Self, Denied> {
        let ambiguous = |why: &'static str| Denied::new(Reason::RequestPathAmbiguous, why);
        if raw == "*" {
            return Ok(Self(Cow::Borrowed(raw))); // `OPTIONS *` (RFC 9112 §3.2.4)
        }
        if !raw.starts_with('/') || raw.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
            return Err(Denied::new(Reason::RequestMalformed, "target is not an absolute path of visible ASCII"));
        }
        if raw.bytes().any(|b| matches!(b, b'\\' | b';')) {
            return Err(ambiguous("backslash or semicolon"));
        }
        let path = if raw.contains('%') { Cow::Owned(decode_unreserved(raw)?) } else { Cow::Borrowed(raw) };
        if path.contains("//") {
            return Err(ambiguous("empty segment"));
        }
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(ambiguous("dot segment"));
        }
        Ok(Self(path))
    }

    /// The normalised path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn decode_unreserved(raw: &str) -> Result<String, Denied> {
    let ambiguous = |why: &'static str| Denied::new(Reason::RequestPathAmbiguous, why);
    let mut out = String::with_capacity(raw.len());
    let mut pieces = raw.split('%');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or(ambiguous("incomplete percent-encoding"))?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).map_err(|_| ambiguous("invalid percent-encoding"))?;
        let [byte] = byte;
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Encoded separators and a second layer of encoding: one server splits before decoding, another after.
            b'/' | b'\\' | b'%' | b';' | b'?' | b'#' | 0..=0x1f | 0x7f => {
                return Err(ambiguous("encoded separator, percent sign or control character"));
            }
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

const NORMAL_FORM: &str = "segments are written in normal form: no empty or dot segments, nothing percent-encoded that need not be";

/// A configured path pattern. ASCII case and one trailing slash are ignored, as lenient routers do (`threats` 37); `*` is
/// one whole segment, and a final `/*` covers the path before it and everything below.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    segments: Vec<Segment>,
    rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    Any,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_prefix('/').ok_or("a path pattern starts with /")?;
        if body.starts_with('/') || body.contains("//") {
            return Err(NORMAL_FORM.to_owned());
        }
        let (body, rest) = match body.strip_suffix('*').map(|b| (b, b.strip_suffix('/'))) {
            Some(("", _)) => ("", true),
            Some((_, Some(parent))) => (parent, true),
            _ => (body.strip_suffix('/').unwrap_or(body), false),
        };
        let segments = if body.is_empty() { Vec::new() } else { body.split('/').map(Segment::parse).collect::<Result<_, _>>()? };
        Ok(Self { segments, rest })
    }

    /// Whether every path that `other` covers is covered by this one too.
    pub fn includes(&self, other: &Self) -> bool {
        let wider = |(mine, theirs): (&Segment, &Segment)| match (mine, theirs) {
            (Segment::Any, _) => true,
            (Segment::Literal(mine), Segment::Literal(theirs)) => mine.eq_ignore_ascii_case(theirs),
            (Segment::Literal(_), Segment::Any) => false,
        };
        let as_long = self.segments.len() == other.segments.len() && !other.rest;
        let as_deep = self.rest && self.segments.len() <= other.segments.len();
        (as_long || as_deep) && self.segments.iter().zip(&other.segments).all(wider)
    }

    /// Whether it has a single star, so that it captures anything.
    pub fn has_star(&self) -> bool {
        self.segments.contains(&Segment::Any)
    }

    /// Whether the pattern covers `path`.
    pub fn covers(&self, path: &Path<'_>) -> bool {
        self.captures(path).is_some()
    }

    /// The segments that the pattern's single stars stand for, joined by `/`, where it covers `path`.
    pub fn captures(&self, path: &Path<'_>) -> Option<String> {
        let mut captured = String::new();
        let body = path.as_str().strip_prefix('/')?;
        let body = body.strip_suffix('/').unwrap_or(body);
        let mut sent = body.split('/').filter(|s| !s.is_empty());
        for segment in &self.segments {
            let text = sent.next()?;
            match segment {
                Segment::Literal(literal) if literal.eq_ignore_ascii_case(text) => {}
                Segment::Literal(_) => return None,
                Segment::Any => {
                    if !captured.is_empty() {
                        captured.push('/');
                    }
                    captured.push_str(text);
                }
            }
        }
        (self.rest || sent.next().is_none()).then_some(captured)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains('*') {
            return Err("* stands for one whole segment, or ends the pattern as /*".to_owned());
        }
        match Path::parse(&format!("/{text}")) {
            Ok(path) if path.as_str().get(1..) == Some(text) && !text.is_empty() && !text.contains('?') => {
                Ok(Self::Literal(text.to_owned()))
            }
            _ => Err(NORMAL_FORM.to_owned()),
        }
    }
}
