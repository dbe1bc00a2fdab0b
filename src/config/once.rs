//! What may stand once: tenant ids, embed keys, and every piece of key material, so that none serves two purposes
//! (`threats` 41). Readers claim, [`settle`] compares. At start every clash is an error; on reload it decides which tenant
//! files are refused, so that what is in force never gives way to whoever claims it anew (decision record 0006).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::context::{Context, MAIN};
use super::diagnostic::{Code, Diagnostic, Site};
use crate::secret::{Fingerprint, KeyBytes};
use crate::tenant::Tenant;
use crate::token::keys::Material;

/// Something that may stand once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Thing {
    /// A tenant's id.
    Id(String),
    /// Key material after decoding, embed keys included: those are public, so none is a secret.
    Material(Fingerprint),
    /// Where an issuer publishes its keys: it stands for them.
    Url(String),
}

/// Whether a second owner of the same thing is safe.
#[derive(Clone, Debug)]
pub(super) enum Sharing {
    /// Never: a name, or what signs for whoever holds it.
    Never,
    /// A tenant's embed key: never either, said in its own words.
    EmbedKey { tenant: String },
    /// A public key of this tenant, for tokens with one of these audiences: an issuer may serve two tenants only where its
    /// tokens say for which (`threats` 13).
    Public { tenant: String, audiences: Vec<String> },
}

impl Sharing {
    fn allows(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Public { tenant: a, audiences: mine }, Self::Public { tenant: b, audiences: theirs }) => {
                a != b && !mine.is_empty() && !theirs.is_empty() && !mine.iter().any(|audience| theirs.contains(audience))
            }
            _ => false,
        }
    }
}

/// One use of something that may stand once.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) thing: Thing,
    /// Who claims it, as problems say it.
    pub(super) owner: String,
    pub(super) sharing: Sharing,
    /// The file that claims it.
    pub(super) scope: usize,
    /// Where; `None` for a tenant that stays in force while its file is refused.
    pub(super) site: Option<Site>,
}

/// Compares every claim and reports what clashes. Returns the tenant files that are refused, with those that had errors
/// before; none where `before` is `None`, since then any error fails the load. `before` holds what the tenant files gave to
/// the configuration in force.
pub(super) fn settle(cx: &Context<'_>, before: Option<&BTreeMap<usize, Arc<Tenant>>>) -> BTreeSet<usize> {
    let fresh = cx.claims();
    let Some(before) = before else {
        let clashes = clashes(fresh.iter());
        clashes.iter().for_each(|(first, later)| report(cx, later, first));
        return BTreeSet::new();
    };
    let held: Vec<Claim> = before.iter().flat_map(|(scope, tenant)| of_tenant(*scope, tenant)).collect();
    let mut refused = cx.broken();
    refused.remove(&MAIN); // its errors refuse everything by themselves
    loop {
        let main = fresh.iter().filter(|claim| claim.scope == MAIN);
        let kept = held.iter().filter(|claim| refused.contains(&claim.scope));
        let taken = fresh.iter().filter(|claim| claim.scope != MAIN && !refused.contains(&claim.scope));
        let mut losers = BTreeSet::new();
        for (first, later) in clashes(main.chain(kept).chain(taken)) {
            for loser in losers_of(first, later, &held) {
                report(cx, loser, if std::ptr::eq(loser, first) { later } else { first });
                losers.insert(loser.scope);
            }
        }
        losers.remove(&MAIN);
        losers.retain(|scope| !refused.contains(scope)); // what stays was compared when it was put in force
        if losers.is_empty() {
            return refused;
        }
        // A file that is refused brings back the tenant it gave before, which is compared with the rest in its turn.
        refused.append(&mut losers);
    }
}

/// Pairs that cannot live side by side, in claiming order.
fn clashes<'c>(claims: impl Iterator<Item = &'c Claim>) -> Vec<(&'c Claim, &'c Claim)> {
    let mut standing: HashMap<&Thing, Vec<&Claim>> = HashMap::new();
    let mut clashes = Vec::new();
    for claim in claims {
        let earlier = standing.entry(&claim.thing).or_default();
        if let Some(first) = earlier.iter().find(|first| !claim.sharing.allows(&first.sharing)) {
            clashes.push((*first, claim));
        }
        earlier.push(claim);
    }
    clashes
}

/// Who has to give way: whoever is new where the other was in force; both where both are new.
fn losers_of<'c>(first: &'c Claim, later: &'c Claim, held: &[Claim]) -> Vec<&'c Claim> {
    let in_force = |claim: &Claim| held.iter().any(|h| h.scope == claim.scope && h.thing == claim.thing);
    match (first, later) {
        _ if first.scope == later.scope => vec![later],
        // The main file changed, and claims what a refused tenant file still holds: nothing of it can be put in force.
        (Claim { scope: MAIN, .. }, Claim { site: None, .. }) => vec![first],
        (Claim { scope: MAIN, .. } | Claim { site: None, .. }, _) => vec![later],
        _ if in_force(first) && !in_force(later) => vec![later],
        _ if in_force(later) && !in_force(first) => vec![first],
        _ => vec![first, later],
    }
}

fn report(cx: &Context<'_>, loser: &Claim, other: &Claim) {
    // Who gives way was read in this load, so it has a place.
    let Some(site) = loser.site.clone() else { return };
    let (code, title, help) = match (&loser.thing, &loser.sharing, &other.sharing) {
        (Thing::Id(id), _, _) => (Code::DuplicateTenant, format!("tenant {id} stands twice"), "give each tenant its own id"),
        (_, Sharing::EmbedKey { .. }, Sharing::EmbedKey { tenant }) => (
            Code::DuplicateEmbedKey,
            format!("this embed key names tenant {tenant} already"),
            "an embed key names one tenant: make another with doorward embed-key new",
        ),
        (Thing::Url(_), _, _) => (
            Code::SecretReused,
            format!("{} is fetched from where {} is", loser.owner, other.owner),
            "tenants may share an issuer only where each lists its own claims.audiences, and one tenant names it once",
        ),
        (_, sharing, _) => (
            Code::SecretReused,
            format!("{} is the same key material as {}", loser.owner, other.owner),
            match sharing {
                Sharing::Never | Sharing::EmbedKey { .. } => "one key, one purpose: make another with doorward secret new",
                Sharing::Public { .. } => "tenants may share an issuer's key only where each lists its own claims.audiences",
            },
        ),
    };
    let diagnostic = Diagnostic::new(code, site, title).help(help);
    cx.within(loser.scope, || {
        cx.report(match &other.site {
            Some(first) => diagnostic.beside(first.clone(), "first used here"),
            None => diagnostic,
        });
    });
}

/// What a tenant in force holds.
fn of_tenant(scope: usize, tenant: &Tenant) -> Vec<Claim> {
    let stays = format!("tenant {}, which stays in force while its file is refused", tenant.id);
    let claim = |thing, what: &str, sharing| Claim { thing, owner: format!("{what} of {stays}"), sharing, scope, site: None };
    let mut claims = vec![claim(Thing::Id(tenant.id.clone()), "the id", Sharing::Never)];
    let public = || Sharing::Public { tenant: tenant.id.clone(), audiences: tenant.claims.audiences.clone() };
    for remote in tenant.keys.remotes() {
        claims.push(claim(Thing::Url(remote.source.url.clone()), &format!("key {}", remote.id), public()));
    }
    for key in tenant.keys.own() {
        let sharing = match key.material() {
            Material::Secret { .. } => Sharing::Never,
            Material::Public { .. } => public(),
        };
        claims.push(claim(Thing::Material(key.fingerprint), &format!("key {}", key.id), sharing));
    }
    for key in &tenant.embed_keys {
        let fingerprint = KeyBytes::new(key.as_str().as_bytes()).fingerprint();
        claims.push(claim(Thing::Material(fingerprint), "an embed key", Sharing::EmbedKey { tenant: tenant.id.clone() }));
    }
    if let Some(secret) = &tenant.endpoints.verification_secret {
        claims.push(claim(Thing::Material(secret.fingerprint()), "the verification secret", Sharing::Never));
    }
    claims
}
