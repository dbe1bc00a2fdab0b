//! Tenants: one workspace, product or agent each, with its embed keys, origins, secrets and rules, and the index that
//! finds them. Built by [`crate::config`]; read by every decision; never changed in place.

pub mod prints;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::clock::UnixTime;
use crate::limits::Limits;
use crate::policy::{Mode, Policy};
use crate::reason::{Reason, Stage};
use crate::request::body::Inspected;
use crate::request::embed_key::EmbedKey;
use crate::request::origin::{Origin, OriginRule};
use crate::request::path::{Path, PathPattern};
use crate::secret::{Fingerprint, KeyBytes};
use crate::token::claims::ClaimRules;
use crate::token::keys::KeyRing;
use prints::Prints;

/// What a request without Origin must show (`product` 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingOrigin {
    /// A verified identity: servers and mobile apps have one, a drive-by script has not.
    #[default]
    Verified,
    /// Never admitted.
    Deny,
    /// Admitted like an allowed origin.
    Allow,
}

/// What an id without a token is worth where the mode is `enforce`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsignedId {
    /// Denied.
    #[default]
    Deny,
    /// Passed on as a claimed id (Karta's soft id).
    Claimed,
}

/// What an expired but otherwise good token is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpired {
    /// Denied.
    #[default]
    Deny,
    /// The caller becomes anonymous (Widgent).
    Anonymous,
}

/// Where in a head a value may stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `Authorization: Bearer`.
    Bearer,
    /// A header of this name.
    Header(HeaderName),
    /// A query parameter of this name.
    Query(String),
    /// The segments that the pattern's stars stand for, joined by `/`.
    Path(PathPattern),
}

/// Where a tenant's clients put things.
#[derive(Clone, Debug, Default, Hash)]
pub struct Places {
    /// The embed key. `Authorization: Bearer` is always one of them.
    pub embed_key: Vec<Place>,
    /// The identity token. What stands in `Authorization: Bearer` and is no embed key is always one.
    pub token: Vec<Place>,
    /// Ids asserted beside the token.
    pub asserted_id: Vec<Place>,
    /// Names of the tenant.
    pub tenant_name: Vec<Place>,
    /// Members of JSON bodies.
    pub body: Vec<Inspected>,
    /// Paths whose bodies are held to look for them.
    pub body_paths: Vec<PathPattern>,
}

/// A tenant's own way of answering: a vendor's client acts on its vendor's statuses.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Status per stage, in place of the reason's own.
    pub status: HashMap<Stage, u16>,
    /// Value of an `error` member beside `reason`, per reason.
    pub error: HashMap<Reason, String>,
}

/// One of the gateway's own endpoints, in a vendor's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST`: an identity token for a session token (Karta).
    SessionTokens,
    /// `GET`: theme and flags of an embed key (Karta).
    EmbedConfig,
    /// `POST`: a user id and its HMAC (Agentic Trust).
    IdentityVerify,
    /// `POST`: a JWT (Agentic Trust).
    IdentityIdentify,
    /// `POST`: server to server, a user for an identity JWT (Widgent's other edition).
    UserToken,
}

impl Endpoint {
    /// Every endpoint, with the key that names its path in `[tenant.endpoints]`.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::SessionTokens, "session_tokens"),
        (Self::EmbedConfig, "embed_config"),
        (Self::IdentityVerify, "identity_verify"),
        (Self::IdentityIdentify, "identity_identify"),
        (Self::UserToken, "user_token"),
    ];

    /// The one method that it answers.
    pub const fn method(self) -> Method {
        match self {
            Self::EmbedConfig => Method::GET,
            Self::SessionTokens | Self::IdentityVerify | Self::IdentityIdentify | Self::UserToken => Method::POST,
        }
    }
}

/// A tenant's endpoints and what they answer with.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// Where each is; an endpoint that is not listed is off.
    pub paths: Vec<(Endpoint, PathPattern)>,
    /// What `user_token` callers must show.
    pub verification_secret: Option<KeyBytes>,
    /// What `embed_config` answers.
    pub embed_config: serde_json::Map<String, serde_json::Value>,
}

/// A tenant's rules for session tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionRules {
    /// Sessions that were minted earlier are revoked.
    pub not_before: Option<UnixTime>,
    /// Whether a stream may carry its session in the query.
    pub in_query: bool,
}

/// What happens to a stream when the identity that opened it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStreamExpiry {
    /// It may finish.
    Finish,
    /// It is closed.
    Close,
}

/// A tenant's rules for streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRules {
    /// WebSockets.
    pub websocket: OnStreamExpiry,
    /// Server-sent events and other long answers.
    pub events: OnStreamExpiry,
    /// How long after the end a stream may go on before it is closed.
    pub grace: Duration,
}

impl Default for StreamRules {
    fn default() -> Self {
        Self { websocket: OnStreamExpiry::Close, events: OnStreamExpiry::Finish, grace: Duration::from_secs(5) }
    }
}

/// Request headers that any page may send, beside the tenants' own.
const REQUEST_HEADERS: [&str; 4] = ["authorization", "content-type", "last-event-id", "traceparent"];
/// Response headers that any page may read, beside its tenant's own.
const RESPONSE_HEADERS: &str = "x-request-id, x-doorward-reason, www-authenticate, retry-after, ratelimit, ratelimit-policy";

/// Header names that pages may send and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsNames {
    /// Request headers that pages may send, beyond the gateway's own.
    pub allow_headers: Vec<HeaderName>,
    /// Every response header that pages may read, as `Access-Control-Expose-Headers` lists them.
    pub exposed: HeaderValue,
}

impl CorsNames {
    /// These names, beside the gateway's own.
    pub fn new(allow_headers: Vec<HeaderName>, expose_headers: &[HeaderName]) -> Self {
        let names = std::iter::once(RESPONSE_HEADERS).chain(expose_headers.iter().map(HeaderName::as_str));
        let exposed = if expose_headers.is_empty() { None } else { HeaderValue::try_from(names.collect::<Vec<_>>().join(", ")).ok() };
        Self { allow_headers, exposed: exposed.unwrap_or(Self::EXPOSED) }
    }

    /// What a page may read where it is not known whose page it is.
    pub const EXPOSED: HeaderValue = HeaderValue::from_static(RESPONSE_HEADERS);
}

impl Default for CorsNames {
    fn default() -> Self {
        Self::new(Vec::new(), &[])
    }
}

/// One tenant.
#[derive(Debug)]
pub struct Tenant {
    /// The operator's name for it: in headers, metrics and logs.
    pub id: String,
    /// The file of a tenant directory that gave it, where one did: it stays while a reload refuses that file.
    pub source: Option<PathBuf>,
    /// The preset it started from.
    pub preset: String,
    /// `off`, `monitor` or `enforce`.
    pub mode: Mode,
    /// Names by which paths and bodies may call it; empty: not compared.
    pub names: Vec<String>,
    /// Its publishable keys.
    pub embed_keys: Vec<EmbedKey>,
    /// Pages that may call. Empty denies every page.
    pub origins: Vec<OriginRule>,
    /// Requests without Origin.
    pub missing_origin: MissingOrigin,
    /// Ids without a token.
    pub unsigned_id: UnsignedId,
    /// Expired tokens.
    pub on_expired: OnExpired,
    /// Asserted ids that mean nobody (Halo's `"anonymous"`).
    pub exempt_ids: Vec<String>,
    /// Where clients put things.
    pub places: Places,
    /// Identity keys.
    pub keys: KeyRing,
    /// Claim rules.
    pub claims: ClaimRules,
    /// Audience and routes.
    pub policy: Policy,
    /// Statuses and error members.
    pub answers: Answers,
    /// CORS names.
    pub cors: CorsNames,
    /// The gateway's own endpoints.
    pub endpoints: Endpoints,
    /// Session tokens.
    pub sessions: SessionRules,
    /// Streams.
    pub streams: StreamRules,
    /// How often its callers may ask.
    pub limits: Limits,
}

impl Tenant {
    /// Whether a page of this origin may call.
    pub fn allows(&self, origin: Origin<'_>) -> bool {
        self.origins.iter().any(|rule| rule.allows(origin))
    }

    /// Whether it has this endpoint here.
    pub fn has_endpoint(&self, endpoint: Endpoint, path: &Path<'_>) -> bool {
        self.endpoints.paths.iter().any(|(e, pattern)| *e == endpoint && pattern.covers(path))
    }

    /// The status this tenant answers a reason with.
    pub fn status(&self, reason: Reason) -> u16 {
        let row = reason.row();
        self.answers.status.get(&row.stage).copied().unwrap_or(row.status)
    }
}

/// All tenants, indexed for the two questions that come before one is known: whose key is this, and may any page of this
/// origin read a denial.
#[derive(Debug, Default)]
pub struct Tenants {
    list: Vec<Arc<Tenant>>,
    by_id: HashMap<String, Arc<Tenant>>,
    by_key: HashMap<EmbedKey, Arc<Tenant>>,
    by_fingerprint: HashMap<Fingerprint, Arc<Tenant>>,
    fingerprints: HashMap<EmbedKey, Fingerprint>,
    prints: HashMap<String, Prints>,
    key_places: Vec<Place>,
    exact_origins: HashSet<Box<str>>,
    pattern_origins: Vec<OriginRule>,
    request_headers: Option<HeaderValue>,
    endpoint_paths: Vec<(Endpoint, PathPattern)>,
}

/// Two tenants that cannot live side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The id at this index stood before.
    Id(usize),
    /// The tenant at this index has a key that stood before.
    Key(usize, EmbedKey),
}

impl Tenants {
    /// Indexes tenants.
    ///
    /// # Errors
    /// The first [`Conflict`]: ids and embed keys are unique.
    pub fn new(list: Vec<Arc<Tenant>>) -> Result<Self, Conflict> {
        let mut all = Self::default();
        let mut request_headers = BTreeSet::from(REQUEST_HEADERS.map(str::to_owned));
        for (index, tenant) in list.iter().enumerate() {
            if all.by_id.insert(tenant.id.clone(), Arc::clone(tenant)).is_some() {
                return Err(Conflict::Id(index));
            }
            for key in &tenant.embed_keys {
                if all.by_key.insert(key.clone(), Arc::clone(tenant)).is_some() {
                    return Err(Conflict::Key(index, key.clone()));
                }
                let fingerprint = KeyBytes::new(key.as_str().as_bytes()).fingerprint();
                all.by_fingerprint.insert(fingerprint, Arc::clone(tenant));
                all.fingerprints.insert(key.clone(), fingerprint);
            }
            all.prints.insert(tenant.id.clone(), Prints::of(tenant));
            all.index(tenant);
            let places = [&tenant.places.embed_key, &tenant.places.token, &tenant.places.asserted_id].into_iter().flatten();
            let placed = places.filter_map(|place| if let Place::Header(name) = place { Some(name) } else { None });
            request_headers.extend(placed.chain(&tenant.cors.allow_headers).map(|name| name.as_str().to_owned()));
        }
        all.request_headers = HeaderValue::try_from(Vec::from_iter(request_headers).join(", ")).ok();
        all.list = list;
        Ok(all)
    }

    fn index(&mut self, tenant: &Tenant) {
        let places = &tenant.places;
        for place in &places.embed_key {
            if !self.key_places.contains(place) {
                self.key_places.push(place.clone());
            }
        }
        for rule in &tenant.origins {
            match rule {
                OriginRule::Exact(origin) => drop(self.exact_origins.insert(origin.clone())),
                pattern @ OriginRule::Pattern { .. } if !self.pattern_origins.contains(pattern) => {
                    self.pattern_origins.push(pattern.clone())
                }
                OriginRule::Pattern { .. } => {}
            }
        }
        for path in &tenant.endpoints.paths {
            if !self.endpoint_paths.contains(path) {
                self.endpoint_paths.push(path.clone());
            }
        }
    }

    /// All tenants, in configuration order.
    pub fn all(&self) -> &[Arc<Tenant>] {
        &self.list
    }

    /// The tenant with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.by_id.get(id)
    }

    /// The tenant of an embed key. Keys are public, so an ordinary hash lookup is enough.
    pub fn by_key(&self, key: &str) -> Option<&Arc<Tenant>> {
        // A token in the key's place is longer than any key: it need not be hashed.
        if key.len() > EmbedKey::LONGEST { None } else { self.by_key.get(key) }
    }

    /// What the audit record calls an embed key; `None` for one of no tenant's.
    pub fn fingerprint_of(&self, key: &str) -> Option<Fingerprint> {
        self.fingerprints.get(key).copied()
    }

    /// The tenant of an embed key, by its fingerprint.
    pub fn by_fingerprint(&self, key: Fingerprint) -> Option<&Arc<Tenant>> {
        self.by_fingerprint.get(&key)
    }

    /// Names for the rules of the tenant with this id.
    pub fn prints_of(&self, id: &str) -> Option<Prints> {
        self.prints.get(id).copied()
    }

    /// Where any tenant's embed key may stand.
    pub fn key_places(&self) -> &[Place] {
        &self.key_places
    }

    /// The endpoint that some tenant has here.
    pub fn endpoint(&self, method: &Method, path: &Path<'_>) -> Option<Endpoint> {
        let here = |(endpoint, pattern): &&(Endpoint, PathPattern)| endpoint.method() == *method && pattern.covers(path);
        self.endpoint_paths.iter().find(here).map(|(endpoint, _)| *endpoint)
    }

    /// Whether any tenant's page may have this origin.
    pub fn any_allows(&self, origin: Origin<'_>) -> bool {
        self.exact_origins.contains(origin.as_str()) || self.pattern_origins.iter().any(|rule| rule.allows(origin))
    }

    /// Request headers that any tenant's page may send, as `Access-Control-Allow-Headers` lists them: lower case and sorted.
    pub fn request_headers(&self) -> Option<&HeaderValue> {
        self.request_headers.as_ref()
    }
}
