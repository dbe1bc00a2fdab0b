//! What the head of a backend's answer must be like to be passed on: one way to frame its body, a bounded size, few interim
//! answers before it, and no switch of protocols that nobody asked for (`threats` 29). Asked by [`super::proxy`] for every
//! head, interim ones included. Changes nothing: an answer is passed on, or it is a 502 and its connection is not used again.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::reason::{Denied, Reason};

/// Interim answers (1xx) before an answer. RFC 9110 §15.2 allows any number, and so would the framework.
const MAX_INTERIM: u32 = 16;
/// Bytes of an answer's fields, which the framework holds up to 1 MiB of. Browsers and other proxies take less than this.
const MAX_HEAD: usize = 64 * 1024;

/// Accepts the head of an answer. `interim` counts those before it.
///
/// # Errors
/// `upstream_protocol`, and why.
pub(super) fn accept(session: &Session, answer: &ResponseHeader, interim: &mut u32) -> Result<(), Denied> {
    // Only WebSocket handshakes are admitted with this field; on HTTP/2 there are none.
    let asked = session.req_header().headers.contains_key(UPGRADE) && !session.as_downstream().is_http2();
    judge(answer, asked, interim).map_err(|why| Denied::new(Reason::UpstreamProtocol, why))
}

fn judge(answer: &ResponseHeader, upgrade: bool, interim: &mut u32) -> Result<(), &'static str> {
    let size: usize = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > MAX_HEAD {
        return Err("a head of more than 64 KiB");
    }
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return if upgrade { Ok(()) } else { Err("101 that nobody asked for") };
    }
    if answer.status.is_informational() {
        *interim += 1;
        return if *interim <= MAX_INTERIM { Ok(()) } else { Err("more than 16 interim answers") };
    }
    // What else stands there, the framework would pass on as it is, on a connection that goes on (RFC 9112 §6.1). It removes
    // Content-Length beside it.
    let mut codings = answer.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(_), _) if answer.version != Version::HTTP_11 => return Err("Transfer-Encoding in HTTP/1.0"),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        (Some(_), _) => return Err("Transfer-Encoding is not chunked"),
    }
    // RFC 9110 §8.6, RFC 9112 §6.1: what follows would be taken for the next answer.
    let mut lengths = answer.headers.get_all(CONTENT_LENGTH).iter();
    if answer.status == StatusCode::NO_CONTENT && (answer.headers.contains_key(TRANSFER_ENCODING) || lengths.any(|l| l != "0")) {
        return Err("204 with a body");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, version: Version, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut answer = ResponseHeader::build(status, None).unwrap();
        answer.set_version(version);
        for (name, value) in fields {
            answer.append_header(*name, *value).unwrap();
        }
        answer
    }

    fn judged(status: u16, fields: &[(&'static str, &str)]) -> Result<(), &'static str> {
        judge(&answer(status, Version::HTTP_11, fields), false, &mut 0)
    }

    #[test]
    fn a_body_has_one_framing() {
        let chunked = ("Transfer-Encoding", "chunked");
        for good in [&[][..], &[("Content-Length", "5")], &[chunked], &[("Transfer-Encoding", "Chunked")]] {
            assert_eq!(judged(200, good), Ok(()), "{good:?}");
        }
        for bad in ["identity", "gzip, chunked", "chunked, chunked", "chunked, identity", "xchunked", "chunked;q=1", ""] {
            assert!(judged(200, &[("Transfer-Encoding", bad)]).is_err(), "{bad}");
        }
        assert!(judged(200, &[chunked, chunked]).is_err());
        assert!(judge(&answer(200, Version::HTTP_10, &[chunked]), false, &mut 0).is_err());
        assert_eq!(judge(&answer(200, Version::HTTP_10, &[]), false, &mut 0), Ok(()));
        assert_eq!(judged(204, &[("Content-Length", "0")]), Ok(()), "many say so");
        assert_eq!(judged(304, &[("Content-Length", "6")]), Ok(()), "of the representation");
        assert!(judged(204, &[("Content-Length", "6")]).is_err() && judged(204, &[chunked]).is_err());
    }

    #[test]
    fn heads_and_interim_answers_are_bounded() {
        let half = "a".repeat(MAX_HEAD / 2 - 3);
        assert_eq!(judged(200, &[("x-a", &half), ("x-b", &half)]), Ok(()));
        assert!(judged(200, &[("x-a", &half), ("x-b", &half), ("x-c", "")]).is_err());
        let (hint, mut interim) = (answer(103, Version::HTTP_11, &[]), 0);
        for _ in 0..MAX_INTERIM {
            assert_eq!(judge(&hint, false, &mut interim), Ok(()));
        }
        assert!(judge(&hint, false, &mut interim).is_err());
    }

    #[test]
    fn protocols_are_switched_on_request() {
        let switch = answer(101, Version::HTTP_11, &[("Upgrade", "websocket")]);
        assert_eq!(judge(&switch, true, &mut 0), Ok(()));
        assert!(judge(&switch, false, &mut 0).is_err());
    }
}
