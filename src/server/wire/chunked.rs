//! The chunked transfer coding (RFC 9112 §7.1) read strictly, as it passes by: where the body ends, or the first byte that
//! two parsers could read differently. Keeps nothing but its place. Called by [`super::watcher`] only.

use crate::server::hygiene::is_token;

/// Most bytes of one chunk-size line with its extensions.
const MAX_LINE: usize = 256;
/// Most hexadecimal digits of a chunk size.
const MAX_DIGITS: usize = 16;
/// Most bytes of a trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// A place within a chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    /// Bytes of data to come.
    size: u64,
    /// Bytes of the chunk-size line, or of the trailer section, so far.
    length: usize,
}

/// What a number of bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of them belong to the body, which goes on.
    More,
    /// The body ended after this many.
    Done(usize),
    /// The byte at this index is refused.
    Broken(usize, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Name,
    NameRest,
    Value,
    ValueRest,
    Quoted,
    Escaped,
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { at: At::Size, size: 0, length: 0 }
    }

    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Progress {
        let mut index = 0;
        while let Some(byte) = bytes.get(index) {
            if self.at == At::Data {
                let left = bytes.len() - index;
                let data = usize::try_from(self.size).map_or(left, |size| size.min(left));
                self.size -= data as u64;
                index += data;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            self.at = match self.step(*byte) {
                Ok(at) => at,
                Err(why) => return Progress::Broken(index, why),
            };
            index += 1;
            if self.at == At::Done {
                return Progress::Done(index);
            }
        }
        Progress::More
    }

    /// `1*HEXDIG *( ";" token [ "=" ( token / quoted-string ) ] ) CRLF`, data, CRLF; then field lines and an empty one.
    fn step(&mut self, byte: u8) -> Result<At, &'static str> {
        self.length += 1;
        let (limit, why) = match self.at {
            At::Trailer | At::TrailerName | At::TrailerValue | At::TrailerLf | At::EndLf => (MAX_TRAILERS, "trailer section too long"),
            _ => (MAX_LINE, "chunk-size line too long"),
        };
        if self.length > limit {
            return Err(why);
        }
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => self.digit(byte),
            (At::Size, b';' | b'\r') if self.length == 1 => Err("chunk without a size"),
            (At::Size | At::NameRest | At::ValueRest | At::AfterQuoted, b'\r') => Ok(At::SizeLf),
            (At::Size | At::NameRest | At::ValueRest | At::AfterQuoted, b';') => Ok(At::Name),
            (At::Size, _) => Err("chunk size is not hexadecimal"),
            (At::Name | At::NameRest, _) if is_token(&byte) => Ok(At::NameRest),
            (At::NameRest, b'=') => Ok(At::Value),
            (At::Value, b'"') => Ok(At::Quoted),
            (At::Value | At::ValueRest, _) if is_token(&byte) => Ok(At::ValueRest),
            (At::Name | At::NameRest | At::Value | At::ValueRest | At::AfterQuoted, _) => Err("malformed chunk extension"),
            (At::Quoted, b'"') => Ok(At::AfterQuoted),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Quoted | At::Escaped, b'\t' | b' '..=b'~') => Ok(At::Quoted),
            (At::Quoted | At::Escaped, _) => Err("control character or non-ASCII in a chunk extension"),
            (At::SizeLf, b'\n') => Ok(self.begin()),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => {
                *self = Self::new();
                Ok(At::Size)
            }
            (At::DataCr | At::DataLf, _) => Err("chunk data without its end"),
            (At::Trailer, b'\r') => Ok(At::EndLf),
            (At::Trailer | At::TrailerName, _) if is_token(&byte) => Ok(At::TrailerName),
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::Trailer | At::TrailerName, _) => Err("trailer name is not a token"),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if byte.is_ascii_control() && byte != b'\t' => Err("control character in a trailer"),
            (At::TrailerValue, _) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::EndLf, b'\n') => Ok(At::Done),
            (At::SizeLf | At::TrailerLf | At::EndLf, _) => Err("bare carriage return in the framing"),
            (At::Data | At::Done, _) => Err("nothing to read"), // both are left before a step
        }
    }

    fn digit(&mut self, byte: u8) -> Result<At, &'static str> {
        if self.length > MAX_DIGITS {
            return Err("chunk size too long");
        }
        let value = char::from(byte).to_digit(16).unwrap_or_default();
        self.size = self.size << 4 | u64::from(value);
        Ok(At::Size)
    }

    fn begin(&mut self) -> At {
        self.length = 0;
        if self.size == 0 { At::Trailer } else { At::Data }
    }
}
