//! Deciding about a request that somebody else will send upstream: the same order of checks, and nothing but yes or no.

use super::{Admitted, Body, Decision, Denial, Rules, decide, unknown};
use crate::client;
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::credential::Form;

/// Decides about a request whose body is not here, and which passes or does not: nothing can be answered in its place.
///
/// # Errors
/// Every denial of [`decide`]; `forward_auth_unanswerable` for what the gateway would answer itself, and for a session in
/// the query, which nobody would remove there.
pub fn decide_check(head: &RequestHead<'_>, rules: Rules<'_>, now: UnixTime) -> Result<Admitted, Box<Denial>> {
    let stop = |why: Denied| Err(Box::new(unknown(why, head.origin, rules.tenants)));
    let unanswerable = |what: &'static str| stop(Denied::new(Reason::ForwardAuthUnanswerable, what));
    match head.query.one(RequestHead::SESSION_PARAMETER) {
        Ok(Some(token)) if matches!(Form::of(&token), Ok(Form::Session)) => return unanswerable("a session in the query"),
        Ok(_) => {}
        Err(why) => return stop(why),
    }
    if rules.sessions.are_on() && client::at(head.path.as_str()).is_some() {
        return unanswerable("the page's script");
    }
    match decide(head, Body::NotRead, rules, now) {
        Decision::Forward(admitted) => Ok(admitted),
        Decision::Deny(denial) => Err(Box::new(denial)),
        Decision::Preflight(_) => unanswerable("a preflight"),
        Decision::Own(_) | Decision::NeedBody => unanswerable("an endpoint of the gateway"),
    }
}
