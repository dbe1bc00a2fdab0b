//! `[[tenant.route]]`: path and methods to a level, its freshness, and claim values; or to an upstream; or to both. One table
//! gives one of each at most, and the first of its kind that matches applies: a route that says where a path goes hides none
//! that says who may call it.

use std::time::Duration;

use http::Method;

use super::diagnostic::{Code, Diagnostic, Site};
use super::server::duration_within;
use super::table::Table;
use super::tenant::{named_upstream, words};
use super::upstreams::Names;
use crate::policy::{Level, RequiredClaim, Route, Way};
use crate::request::path::PathPattern;
use crate::token::claims::Forward;

const SECOND: Duration = Duration::from_secs(1);

/// Reads a tenant's routes, in file order: rules, and ways to upstreams. `forward` is what its claims leave for routes to look
/// at.
pub(super) fn routes(tenant: &Table<'_>, forward: &Forward, upstreams: &Names) -> (Vec<Route>, Vec<Way>) {
    let mut routes: Vec<(Route, Site)> = Vec::new();
    let mut ways: Vec<(Way, Site)> = Vec::new();
    for table in tenant.tables("route") {
        let path = table.need::<PathPattern>("path").map(|p| p.value);
        let methods: Vec<_> = table.list::<Method>("methods").unwrap_or_default().into_iter().map(|m| m.value).collect();
        let upstream = named_upstream(&table, upstreams);
        let route = rule(&table, path.clone(), methods.clone(), forward);
        table.finish();
        let site = table.site_of("path");
        let shadowed = |first: &Site| {
            let diagnostic = Diagnostic::new(Code::RouteShadowed, site.clone(), "an earlier route matches everything that this one does");
            table.report(
                diagnostic.beside(first.clone(), "applies first").help("the first route that matches applies: move this one before it"),
            );
        };
        if let Some(route) = route {
            routes.iter().find(|(earlier, _)| earlier.leaves_nothing_of(&route)).into_iter().for_each(|(_, first)| shadowed(first));
            routes.push((route, site.clone()));
        }
        if let (Some(path), Some(upstream)) = (path, upstream) {
            let way = Way { path, methods, upstream };
            ways.iter().find(|(earlier, _)| earlier.leaves_nothing_of(&way)).into_iter().for_each(|(_, first)| shadowed(first));
            ways.push((way, site.clone()));
        }
    }
    (routes.into_iter().map(|(route, _)| route).collect(), ways.into_iter().map(|(way, _)| way).collect())
}

/// `None` where the route says nothing about callers, or a problem was recorded.
fn rule(table: &Table<'_>, path: Option<PathPattern>, methods: Vec<Method>, forward: &Forward) -> Option<Route> {
    let claims = table.entries::<Vec<String>>("require_claims");
    for (name, _) in claims.iter().filter(|(name, _)| !forward.passes(&name.value)) {
        let title = format!("claim {} is not passed on, so it is nobody's: the route denies everybody", name.value);
        let help = "add it to claims.forward; times, issuer and audience are never passed on";
        table.report(Diagnostic::new(Code::ClaimNotForwarded, name.site.clone(), title).help(help));
    }
    let require_claims: Vec<_> =
        claims.into_iter().map(|(name, values)| RequiredClaim { name: name.value, values: values.value }).collect();
    // Claims are only ever a verified caller's, so a route that asks for some has said its level.
    // And one that goes elsewhere need not say more.
    let silent = require_claims.is_empty() && !table.writes("require_claims");
    let only_a_way = silent && table.writes("upstream") && !table.writes("require");
    let require = if silent && !only_a_way { table.need::<Level>("require") } else { table.get::<Level>("require") };
    let require = require.map_or(Level::Verified, |r| r.value);
    let max_age = duration_within(table, "max_age", SECOND..=2_592_000 * SECOND);
    let aal = words(table, "aal");
    for key in ["max_age", "aal"].into_iter().filter(|key| (only_a_way || require != Level::SteppedUp) && table.writes(key)) {
        let title = format!("`{key}` does nothing unless the route requires \"stepped_up\"");
        table.report(Diagnostic::new(Code::NoEffect, table.site_of(key), title).help("write require = \"stepped_up\", or remove it"));
    }
    for claim in require_claims.iter().filter(|claim| claim.values.is_empty()) {
        let title = format!("claim {} has no accepted value: the route denies everybody", claim.name);
        let help = "list the values that pass, like role = [\"admin\"]";
        table.report(Diagnostic::new(Code::BadValue, table.site_of("require_claims"), title).help(help));
    }
    (!only_a_way).then_some(Route { path: path?, methods, require, max_age, aal, require_claims })
}

/// Where a tenant's routes require a step-up.
pub(super) fn stepped_up(tenant: &Table<'_>) -> Vec<Site> {
    let tables = tenant.tables("route");
    let wanting = tables.iter().filter(|t| t.word("require") == Some("stepped_up"));
    wanting.map(|t| t.site_of("require")).collect()
}
