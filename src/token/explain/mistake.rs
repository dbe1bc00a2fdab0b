//! The mistakes that people make when they sign identity tokens, with what to do about each.

/// A known mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mistake {
    /// `hmac(id, secret)` in place of `hmac(secret, id)`.
    SwappedKeyAndMessage,
    /// The email address was signed.
    EmailInPlaceOfId,
    /// The id was signed as a number is written: `7.0`, without leading zeros, or rounded to 53 bits.
    NumberForm,
    /// The id was signed as JSON, quotes included.
    QuotedId,
    /// White space around the id on one side only.
    TrimmedId,
    /// Letters of the id changed case on one side only.
    LowerCasedId,
    /// A newline at the end of the id was signed.
    NewlineInId,
    /// The id was signed in Latin-1 (ISO 8859-1).
    Latin1,
    /// The id was signed in the other Unicode normal form.
    NormalForm,
    /// The output is base64 where hex is expected.
    Base64Output,
    /// The output is hex where base64url is expected.
    HexOutput,
    /// The output is upper-case hex.
    UpperCaseHex,
    /// The secret's hex or base64 digits were used as text.
    EncodedKeyAsText,
    /// The secret's text was decoded as hex or base64.
    TextKeyDecoded,
    /// The secret was used with a newline at its end.
    NewlineInSecret,
    /// The secret was used without the spaces around it.
    SpaceAroundSecret,
    /// Another of the given secrets signed it.
    OtherSecret,
    /// Signed properly, with an algorithm that the key is not bound to.
    OtherAlgorithm,
    /// White space or base64 padding in the token.
    SpaceOrPadding,
    /// Karta's MAC covers `v2.` too.
    PrefixSigned,
    /// Karta's MAC covers the JSON in place of its base64url.
    DecodedPayloadSigned,
    /// A time is in milliseconds.
    TimeInMilliseconds,
    /// A time is a string.
    TimeAsString,
    /// A time of issue lies in the future.
    ClockAhead,
    /// The token had expired when it was made, or right after.
    ClockBehind,
}

impl Mistake {
    /// Every mistake.
    pub const ALL: [Self; 25] = [
        Self::SwappedKeyAndMessage,
        Self::EmailInPlaceOfId,
        Self::NumberForm,
        Self::QuotedId,
        Self::TrimmedId,
        Self::LowerCasedId,
        Self::NewlineInId,
        Self::Latin1,
        Self::NormalForm,
        Self::Base64Output,
        Self::HexOutput,
        Self::UpperCaseHex,
        Self::EncodedKeyAsText,
        Self::TextKeyDecoded,
        Self::NewlineInSecret,
        Self::SpaceAroundSecret,
        Self::OtherSecret,
        Self::OtherAlgorithm,
        Self::SpaceOrPadding,
        Self::PrefixSigned,
        Self::DecodedPayloadSigned,
        Self::TimeInMilliseconds,
        Self::TimeAsString,
        Self::ClockAhead,
        Self::ClockBehind,
    ];

    /// What was done and what to do.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SwappedKeyAndMessage => "key and message are swapped: the secret is the HMAC's key and the user id its message",
            Self::EmailInPlaceOfId => "the email address was signed: sign the same user id that the page sends",
            Self::NumberForm => {
                "the id was signed as a number (7.0, without leading zeros, or rounded beyond 2^53): keep ids as strings from the database to the signature"
            }
            Self::QuotedId => "the id was signed as JSON with its quotes: sign the bare text",
            Self::TrimmedId => "the signed id and the sent id differ in white space around it: ids are compared byte for byte",
            Self::LowerCasedId => "the signed id and the sent id differ in upper and lower case: ids are compared byte for byte",
            Self::NewlineInId => "a newline at the end of the id was signed (echo adds one; use printf %s)",
            Self::Latin1 => "the id was signed in Latin-1: encode it as UTF-8 first",
            Self::NormalForm => {
                "the signed id and the sent id are different Unicode normal forms of the same text (NFC and NFD): send the id as it was signed"
            }
            Self::Base64Output => "the HMAC is written in base64: lowercase hex is expected",
            Self::HexOutput => "the signature is the base64url of hex digits: encode the HMAC's 32 bytes themselves",
            Self::UpperCaseHex => "the hex digits are upper case: lowercase is expected",
            Self::EncodedKeyAsText => {
                "the secret's hex or base64 digits were used as text: decode them first, or declare encoding = \"text\" here"
            }
            Self::TextKeyDecoded => "the secret's text was decoded as hex or base64: use it as it stands, or declare that encoding here",
            Self::NewlineInSecret => "the secret was used with a newline at its end: cut it where the token is made",
            Self::SpaceAroundSecret => "the secret has spaces around it here that were not there where the token was made",
            Self::OtherSecret => "another secret signed it: one of another platform, environment or tenant",
            Self::OtherAlgorithm => {
                "the signature is right for the alg that the header names, which is not the one that the key is bound to: sign with that, or set the key's algorithm"
            }
            Self::SpaceOrPadding => "the token has white space or = padding in it: send it exactly as base64url without padding",
            Self::PrefixSigned => "the mac was taken over v2.<payload>: it covers the encoded payload only",
            Self::DecodedPayloadSigned => "the mac was taken over the JSON: it covers the base64url text of it",
            Self::TimeInMilliseconds => "a time is in milliseconds: JWT times are seconds (Date.now() / 1000)",
            Self::TimeAsString => "a time is a string: JWT times are JSON numbers, without quotes",
            Self::ClockAhead => "the token was made in the future by this clock: compare the two servers' clocks (NTP)",
            Self::ClockBehind => {
                "the token has expired by this clock: if it was made just now, the signing server's clock is behind; otherwise fetch a fresh token"
            }
        }
    }
}
