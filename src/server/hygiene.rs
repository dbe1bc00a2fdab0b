//! What the framework's parser lets through or mends and we refuse (`threats` 24), read from the bytes as they came: the
//! parsed head no longer shows a space in the target, a Content-Length beside a Transfer-Encoding, a bare line feed, a
//! folded line or an absolute target. Called once per request head by [`super::wire`], as soon as its last byte is in.

/// How the bytes after a head are to be read (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes of body, often none.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// A handshake: after a 101 the bytes are another protocol's.
    Opaque,
}

/// Judges a raw HTTP/1.x head: the request line and header lines up to and including the empty one, and at most one empty
/// line before them (RFC 9112 §2.2).
///
/// # Errors
/// What was wrong: something that two parsers could read differently.
pub(super) fn judge(raw: &[u8]) -> Result<Framing, &'static str> {
    let mut lines = Lines(raw.strip_prefix(b"\r\n").unwrap_or(raw));
    let (target, is_11) = request_line(lines.next().ok_or("no request line")??)?;
    let mut fields = Fields::default();
    for line in lines {
        let line = line?;
        if !line.is_empty() {
            fields.read(line)?;
        }
    }
    judge_target(target, fields.host.unwrap_or_default())?;
    fields.framing(is_11)
}

/// A `token` character (RFC 9110 §5.6.2).
pub(super) fn is_token(b: &u8) -> bool {
    TOKEN.checked_shr(u32::from(*b)).is_some_and(|bits| bits & 1 == 1)
}

/// One bit for each `token` character: most bytes of a head's names are asked about, so one shift instead of comparisons.
const TOKEN: u128 = {
    let characters = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (mut bits, mut rest) = (0, characters.as_slice());
    while let [first, others @ ..] = rest {
        bits |= 1 << *first;
        rest = others;
    }
    bits
};

/// Lines without their CRLF; a line that ends otherwise, or has control characters, is an error.
struct Lines<'r>(&'r [u8]);

impl<'r> Iterator for Lines<'r> {
    type Item = Result<&'r [u8], &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at_checked(end + 1)?;
        self.0 = rest;
        let Some(line) = line.strip_suffix(b"\r\n") else { return Some(Err("bare line feed")) };
        // Without an early end the compiler makes vector code of it.
        let control = line.iter().fold(false, |found, b| found | ((*b < b' ') & (*b != b'\t')) | (*b == 0x7f));
        Some(if control { Err("bare carriage return or control character") } else { Ok(line) })
    }
}

/// The target, and whether the version is HTTP/1.1 (rather than 1.0).
fn request_line(line: &[u8]) -> Result<(&[u8], bool), &'static str> {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("request line is not method, target and version");
    };
    if method.is_empty() || !method.iter().all(is_token) {
        return Err("method is not a token");
    }
    match version {
        b"HTTP/1.1" => Ok((target, true)),
        b"HTTP/1.0" => Ok((target, false)),
        _ => Err("version is not HTTP/1.1 or HTTP/1.0"),
    }
}

/// RFC 9112 §3.2: origin-form, `*`, or absolute-form whose authority is the Host's; no fragment, visible ASCII only.
fn judge_target(target: &[u8], host: &[u8]) -> Result<(), &'static str> {
    if target.contains(&b'#') || !target.iter().all(u8::is_ascii_graphic) {
        return Err("fragment, space, control or non-ASCII in the target");
    }
    if target.starts_with(b"/") || target == b"*" {
        return Ok(());
    }
    let after =
        |scheme: &[u8]| target.split_at_checked(scheme.len()).filter(|(start, _)| start.eq_ignore_ascii_case(scheme)).map(|(_, r)| r);
    let rest = after(b"http://").or_else(|| after(b"https://")).ok_or("target is no path")?;
    let authority = rest.split(|b| matches!(b, b'/' | b'?')).next().unwrap_or_default();
    if authority.eq_ignore_ascii_case(host) { Ok(()) } else { Err("Host differs from the target's authority") }
}

/// The fields that decide where a request ends and whom it is for.
#[derive(Default)]
struct Fields<'r> {
    host: Option<&'r [u8]>,
    length: Option<&'r [u8]>,
    encoding: Option<&'r [u8]>,
    upgrade: bool,
}

impl<'r> Fields<'r> {
    fn read(&mut self, line: &'r [u8]) -> Result<(), &'static str> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err("folded header line");
        }
        let colon = memchr::memchr(b':', line).ok_or("header line without a colon")?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        if name.is_empty() || !name.iter().all(is_token) {
            return Err("header name is not a token");
        }
        let place = match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => &mut self.host,
            14 if name.eq_ignore_ascii_case(b"content-length") => &mut self.length,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => &mut self.encoding,
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii(); // no control but tab is left to trim
        if place.replace(value).is_some() { Err("Host or a framing header sent twice") } else { Ok(()) }
    }

    /// RFC 9112 §6: one Content-Length of digits, or one `Transfer-Encoding: chunked`, never both.
    fn framing(&self, is_11: bool) -> Result<Framing, &'static str> {
        let framing = match (self.length, self.encoding) {
            (Some(_), Some(_)) => return Err("Content-Length beside Transfer-Encoding"),
            (None, Some(_)) if !is_11 => return Err("Transfer-Encoding, not in HTTP/1.1"),
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (None, Some(_)) => return Err("Transfer-Encoding other than chunked"),
            (Some(length), None) => Framing::Length(digits(length).ok_or("Content-Length is not a plain number")?),
            (None, None) => Framing::Length(0),
        };
        match framing {
            // What follows would be both a body and the other protocol's first bytes.
            Framing::Length(1..) | Framing::Chunked if self.upgrade => Err("a body in a handshake"),
            Framing::Length(0) if self.upgrade => Ok(Framing::Opaque),
            Framing::Length(_) | Framing::Chunked | Framing::Opaque => Ok(framing),
        }
    }
}

/// Digits only; a leading zero is octal to some.
fn digits(text: &[u8]) -> Option<u64> {
    let plain = text == b"0" || (!text.starts_with(b"0") && text.iter().all(u8::is_ascii_digit));
    plain.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_its_body_is_framed() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Framing::Length(0)),
            ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Framing::Length(0)),
            ("GET HTTP://H:80?x HTTP/1.1\r\nHost:h:80\r\n\r\n", Framing::Length(0)),
            ("POST / HTTP/1.1\r\ncontent-LENGTH:\t 18446744073709551615 \r\n\r\n", Framing::Length(u64::MAX)),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Framing::Length(0)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", Framing::Opaque),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", Framing::Opaque),
            ("m!#$%&'*+-.^_`|~0 / HTTP/1.1\r\nx:\u{e9}\ta\r\nempty:\r\n\r\n", Framing::Length(0)),
        ] {
            assert_eq!(judge(head.as_bytes()), Ok(framing), "{head:?}");
        }
    }

    #[test]
    fn a_head_with_two_readings_is_refused() {
        for head in [
            "\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "GET HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET\t/ HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /a\tb HTTP/1.1\r\n\r\n",
            "GET /a\u{1}b HTTP/1.1\r\n\r\n",
            "GET /a\u{7f} HTTP/1.1\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "GET a HTTP/1.1\r\n\r\n",
            "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://g/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://g/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\rHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
            "GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n x: a\r\n\r\n",
            "GET / HTTP/1.1\r\nx : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nx\r\n\r\n",
            "GET / HTTP/1.1\r\nx\u{e9}: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 01\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 00\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(judge(head.as_bytes()).is_err(), "{head:?}");
        }
    }
}
