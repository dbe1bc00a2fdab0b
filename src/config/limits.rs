//! `[[tenant.limit]]` and `[tenant.anonymous]`: how often a tenant's callers may ask.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use http::Method;

use super::diagnostic::{Code, Diagnostic, Site};
use super::field::Id;
use super::server::{duration, number_within};
use super::table::Table;
use crate::limits::{Limits, Per, Quota, Rule};
use crate::request::path::PathPattern;

const MINUTE: Duration = Duration::from_secs(60);
const MOST: u64 = 1_000_000;

/// Reads a tenant's limits, in file order.
pub(super) fn limits(tenant: &Table<'_>) -> Limits {
    let mut rules: Vec<Rule> = Vec::new();
    let mut sites: Vec<Site> = Vec::new();
    for table in tenant.tables("limit") {
        let Some((rule, site)) = rule(&table, &rules) else { continue };
        if rule.name == Limits::ANONYMOUS {
            let title = format!("`{}` is the name of the daily cap", Limits::ANONYMOUS);
            table.report(Diagnostic::new(Code::DuplicateId, site.clone(), title).help("give the limit another name"));
        }
        if let Some((_, first)) = rules.iter().zip(&sites).find(|(earlier, _)| earlier.name == rule.name) {
            let diagnostic = Diagnostic::new(Code::DuplicateId, site.clone(), format!("limit {} stands twice", rule.name));
            table.report(diagnostic.beside(first.clone(), "first used here").help("give each its own name"));
        }
        rules.push(rule);
        sites.push(site);
    }
    let anonymous = tenant.table("anonymous");
    let per_day = number_within(&anonymous, "requests_per_day", 1..=1_000_000_000);
    anonymous.finish();
    Limits { rules, anonymous_per_day: per_day.and_then(|n| NonZeroU64::new(n as u64)) }
}

/// A rule, and where its name stands or would.
fn rule(table: &Table<'_>, earlier: &[Rule]) -> Option<(Rule, Site)> {
    let per = table.need::<Per>("per");
    let name = table.get::<Id>("name");
    let path = table.get::<PathPattern>("path").map(|path| path.value);
    let methods = table.list::<Method>("methods").unwrap_or_default().into_iter().map(|m| m.value).collect();
    let asked = table.need::<u64>("requests").map(|_| number_within(table, "requests", 1..=MOST).unwrap_or(1));
    let period = duration(table, "period", MINUTE, Duration::from_secs(1)..=24 * 60 * MINUTE);
    let burst = number_within(table, "burst", 1..=MOST).or(asked).and_then(|burst| NonZeroU32::new(u32::try_from(burst).ok()?));
    table.finish();
    let (per, requests) = (per?.value, u32::try_from(asked?).ok().and_then(NonZeroU32::new)?);
    let site = name.as_ref().map_or_else(|| table.site(), |name| name.site.clone());
    let name = name.map_or_else(|| default_name(per, earlier), |name| name.value.0);
    Some((Rule { name, per, path, methods, quota: Quota { requests, period, burst: burst? } }, site))
}

/// `client`, then `client-2` and so on.
fn default_name(per: Per, earlier: &[Rule]) -> String {
    match earlier.iter().filter(|rule| rule.per == per).count() {
        0 => per.as_str().to_owned(),
        others => format!("{}-{}", per.as_str(), others + 1),
    }
}
