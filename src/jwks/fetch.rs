//! One fetch of a key set, and what is left of it: keys, or why there are none. Bounded in size and time; a redirect is a
//! failure, since whoever it leads to is nobody that the operator named.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use http::{Request, StatusCode};
use sha2::{Digest as _, Sha256};

use super::schedule;
use crate::observe::key_sets::Fetch;
use crate::outbound::{Client, Failure};
use crate::token::public_keys::{self, Published};

/// Largest set, in bytes. Issuers publish a few kilobytes.
const LARGEST: usize = 256 * 1024;
/// Longest fetch, from the name lookup to the last byte.
const LONGEST: Duration = Duration::from_secs(5);

/// A set that can be used.
pub(super) struct Fetched {
    /// Its keys.
    pub(super) published: Published,
    /// Names its text: the same text is the same set.
    pub(super) digest: [u8; 32],
    /// How long the issuer says that it holds.
    pub(super) max_age: Option<Duration>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Problem {
    /// No answer, or not 200.
    Failed(String),
    /// An answer that is no usable set.
    Refused(String),
}

impl Problem {
    /// As counted.
    pub(super) fn counted(&self) -> Fetch {
        match self {
            Self::Failed(_) => Fetch::Failed,
            Self::Refused(_) => Fetch::Refused,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Refused(why) => write!(f, "what it answers {why}"),
        }
    }
}

/// Fetches and reads a set.
pub(super) async fn fetch(client: &Client, url: &str) -> Result<Fetched, Problem> {
    let request = Request::get(url).header(ACCEPT, "application/jwk-set+json, application/json").header(USER_AGENT, "doorward");
    let request = request.body(Bytes::new()).map_err(|e| Problem::Failed(e.to_string()))?;
    let answer = client.send(request, LARGEST, LONGEST).await.map_err(|failure| match failure {
        Failure::TooLarge(most) => Problem::Refused(format!("is larger than {most} bytes")),
        Failure::Broken(_) | Failure::Late(_) => Problem::Failed(failure.to_string()),
    })?;
    if answer.status.is_redirection() {
        let status = answer.status.as_u16();
        return Err(Problem::Failed(format!("it answers {status}; redirects are not followed: write the address where they end")));
    }
    if answer.status != StatusCode::OK {
        return Err(Problem::Failed(format!("it answers {}", answer.status.as_u16())));
    }
    let published = public_keys::from_published(&answer.body).map_err(Problem::Refused)?;
    let directives = answer.headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    Ok(Fetched { published, digest: Sha256::digest(&answer.body).into(), max_age: schedule::max_age(directives) })
}
