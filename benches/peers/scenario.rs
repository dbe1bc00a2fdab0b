//! What is asked: the kinds of requests, and which peers can answer them.

use crate::peer::Peer;

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// An HS256 JWT, one of a thousand.
    Jwt,
    /// The same, with its signature spoiled.
    Forged,
    /// The id and its hex HMAC, one of a thousand.
    Hmac,
    /// An HS256 JWT in the body, and the id beside it (Halo).
    InBody,
    /// A session token of the gateway, one of a thousand.
    Session,
    /// None: a preflight carries none.
    Preflight,
}

/// One kind of request.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) credential: Credential,
    /// The status that the peers that judge answer.
    pub(crate) expect: &'static [u16],
    /// Whether only Doorward knows this.
    own: bool,
}

/// Every scenario.
pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "POST", method: "POST", path: "/v1/chat?stream=1", credential: Credential::Jwt, expect: &[200], own: false },
    Scenario { name: "GET", method: "GET", path: "/v1/chat?stream=1", credential: Credential::Jwt, expect: &[200], own: false },
    Scenario { name: "HMAC", method: "POST", path: "/v1/chat?stream=1", credential: Credential::Hmac, expect: &[200], own: true },
    Scenario { name: "in body", method: "POST", path: "/api/sdk/chat", credential: Credential::InBody, expect: &[200], own: true },
    Scenario { name: "session", method: "POST", path: "/v1/chat?stream=1", credential: Credential::Session, expect: &[200], own: true },
    Scenario { name: "denied", method: "POST", path: "/v1/chat?stream=1", credential: Credential::Forged, expect: &[401], own: false },
    Scenario { name: "preflight", method: "OPTIONS", path: "/v1/chat", credential: Credential::Preflight, expect: &[200, 204], own: false },
    Scenario { name: "SSE", method: "POST", path: "/events", credential: Credential::Jwt, expect: &[200], own: false },
];

impl Scenario {
    /// Whether this peer is asked this.
    pub(crate) fn for_peer(&self, peer: &Peer) -> bool {
        let answers_itself = matches!(self.credential, Credential::Forged | Credential::Preflight);
        peer.name == "doorward" || (!self.own && (peer.judges || !answers_itself))
    }
}
