//! What a tenant asks of its callers: mode, audience, and per route a level, a freshness, claim values; and which upstream a
//! route goes to. Pure data and two lookups; [`crate::admission`] applies it.

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::reason::StepUpDemand;
use crate::request::path::{Path, PathPattern};

/// How sure the gateway is of who is calling; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nobody in particular.
    Anonymous,
    /// An id that nobody signed: metadata only.
    Claimed,
    /// A subject that the host's backend signed.
    Verified,
    /// The same, authenticated anew and more strongly a short while ago.
    SteppedUp,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::Anonymous, Self::Claimed, Self::Verified, Self::SteppedUp];

    /// As written in headers, configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Claimed => "claimed",
            Self::Verified => "verified",
            Self::SteppedUp => "stepped_up",
        }
    }
}

/// What happens to a request whose identity does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Tokens are not looked at.
    Off,
    /// Counted as what enforce would deny, and forwarded at its true level.
    Monitor,
    /// Denied.
    #[default]
    Enforce,
}

impl Mode {
    /// As written in configuration and `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
        }
    }
}

/// Whom a tenant serves where no route says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Anonymous callers too.
    #[default]
    Anyone,
    /// Verified users only.
    Users,
}

/// A claim and the values that satisfy a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The claim's name.
    pub name: String,
    /// Any one of these satisfies; a claim that is a list satisfies by any of its members.
    pub values: Vec<String>,
}

impl RequiredClaim {
    /// Whether a claim's value satisfies this.
    pub fn met_by(&self, value: Option<&Value>) -> bool {
        let is_listed = |v: &Value| v.as_str().is_some_and(|s| self.values.iter().any(|accepted| accepted == s));
        match value {
            Some(Value::Array(list)) => list.iter().any(is_listed),
            Some(value) => is_listed(value),
            None => false,
        }
    }
}

/// One `[[tenant.route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which paths.
    pub path: PathPattern,
    /// Which methods; empty means all. GET covers HEAD, and a WebSocket handshake matches whatever stands here.
    pub methods: Vec<Method>,
    /// The lowest level that passes.
    pub require: Level,
    /// How long ago a step-up may be, where `require` is `stepped_up`.
    pub max_age: Option<Duration>,
    /// Accepted authentication levels (`aal`) of a step-up; empty accepts any that the tenant accepts.
    pub aal: Vec<String>,
    /// Claims that a verified caller must have.
    pub require_claims: Vec<RequiredClaim>,
}

impl Route {
    /// Whether a later route never applies beside this one.
    pub fn leaves_nothing_of(&self, later: &Self) -> bool {
        includes((&self.path, &self.methods), (&later.path, &later.methods))
    }

    fn matches(&self, method: &Method, path: &Path<'_>, upgrade: bool) -> bool {
        covers_method(&self.methods, method, upgrade) && self.path.covers(path)
    }
}

/// Whether every request that the later path and methods cover is covered by the first.
fn includes((path, methods): (&PathPattern, &[Method]), later: (&PathPattern, &[Method])) -> bool {
    let covered = |method: &Method| methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET));
    let by_method = methods.is_empty() || (!later.1.is_empty() && later.1.iter().all(covered));
    by_method && path.includes(later.0)
}

/// Whether a list of methods covers a request: an empty one covers all, GET covers HEAD, and a WebSocket handshake is covered
/// whatever stands there.
pub fn covers_method(methods: &[Method], method: &Method, upgrade: bool) -> bool {
    let covered = |m: &Method| m == method || (*m == Method::GET && *method == Method::HEAD);
    upgrade || methods.is_empty() || methods.iter().any(covered)
}

/// Which upstream: made of its name, so that it means the same one after a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId([u8; 8]);

impl UpstreamId {
    /// What `[upstream]` is called.
    pub const DEFAULT: &'static str = "default";

    /// The upstream of this name.
    pub fn of(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(name).into();
        Self([a, b, c, d, e, f, g, h])
    }
}

/// A `[[tenant.route]]` that says `upstream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which paths.
    pub path: PathPattern,
    /// Which methods, as in [`Route`].
    pub methods: Vec<Method>,
    /// Where they go.
    pub upstream: UpstreamId,
}

impl Way {
    /// Whether a later way never applies beside this one.
    pub fn leaves_nothing_of(&self, later: &Self) -> bool {
        includes((&self.path, &self.methods), (&later.path, &later.methods))
    }
}

/// A tenant's audience, routes and upstreams.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whom unmatched requests must come from.
    pub audience: Audience,
    /// Rules in file order; the first that matches applies.
    pub routes: Vec<Route>,
    /// How long a step-up lasts where a route does not say.
    pub step_up_max_age: Duration,
    /// Where requests go that no way matches.
    pub upstream: UpstreamId,
    /// Routes that go elsewhere, in file order; the first that matches applies. Apart from the rules: one that says where a
    /// path goes must not hide one that says who may call it.
    pub ways: Vec<Way>,
}

/// Which rule a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The tenant's audience: no route matched.
    Audience,
    /// The route at this index.
    Route(usize),
}

/// What one request must show.
#[derive(Clone, Copy, Debug)]
pub struct Requirement<'p> {
    /// The rule that says so.
    pub rule: Rule,
    /// The lowest level that passes.
    pub level: Level,
    /// Oldest acceptable step-up.
    pub max_age: Duration,
    /// Accepted authentication levels; empty accepts any.
    pub aal: &'p [String],
    /// Claims that must be there.
    pub claims: &'p [RequiredClaim],
}

impl Requirement<'_> {
    /// The same in words, for the audit record: equal words ask for equal things.
    pub fn described(&self) -> Cow<'static, str> {
        let mut words = match self.level {
            Level::SteppedUp if self.aal.is_empty() => format!("stepped_up within {} s", self.max_age.as_secs_f64()),
            Level::SteppedUp => format!("stepped_up within {} s by {}", self.max_age.as_secs_f64(), self.aal.join(" or ")),
            level if self.claims.is_empty() => return Cow::Borrowed(level.as_str()),
            level => level.as_str().to_owned(),
        };
        for claim in self.claims {
            words.push_str(&format!(", {} {}", claim.name, claim.values.join(" or ")));
        }
        Cow::Owned(words)
    }

    /// The same as RFC 9470 challenge parameters.
    pub fn demand(&self) -> StepUpDemand {
        StepUpDemand { max_age: self.max_age.as_secs(), acr_values: self.aal.to_vec() }
    }
}

impl Policy {
    /// Where this request goes, whatever the mode.
    pub fn upstream(&self, method: &Method, path: &Path<'_>, upgrade: bool) -> UpstreamId {
        let way = self.ways.iter().find(|way| covers_method(&way.methods, method, upgrade) && way.path.covers(path));
        way.map_or(self.upstream, |way| way.upstream)
    }

    /// Every upstream that requests may go to.
    pub fn upstreams(&self) -> impl Iterator<Item = UpstreamId> {
        std::iter::once(self.upstream).chain(self.ways.iter().map(|way| way.upstream))
    }

    /// What this request must show: the first matching route's rule, else the audience's.
    pub fn requirement(&self, method: &Method, path: &Path<'_>, upgrade: bool) -> Requirement<'_> {
        self.requirement_of(self.routes.iter().position(|r| r.matches(method, path, upgrade)).map_or(Rule::Audience, Rule::Route))
    }

    /// What a rule of this policy asks.
    pub fn requirement_of(&self, rule: Rule) -> Requirement<'_> {
        let route = if let Rule::Route(index) = rule { self.routes.get(index) } else { None };
        match route {
            Some(route) => Requirement {
                rule,
                level: route.require,
                max_age: route.max_age.unwrap_or(self.step_up_max_age),
                aal: &route.aal,
                claims: &route.require_claims,
            },
            None => {
                let level = match self.audience {
                    Audience::Anyone => Level::Anonymous,
                    Audience::Users => Level::Verified,
                };
                Requirement { rule: Rule::Audience, level, max_age: self.step_up_max_age, aal: &[], claims: &[] }
            }
        }
    }
}
