//! THE table of reasons: every way to stop is one row. The response body and status, the `X-Doorward-Reason` header, the
//! metric label, the audit field, `doorward explain` and the manual all read it. Codes are append-only: once released, a
//! code keeps its meaning.

use std::borrow::Cow;
use std::fmt;

/// What part of a request a reason is about. A preset may map a stage to another status; the code stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Syntax and framing of the HTTP request.
    Request,
    /// Which tenant is meant.
    Tenant,
    /// The page's origin (RFC 6454).
    Origin,
    /// The held body.
    Body,
    /// The identity token.
    Token,
    /// Doorward's own session token.
    Session,
    /// Whether ids beside the token agree with it.
    Subject,
    /// Route policy and step-up.
    Policy,
    /// Doorward's own failures and limits.
    Gateway,
    /// The upstream's failures.
    Upstream,
    /// The client went away.
    Client,
}

/// What `WWW-Authenticate` (RFC 6750, RFC 9470) a denial carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// None.
    No,
    /// `Bearer` without an error: no credential was sent.
    Bearer,
    /// `Bearer error="invalid_token"`.
    InvalidToken,
    /// `Bearer error="insufficient_user_authentication"` with RFC 9470 parameters.
    StepUp,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Stable snake_case code.
    pub code: &'static str,
    /// HTTP status, before a preset's mapping.
    pub status: u16,
    /// Which part of a request it is about.
    pub stage: Stage,
    /// The challenge that goes with it.
    pub challenge: Challenge,
    /// RFC 9457 `title`.
    pub title: &'static str,
    /// What happened and what to do, for the manual and `doorward explain`.
    pub sentence: &'static str,
}

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident = $code:literal $status:literal $stage:ident $challenge:ident $title:literal $sentence:literal;)*) => {
        /// Why a request was stopped (or, in `monitor`, would have been).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $sentence] $name,)*
        }

        impl Reason {
            /// Every reason, in table order.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// This reason's row.
            pub const fn row(self) -> &'static Row {
                match self {
                    $(Reason::$name => &Row {
                        code: $code, status: $status, stage: Stage::$stage, challenge: Challenge::$challenge,
                        title: $title, sentence: $sentence,
                    },)*
                }
            }
        }
    };
}

reasons! {
    RequestMalformed = "request_malformed" 400 Request No "Malformed request"
        "The request breaks HTTP's syntax or framing rules in a way that two parsers could read differently. Send one Host, one Content-Length or one Transfer-Encoding, and visible ASCII in the target.";
    RequestMethodRefused = "request_method_refused" 400 Request No "Method refused"
        "TRACE and CONNECT are never forwarded. Use another method.";
    RequestHeaderRefused = "request_header_refused" 400 Request No "Header refused"
        "A header name contains an underscore or another character that backends fold into a dash, or a single-valued header was sent twice. Rename or remove it.";
    RequestConnectionRefused = "request_connection_refused" 400 Request No "Connection option refused"
        "The Connection header names something other than close, keep-alive or upgrade; it could make a proxy drop a header it depends on. Remove that option.";
    RequestPathAmbiguous = "request_path_ambiguous" 400 Request No "Ambiguous path"
        "The path has dot segments, empty segments, backslashes, semicolons, encoded slashes or double encoding, which servers read differently. Send the path in its plain form.";
    RequestQueryAmbiguous = "request_query_ambiguous" 400 Request No "Ambiguous query"
        "An inspected query parameter was sent twice or does not decode to text. Send it once, percent-encoded UTF-8.";
    CredentialAmbiguous = "request_credential_ambiguous" 400 Request No "More than one credential"
        "Two differing tokens were sent in one request. Send the token in one place.";
    HeaderFieldsTooLarge = "request_header_too_large" 431 Request No "Header too large"
        "The request's header section has more than 100 fields or 32 KiB. Send fewer or shorter headers.";
    EmbedKeyMissing = "embed_key_missing" 403 Tenant No "Embed key missing"
        "No embed key was sent, so no tenant is known. Send the publishable key where the tenant's preset expects it.";
    EmbedKeyUnknown = "embed_key_unknown" 403 Tenant No "Embed key unknown"
        "The embed key belongs to no tenant of this gateway, or was removed. Copy it again from the configuration.";
    EmbedKeyAmbiguous = "embed_key_ambiguous" 403 Tenant No "More than one embed key"
        "Two differing embed keys were sent in one request. Send one.";
    TenantMismatch = "tenant_mismatch" 403 Tenant No "Tenant mismatch"
        "The path or body names another tenant than the embed key's. Use the key that belongs to that name.";
    OriginMalformed = "origin_malformed" 400 Origin No "Malformed Origin"
        "The Origin header is doubled or is not a serialized origin (RFC 6454): scheme, host and optional port, nothing else.";
    OriginMissing = "origin_missing" 403 Origin No "Origin missing"
        "The request has no Origin and the caller is not verified. Send a valid identity token, or set missing_origin for this tenant.";
    OriginNotAllowed = "origin_not_allowed" 403 Origin No "Origin not allowed"
        "The page's origin is not in the tenant's list. Add exactly this scheme, host and port to origins.";
    BodyMalformed = "body_malformed" 400 Body No "Malformed body"
        "The body had to be read and is not one UTF-8 JSON object with string or integer ids, without byte order mark, Content-Encoding or trailing data.";
    BodyAmbiguous = "body_ambiguous" 400 Body No "Ambiguous body"
        "The body repeats a member, or has one whose name differs from an inspected one only in case. Send each member once, spelled exactly.";
    BodyTooLarge = "body_too_large" 413 Body No "Body too large"
        "The body had to be read before deciding and is larger than body_hold (chunked bodies: 64 KiB). Send a smaller body or move the token to a header.";
    BodyTimeout = "body_timeout" 408 Body No "Body too slow"
        "The body had to be read before deciding and did not arrive within body_timeout.";
    TokenMissing = "token_missing" 401 Token Bearer "Identity token missing"
        "This tenant or route wants a verified user, or an id came without a token to prove it. Fetch an identity token from your own backend and send it along.";
    TokenMalformed = "token_malformed" 401 Token InvalidToken "Malformed identity token"
        "The token has no known form: 64 lowercase hex digits, v2.PAYLOAD.MAC, or three canonical base64url segments. Check for cut, padded or re-encoded tokens.";
    TokenFormatRefused = "token_format_refused" 401 Token InvalidToken "Identity token format not accepted"
        "The tenant has no secret for this token's format. Give it one with the right format, or send the format that it expects.";
    TokenAlgorithmRefused = "token_algorithm_refused" 401 Token InvalidToken "Signature algorithm not accepted"
        "The token's alg is not the one configured for any of the tenant's keys. The key decides the algorithm, never the token.";
    TokenHeaderRefused = "token_header_refused" 401 Token InvalidToken "Token header not accepted"
        "The JWT header has crit, b64, zip or another extension that changes how the token must be read. Issue a plain signed JWT.";
    TokenKeyUnknown = "token_key_unknown" 401 Token InvalidToken "Signing key unknown"
        "The token's kid names no live key of this tenant. Publish the key here first, then sign with it.";
    TokenSignatureInvalid = "token_signature_invalid" 401 Token InvalidToken "Signature does not match"
        "No live secret of the tenant made this signature. Compare the secret's fingerprint on both sides and run doorward token explain.";
    TokenClaimMalformed = "token_claim_malformed" 401 Token InvalidToken "Malformed claim"
        "A registered claim has the wrong type or an impossible value: times are seconds since 1970 as JSON numbers, not strings and not milliseconds.";
    TokenExpiryMissing = "token_expiry_missing" 401 Token InvalidToken "Identity token never expires"
        "The tenant requires exp and the token has none. Issue tokens with an expiry.";
    TokenExpired = "token_expired" 401 Token InvalidToken "Identity token expired"
        "The token was authentic and is past its exp. Fetch a fresh one and retry once.";
    TokenNotYetValid = "token_not_yet_valid" 401 Token InvalidToken "Identity token not yet valid"
        "The token's nbf, iat or step-up time is in the future beyond the leeway. Compare the two clocks.";
    TokenLifetimeTooLong = "token_lifetime_too_long" 401 Token InvalidToken "Identity token lives too long"
        "The token's exp lies further ahead than the tenant's max_lifetime. Issue shorter tokens.";
    TokenIssuerUnexpected = "token_issuer_unexpected" 401 Token InvalidToken "Unexpected issuer"
        "The token's iss is missing or not one the tenant lists.";
    TokenAudienceUnexpected = "token_audience_unexpected" 401 Token InvalidToken "Unexpected audience"
        "The token's aud is not the tenant's, or the tenant lists none and the token was made for somebody. Set claims.audience.";
    TokenClaimsTooLarge = "token_claims_too_large" 401 Token InvalidToken "Claims too large"
        "The claims that would be passed on exceed 4 KiB. Issue smaller tokens or list the claims to forward.";
    SubjectMissing = "subject_missing" 401 Token InvalidToken "Subject missing"
        "The token proves no user: a hex HMAC needs the user id beside it, other tokens their subject claim.";
    SubjectInvalid = "subject_invalid" 401 Token InvalidToken "Subject not usable"
        "The subject is empty or a placeholder such as anonymous, undefined or null, or two subject claims differ. Sign the real user id.";
    SubjectConfusable = "subject_confusable" 401 Token InvalidToken "Subject looks like a token payload"
        "The user id has the form of a signed payload, so its HMAC could be replayed as another token format. Use ids that the host generates.";
    TokenRevoked = "token_revoked" 401 Token InvalidToken "Identity token revoked"
        "The secret that signed the token, or its subject, is in the revocations file.";
    OriginChanged = "origin_changed" 403 Origin No "Origin differs from the session's"
        "The session was minted for another origin, or with one where this call has none. Mint a new one on this page.";
    OriginUnexpected = "origin_unexpected" 403 Origin No "Not for pages"
        "This endpoint is for servers: a request with Origin or Sec-Fetch headers comes from a page, and a page must never hold the secret.";
    VerificationSecretInvalid = "verification_secret_invalid" 403 Tenant No "Verification secret does not match"
        "The verificationSecret is not the one configured for this product.";
    SessionInvalid = "session_invalid" 401 Session InvalidToken "Session token not valid"
        "The session token was not made by this gateway or cannot be verified any more. Mint a new one.";
    SessionExpired = "session_expired" 401 Session InvalidToken "Session expired"
        "The session token was ours and its time is over. Mint a new one and retry once.";
    SessionRevoked = "session_revoked" 401 Session InvalidToken "Session revoked"
        "The session, its embed key, its subject or the secret behind it was revoked. Mint a new one.";
    SubjectMismatch = "subject_mismatch" 403 Subject No "Subject mismatch"
        "An id beside the token differs from the token's subject. Send the id that the token was signed for, or none.";
    StepUpRequired = "step_up_required" 401 Policy StepUp "Step-up required"
        "The route needs a fresh, stronger authentication than the token shows. Confirm the user again and send a stepped-up token.";
    ClaimNotAllowed = "claim_not_allowed" 403 Policy No "Claim not allowed"
        "The route requires a claim value that the token does not have.";
    RateLimited = "rate_limited" 429 Gateway No "Too many requests"
        "This client asked too often. Wait as long as Retry-After says.";
    ClockBehind = "gateway_clock_behind" 503 Gateway No "Gateway clock wrong"
        "The gateway's clock shows a time before 2020, so no token can be judged. Fix the clock.";
    GatewayInternal = "gateway_internal" 500 Gateway No "Internal error"
        "The gateway reached a state it does not allow and stopped the request. The log line with this request id says more.";
    UpstreamUnreachable = "upstream_unreachable" 502 Upstream No "Upstream unreachable"
        "The backend refused the connection or could not be reached. Check upstream.address and the backend.";
    UpstreamTimeout = "upstream_timeout" 504 Upstream No "Upstream timed out"
        "The backend did not answer in time.";
    UpstreamProtocol = "upstream_protocol" 502 Upstream No "Upstream broke off"
        "The backend's answer was cut off or is not valid HTTP. Nothing of it can be trusted.";
    ClientDisconnected = "client_disconnected" 499 Client No "Client went away"
        "The client closed the connection before the answer was complete. Counted only.";
    TargetTooLong = "request_target_too_long" 414 Request No "Target too long"
        "The path and query are longer than 8 KiB. Send long values in a body.";
    BodyTooSlow = "body_too_slow" 408 Body No "Body too slow"
        "The body came in more slowly than body_min_rate, so the connection was closed.";
    LimitReached = "limit_reached" 429 Gateway No "Daily limit reached"
        "Callers who are not signed in have spent this tenant's requests of the day, or this client its share of them. Sign in, or come back after midnight UTC.";
    GatewayOverloaded = "gateway_overloaded" 503 Gateway No "Gateway overloaded"
        "The gateway is working on as many requests as max_in_flight allows. Try again in a second.";
    ForwardAuthUntrusted = "forward_auth_untrusted" 403 Request No "Not from the ingress"
        "A forward-auth listener was asked by somebody who is not among trusted_proxies. Add the ingress there, and let nobody else reach the listener.";
    ForwardAuthMalformed = "forward_auth_malformed" 400 Request No "Check not understood"
        "The ingress did not say exactly once which method and target it asks about, in the convention of this listener. Compare its configuration with deploy/forward-auth.";
    ForwardAuthReserved = "forward_auth_reserved" 400 Request No "Reserved header refused"
        "A header whose name is reserved came through the ingress, which would pass it on to the backend too: nothing here can remove it. Clients must not send it; an ingress deletes such headers before it asks.";
    ForwardAuthUnanswerable = "forward_auth_unanswerable" 403 Request No "Not for a check"
        "A preflight, one of the gateway's own endpoints or a session in the query came through a check, which only lets requests pass or not. Route the first two to an ordinary listener of the gateway; send sessions in a header.";
    KeysMissing = "gateway_keys_missing" 503 Gateway No "Issuer's keys not known yet"
        "The tenant's keys are published by an issuer (jwks_url) that never answered since the gateway started. Try again in a few seconds; the log says why it did not answer.";
    StreamDrained = "stream_drained" 503 Gateway No "Gateway restarting"
        "The gateway is about to stop or to hand over, so it ended this stream. Connect again at once: another process answers.";
    PathNotServed = "path_not_served" 404 Upstream No "Path not served"
        "The path is not below the strip_prefix of the upstream that it goes to, so the backend has no such path. Send a path below the prefix, or give this one a route to another upstream.";
    UpstreamTls = "upstream_tls" 502 Upstream No "Upstream not trusted"
        "No TLS connection to the backend could be made: its certificate is not for server_name, not signed by ca or not valid now, or the backend refused ours. Compare [upstream.tls] with what the backend shows.";
}

impl Reason {
    /// Stable snake_case code.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The reason with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What a client must show to pass a step-up challenge (RFC 9470 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUpDemand {
    /// Oldest acceptable authentication, in seconds (`max_age`).
    pub max_age: u64,
    /// Accepted authentication context values (`acr_values`), where the route names any.
    pub acr_values: Vec<String>,
}

/// A request that stops here: the reason everybody sees, and a detail for the audit record only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The row.
    pub reason: Reason,
    /// What exactly was wrong; never a token, a key or a claim's value. Reaches the audit record only.
    pub detail: Cow<'static, str>,
    /// Set for [`Reason::StepUpRequired`].
    pub step_up: Option<Box<StepUpDemand>>,
}

impl Denied {
    /// Stops with `reason`; `detail` is for the audit record.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), step_up: None }
    }
}

impl From<Reason> for Denied {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naming rule of the table: the stage shows in the code or the status.
    #[test]
    fn codes_are_unique_and_follow_their_status() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            let row = reason.row();
            assert!(seen.insert(row.code), "{} twice", row.code);
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", row.code);
            assert_eq!(row.status == 401, row.challenge != Challenge::No, "{}: 401 and a challenge go together", row.code);
            assert_eq!(Reason::from_code(row.code), Some(*reason));
        }
    }
}
