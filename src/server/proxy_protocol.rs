//! The PROXY protocol header that a load balancer puts before everything else on a connection: whose connection it passes
//! on. Called for listeners that say so, and for senders that are trusted proxies, by [`super::accept`].

use std::io;
use std::net::IpAddr;

use pingora::protocols::l4::stream::Stream as Socket;
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::AsyncReadExt as _;

use crate::request::forwarded::Peer;

/// Longest header: addresses, and what load balancers add to them.
const LONGEST: usize = 4 * 1024;

/// Reads the header and says who is at the other end: `sender` itself where it speaks for itself (`LOCAL`, `UNKNOWN`).
///
/// # Errors
/// No header, a broken or an endless one: the connection cannot be told from a forged one.
pub(super) async fn read(socket: &mut Socket, sender: Peer) -> io::Result<Peer> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed = HeaderResult::parse(&bytes);
        if parsed.is_complete() {
            let (peer, length) = told(&parsed, sender).ok_or(io::ErrorKind::InvalidData)?;
            socket.rewind(bytes.get(length..).unwrap_or_default());
            return Ok(peer);
        }
        if bytes.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the PROXY header has no end"));
        }
    }
}

fn told(parsed: &HeaderResult<'_>, sender: Peer) -> Option<(Peer, usize)> {
    match parsed {
        HeaderResult::V1(header) => {
            let header = header.as_ref().ok()?;
            let source = match &header.addresses {
                v1::Addresses::Tcp4(addresses) => Peer::Address(IpAddr::V4(addresses.source_address)),
                v1::Addresses::Tcp6(addresses) => Peer::Address(IpAddr::V6(addresses.source_address).to_canonical()),
                v1::Addresses::Unknown => sender,
            };
            Some((source, header.header.len()))
        }
        HeaderResult::V2(header) => {
            let header = header.as_ref().ok()?;
            let source = match &header.addresses {
                _ if header.command == v2::Command::Local => sender,
                v2::Addresses::IPv4(addresses) => Peer::Address(IpAddr::V4(addresses.source_address)),
                v2::Addresses::IPv6(addresses) => Peer::Address(IpAddr::V6(addresses.source_address).to_canonical()),
                v2::Addresses::Unix(_) | v2::Addresses::Unspecified => sender,
            };
            Some((source, header.header.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Peer = Peer::Unknown;

    fn of(bytes: &[u8]) -> Option<(Peer, usize)> {
        let parsed = HeaderResult::parse(bytes);
        parsed.is_complete().then(|| told(&parsed, SENDER)).flatten()
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend_from_slice(&[0x20 | command, family, 0, u8::try_from(rest.len()).unwrap()]);
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn both_versions_name_the_client() {
        let client = Peer::Address("203.0.113.9".parse().unwrap());
        let line = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n";
        assert_eq!(of(&[&line[..], b"GET / HTTP/1.1\r\n"].concat()), Some((client, line.len())));
        assert_eq!(of(b"PROXY UNKNOWN\r\n"), Some((SENDER, 15)));
        let v6 = b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n";
        assert_eq!(of(v6), Some((client, v6.len())));
        let addresses = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
        let binary = v2(1, 0x11, &addresses);
        assert_eq!(of(&[&binary[..], b"\x16\x03"].concat()), Some((client, binary.len())));
        let with_more = v2(1, 0x11, &[&addresses[..], &[4, 0, 1, 0]].concat());
        assert_eq!(of(&with_more), Some((client, with_more.len())));
        assert_eq!(of(&v2(0, 0x11, &addresses)), Some((SENDER, 28)), "LOCAL speaks for the sender");
        assert_eq!(of(&v2(0, 0, &[])), Some((SENDER, 16)));
    }

    #[test]
    fn anything_else_is_none() {
        let addresses = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
            b"PROXY TCP4 nobody 10.0.0.1 4711 443\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
            &v2(1, 0x11, &addresses[..8]),
            &v2(7, 0x11, &addresses),
        ] {
            assert_eq!(of(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
