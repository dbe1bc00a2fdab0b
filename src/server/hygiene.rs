//! What the framework's parser lets through and we refuse (`threats` 24), read from the bytes as they came: the parsed head
//! no longer shows a Content-Length beside a Transfer-Encoding, a bare line feed, a folded line or an absolute target.
//! Called once per request, before [`crate::request::RequestHead::parse`].

use crate::reason::{Denied, Reason};

/// Judges a raw HTTP/1.1 head: the request line and header lines up to the empty one.
///
/// # Errors
/// `request_malformed` for what two parsers could read differently.
pub(super) fn judge(raw: &[u8]) -> Result<(), Denied> {
    let malformed = |why: &'static str| Denied::new(Reason::RequestMalformed, why);
    let mut lines = raw.split_inclusive(|b| *b == b'\n');
    let request_line = lines.next().ok_or(malformed("no request line"))?;
    let mut host: &[u8] = b"";
    let (mut length, mut encoding) = (false, false);
    for line in std::iter::once(request_line).chain(lines.clone()) {
        let content = line.strip_suffix(b"\r\n").ok_or(malformed("bare line feed"))?;
        if content.contains(&b'\r') {
            return Err(malformed("bare carriage return"));
        }
    }
    for line in lines {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(malformed("folded header line"));
        }
        let mut halves = line.splitn(2, |b| *b == b':');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        length |= name.eq_ignore_ascii_case(b"content-length");
        encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
        if name.eq_ignore_ascii_case(b"host") {
            host = value.trim_ascii();
        }
    }
    if length && encoding {
        return Err(malformed("Content-Length beside Transfer-Encoding"));
    }
    judge_target(request_line, host)
}

/// RFC 9112 §3.2: origin-form, `*`, or absolute-form whose authority is the Host's; no fragment, visible ASCII only.
fn judge_target(request_line: &[u8], host: &[u8]) -> Result<(), Denied> {
    let malformed = |why: &'static str| Denied::new(Reason::RequestMalformed, why);
    let mut words = request_line.trim_ascii_end().split(|b| *b == b' ');
    let (Some(_), Some(target), Some(_), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(malformed("request line is not method, target and version"));
    };
    if target.contains(&b'#') || !target.iter().all(u8::is_ascii_graphic) {
        return Err(malformed("fragment, space, control or non-ASCII in the target"));
    }
    if target.starts_with(b"/") || target == b"*" {
        return Ok(());
    }
    let lower = target.to_ascii_lowercase();
    let rest = lower.strip_prefix(b"http://").or(lower.strip_prefix(b"https://")).ok_or(malformed("target is no path"))?;
    let authority = rest.split(|b| matches!(b, b'/' | b'?')).next().unwrap_or_default();
    if authority.eq_ignore_ascii_case(host) { Ok(()) } else { Err(malformed("Host differs from the target's authority")) }
}
