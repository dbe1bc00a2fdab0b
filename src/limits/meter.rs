//! One request before its tenant's limits: what it is asked at its two stops, and what its answer says of them. The one
//! collaborator of a decision that remembers anything; [`crate::admission`] shows where in the order it stands, decision
//! record 0011 why.
//!
//! Buckets are looked at first and charged together, so a request that one bucket refuses takes nothing from the others.
//! A request is charged once, however often it is decided about.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Allowance, Bucket, Limits, Per, Quota, Rule, Store, Verdict, Who};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;

/// Attempts at the server-to-server mint, per client: a guesser of the verification secret is slowed down, and nobody else.
const MINT: Quota = Quota { requests: NonZeroU32::new(2).unwrap(), period: Duration::from_secs(1), burst: NonZeroU32::new(20).unwrap() };

/// A tenant's limits, as one request meets them.
#[derive(Clone, Copy, Debug)]
pub struct Met<'t> {
    /// The tenant's id.
    pub tenant: &'t str,
    /// Its rules.
    pub limits: &'t Limits,
}

/// What one bucket had to say, for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    rule: String,
    /// Requests per window, in seconds.
    quota: (u64, u64),
    verdict: Verdict,
}

/// One request's meter.
#[derive(Debug)]
pub struct Meter {
    store: Option<Arc<dyn Store>>,
    client: Option<IpAddr>,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Which stops it has passed.
    minting: bool,
    arrived: bool,
    /// Whose embed key it came with.
    key: Option<Who>,
    said: Vec<Said>,
}

impl Meter {
    /// For a request of this client.
    pub fn new(store: Arc<dyn Store>, client: Option<IpAddr>) -> Self {
        Self { store: Some(store), client, record: Mutex::default() }
    }

    /// One that admits everything: where nothing is to be counted.
    pub fn unlimited() -> Self {
        Self { store: None, client: None, record: Mutex::default() }
    }

    /// A call of the server-to-server mint, before its body is read.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn mint(&self, now: UnixTime) -> Result<(), Denied> {
        let mut record = self.record.lock();
        if std::mem::replace(&mut record.minting, true) {
            return Ok(());
        }
        let bucket = Bucket { tenant: "", rule: "mint", who: Who::client(self.client), allowance: Allowance::Rate(MINT) };
        self.charge(&mut record, vec![bucket], now)
    }

    /// The first stop, before any token is looked at: charges the client's address, and looks at the embed key.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn arrive(&self, met: Met<'_>, embed_key: &str, head: &RequestHead<'_>, now: UnixTime) -> Result<(), Denied> {
        if met.limits.rules.is_empty() {
            return Ok(());
        }
        let mut record = self.record.lock();
        if std::mem::replace(&mut record.arrived, true) {
            return Ok(());
        }
        let key = Who::named(embed_key);
        record.key = Some(key);
        let keys = buckets(met, head, |per| (per == Per::EmbedKey).then_some(key));
        self.look(&mut record, &keys, now)?;
        let client = Who::client(self.client);
        self.charge(&mut record, buckets(met, head, |per| (per == Per::Client).then_some(client)), now)
    }

    /// The second stop, once the request is admitted: charges the embed key and the verified subject, and where there is no
    /// such subject and the request `spends`, the anonymous day.
    ///
    /// # Errors
    /// `rate_limited`, `limit_reached`.
    pub fn pass(&self, met: Met<'_>, subject: Option<&str>, spends: bool, head: &RequestHead<'_>, now: UnixTime) -> Result<(), Denied> {
        let anonymous = met.limits.anonymous_per_day.filter(|_| spends && subject.is_none());
        if met.limits.rules.is_empty() && anonymous.is_none() {
            return Ok(());
        }
        let mut record = self.record.lock();
        let (key, subject) = (record.key, subject.map(Who::named));
        let mut all = buckets(met, head, |per| match per {
            Per::EmbedKey => key,
            Per::Subject => subject,
            Per::Client => None,
        });
        if let Some(cap) = anonymous {
            let share = (cap.get() / Limits::SHARES).max(1);
            let day = |who, cap| Bucket { tenant: met.tenant, rule: Limits::ANONYMOUS, who, allowance: Allowance::Daily(cap) };
            all.push(day(Who::client(self.client), share));
            all.push(day(Who::All, cap.get()));
        }
        self.charge(&mut record, all, now)
    }

    /// What the answer says of the limits that it met.
    pub fn fields(&self) -> Option<Fields> {
        let record = self.record.lock();
        let mut fields = Fields::default();
        for said in &record.said {
            let (quota, window) = said.quota;
            let (remaining, time) = match said.verdict {
                Verdict::Admit { remaining, reset } => (remaining, whole_seconds(reset)),
                Verdict::Refuse { retry_after } => {
                    let wait = whole_seconds(retry_after);
                    fields.retry_after = fields.retry_after.max(Some(wait));
                    (0, wait)
                }
            };
            let comma = if fields.state.is_empty() { "" } else { ", " };
            fields.policy += &format!("{comma}\"{}\";q={quota};w={window}", said.rule);
            fields.state += &format!("{comma}\"{}\";r={remaining};t={time}", said.rule);
        }
        (!record.said.is_empty()).then_some(fields)
    }

    /// Takes one from each bucket, or from none.
    fn charge(&self, record: &mut Record, all: Vec<Bucket<'_>>, now: UnixTime) -> Result<(), Denied> {
        let Some(store) = &self.store else { return Ok(()) };
        self.look(record, &all, now)?;
        for bucket in all {
            record.hear(&bucket, store.charge(&bucket, now))?; // refuses only what somebody else took since the look
        }
        Ok(())
    }

    fn look(&self, record: &mut Record, all: &[Bucket<'_>], now: UnixTime) -> Result<(), Denied> {
        let Some(store) = &self.store else { return Ok(()) };
        for bucket in all {
            let verdict = store.look(bucket, now);
            if matches!(verdict, Verdict::Refuse { .. }) {
                record.hear(bucket, verdict)?;
            }
        }
        Ok(())
    }
}

impl Record {
    /// Remembers what a bucket said; of two buckets of one rule, the one with less.
    fn hear(&mut self, bucket: &Bucket<'_>, verdict: Verdict) -> Result<(), Denied> {
        let quota = match bucket.allowance {
            Allowance::Rate(quota) => (quota.requests.get().into(), whole_seconds(quota.period)),
            Allowance::Daily(cap) => (cap, 24 * 3600),
        };
        let said = Said { rule: bucket.rule.to_owned(), quota, verdict };
        match self.said.iter_mut().find(|earlier| earlier.rule == said.rule) {
            Some(earlier) if left(earlier.verdict) <= left(verdict) => {}
            Some(earlier) => earlier.verdict = verdict,
            None => self.said.push(said),
        }
        match (verdict, bucket.allowance, bucket.who) {
            (Verdict::Admit { .. }, _, _) => Ok(()),
            (Verdict::Refuse { .. }, Allowance::Rate(_), _) => Err(Denied::new(Reason::RateLimited, format!("limit {}", bucket.rule))),
            (Verdict::Refuse { .. }, Allowance::Daily(_), Who::All) => Err(Denied::new(Reason::LimitReached, "the tenant's day")),
            (Verdict::Refuse { .. }, Allowance::Daily(_), _) => Err(Denied::new(Reason::LimitReached, "the client's share of the day")),
        }
    }
}

/// Header fields of an answer (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// `RateLimit-Policy`: for each rule `q` requests in `w` seconds.
    pub policy: String,
    /// `RateLimit`: `r` requests may follow at once, and another after `t` seconds.
    pub state: String,
    /// `Retry-After`, in seconds, where one refused.
    pub retry_after: Option<u64>,
}

/// The buckets of the rules that cover a request, for those whose share is known.
fn buckets<'t>(met: Met<'t>, head: &RequestHead<'_>, whose: impl Fn(Per) -> Option<Who>) -> Vec<Bucket<'t>> {
    let bucket = |rule: &'t Rule| {
        let who = whose(rule.per).filter(|_| rule.covers(head))?;
        Some(Bucket { tenant: met.tenant, rule: &rule.name, who, allowance: Allowance::Rate(rule.quota) })
    };
    met.limits.rules.iter().filter_map(bucket).collect()
}

fn left(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Admit { remaining, .. } => Some(remaining),
        Verdict::Refuse { .. } => None,
    }
}

/// Rounded up: a client that waits this long has waited long enough.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::memory::Memory;
    use governor::clock::FakeRelativeClock;

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    fn rule(per: Per, burst: u32) -> Rule {
        let quota =
            Quota { requests: NonZeroU32::new(60).unwrap(), period: Duration::from_secs(60), burst: NonZeroU32::new(burst).unwrap() };
        Rule { name: per.as_str().to_owned(), per, path: None, methods: Vec::new(), quota }
    }

    struct Tenant {
        store: Arc<Memory<FakeRelativeClock>>,
        limits: Limits,
    }

    impl Tenant {
        fn new(rules: Vec<Rule>, per_day: u64) -> Self {
            let store = Arc::new(Memory::new(FakeRelativeClock::default()));
            Self { store, limits: Limits { rules, anonymous_per_day: std::num::NonZeroU64::new(per_day) } }
        }

        /// A whole request, whose decision between the stops is `passes`; with what its answer says.
        fn ask(&self, client: u8, subject: Option<&str>, passes: bool) -> (Result<(), Reason>, Option<Fields>) {
            let (parts, ()) = http::Request::post("/chat").header("host", "h").body(()).unwrap().into_parts();
            let head = RequestHead::parse(&parts).unwrap();
            let meter = Meter::new(Arc::clone(&self.store) as Arc<dyn Store>, Some([192, 0, 2, client].into()));
            let met = Met { tenant: "acme", limits: &self.limits };
            let stops = || {
                meter.arrive(met, "pk_1", &head, NOW)?;
                meter.arrive(met, "pk_1", &head, NOW)?; // decided about again, with its body
                if passes { meter.pass(met, subject, true, &head, NOW) } else { Ok(()) }
            };
            (stops().map_err(|why| why.reason), meter.fields())
        }

        fn times(&self, client: u8, subject: Option<&str>) -> usize {
            (0..1000).take_while(|_| self.ask(client, subject, true).0.is_ok()).count()
        }
    }

    #[test]
    fn the_client_is_charged_on_arrival_and_once() {
        let tenant = Tenant::new(vec![rule(Per::Client, 3)], 0);
        (0..3).for_each(|_| assert_eq!(tenant.ask(1, None, false).0, Ok(())));
        let (refused, fields) = tenant.ask(1, None, false);
        assert_eq!(refused, Err(Reason::RateLimited));
        let wanted = Fields { policy: "\"client\";q=60;w=60".to_owned(), state: "\"client\";r=0;t=1".to_owned(), retry_after: Some(1) };
        assert_eq!(fields, Some(wanted));
        assert_eq!(tenant.times(2, None), 3);
    }

    #[test]
    fn denied_requests_take_nothing_from_keys_and_subjects() {
        let tenant = Tenant::new(vec![rule(Per::EmbedKey, 4), rule(Per::Subject, 2)], 0);
        (0..100).for_each(|_| assert_eq!(tenant.ask(1, Some("ada"), false).0, Ok(())));
        assert_eq!(tenant.times(1, Some("ada")), 2);
        (0..100).for_each(|_| assert_eq!(tenant.ask(1, Some("ada"), true).0, Err(Reason::RateLimited)));
        assert_eq!(tenant.times(1, Some("bob")), 2, "what ada was refused took nothing from the key");
        assert_eq!(tenant.ask(9, None, true).0, Err(Reason::RateLimited), "the key's four are spent, whoever comes");
    }

    #[test]
    fn nobody_is_no_subject() {
        let tenant = Tenant::new(vec![rule(Per::Subject, 1)], 0);
        assert_eq!(tenant.times(1, None), 1000);
        assert_eq!(tenant.ask(1, None, true).1, None, "no limit, nothing to say");
    }

    #[test]
    fn one_client_spends_a_twentieth_of_the_day_and_verified_callers_none_of_it() {
        let tenant = Tenant::new(vec![], 100);
        assert_eq!(tenant.ask(1, None, true).1.unwrap().state, "\"anonymous\";r=4;t=35200");
        assert_eq!(tenant.times(1, None), 4);
        let (refused, fields) = tenant.ask(1, None, true);
        assert_eq!((refused, fields.unwrap().retry_after), (Err(Reason::LimitReached), Some(35_200)), "until midnight");
        assert_eq!(tenant.times(1, Some("ada")), 1000);
        let others: usize = (2..=30).map(|client| tenant.times(client, None)).sum();
        assert_eq!(others, 95, "what the first client was refused is left for others");
        assert_eq!(tenant.times(1, Some("ada")), 1000, "nor does a spent day stop them");
        assert_eq!(tenant.ask(40, None, false).0, Ok(()));
    }

    #[test]
    fn every_limit_that_was_met_is_named() {
        let tenant = Tenant::new(vec![rule(Per::Client, 20), rule(Per::EmbedKey, 10), rule(Per::Subject, 5)], 0);
        let fields = tenant.ask(1, Some("ada"), true).1.unwrap();
        assert_eq!(fields.policy, "\"client\";q=60;w=60, \"embed_key\";q=60;w=60, \"subject\";q=60;w=60");
        assert_eq!(fields.state, "\"client\";r=19;t=1, \"embed_key\";r=9;t=1, \"subject\";r=4;t=1");
        assert_eq!(fields.retry_after, None);
    }

    #[test]
    fn the_mint_has_a_limit_of_its_own() {
        let store = Arc::new(Memory::new(FakeRelativeClock::default()));
        let attempt = || {
            let meter = Meter::new(Arc::clone(&store) as Arc<dyn Store>, None);
            meter.mint(NOW).and_then(|()| meter.mint(NOW))
        };
        assert_eq!((0..100).filter(|_| attempt().is_ok()).count(), 20);
    }
}
