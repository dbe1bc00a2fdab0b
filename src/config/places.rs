//! `[tenant.places]`: where a tenant's clients put things, each written as `"bearer"`, `"header:NAME"`, `"query:NAME"`,
//! `"body:member.member"` or `"path:/*/*/v1/*"`.

use super::diagnostic::{Code, Diagnostic};
use super::field::{Complaint, Word};
use super::header::OwnHeader;
use super::table::{Located, Table};
use crate::request::body::{Inspected, Purpose};
use crate::request::path::PathPattern;
use crate::tenant::{Place, Places};

/// A place in the head or the body.
#[derive(Debug)]
enum AnyPlace {
    Head(Place),
    Body(Vec<String>),
}

/// Reads the places.
pub(super) fn places(tenant: &Table<'_>) -> Places {
    let table = tenant.table("places");
    let mut places = Places::default();
    let mut body = Vec::new();
    places.embed_key = heads(&table, "embed_key", None, &mut body);
    places.token = heads(&table, "token", Some(Purpose::Token), &mut body);
    places.asserted_id = heads(&table, "asserted_id", Some(Purpose::AssertedId), &mut body);
    places.tenant_name = heads(&table, "tenant_name", Some(Purpose::TenantName), &mut body);
    refuse_double_use(&table, &body);
    places.body = body.into_iter().map(|b| b.value).collect();
    places.body_paths = table.list::<PathPattern>("body_paths").unwrap_or_default().into_iter().map(|p| p.value).collect();
    if !table.is_partial() {
        refuse_useless_hold(&table, &places);
    }
    table.finish();
    places
}

/// The head places of one list; its body members go to `body`.
fn heads(table: &Table<'_>, key: &'static str, purpose: Option<Purpose>, body: &mut Vec<Located<Inspected>>) -> Vec<Place> {
    let mut heads = Vec::new();
    for found in table.list::<AnyPlace>(key).unwrap_or_default() {
        let refuse = |sentence: &str, help: &str| {
            let title = format!("`tenant.places.{key}` cannot be {sentence}");
            table.report(Diagnostic::new(Code::BadPlace, found.site.clone(), title).help(help));
        };
        match (found.value, purpose) {
            (AnyPlace::Body(_), None) => {
                refuse("in the body", "the key decides before a body is awaited: name a header or a query parameter")
            }
            (AnyPlace::Body(path), Some(purpose)) => body.push(Located { value: Inspected { path, purpose }, site: found.site }),
            (AnyPlace::Head(Place::Query(_)), Some(Purpose::Token)) => {
                refuse("in the query", "URLs end up in logs and histories: name a header, or a member of the body")
            }
            (AnyPlace::Head(Place::Path(_)), None | Some(Purpose::Token)) => {
                refuse("in the path", "URLs end up in logs and histories: name a header")
            }
            (AnyPlace::Head(Place::Bearer), Some(Purpose::AssertedId | Purpose::TenantName)) => {
                refuse("in Authorization", "what stands there is an embed key or a token: name a header or a query parameter")
            }
            (AnyPlace::Head(place), _) if heads.contains(&place) => refuse("listed twice", "list each place once"),
            (AnyPlace::Head(place), _) => heads.push(place),
        }
    }
    heads
}

/// One member of a body cannot mean two things, and no member inside one that must be a string can be read.
fn refuse_double_use(table: &Table<'_>, body: &[Located<Inspected>]) {
    for (index, inspected) in body.iter().enumerate() {
        let path = &inspected.value.path;
        let earlier = body.iter().take(index).find(|e| e.value.path.starts_with(path) || path.starts_with(&e.value.path));
        if let Some(earlier) = earlier {
            let title = format!("body member {} is inspected twice", path.join("."));
            let diagnostic = Diagnostic::new(Code::BadPlace, inspected.site.clone(), title);
            table
                .report(diagnostic.beside(earlier.site.clone(), "first used here").help("a member is one thing: a token, an id or a name"));
        }
    }
}

fn refuse_useless_hold(table: &Table<'_>, places: &Places) {
    let (title, help) = match (places.body.is_empty(), places.body_paths.is_empty()) {
        (false, true) => (
            "body members are inspected, and no path's body is held",
            "list the paths in places.body_paths, or name places in the head only",
        ),
        (true, false) => ("bodies are held, and no member of them is inspected", "add a \"body:…\" place, or remove body_paths"),
        (true, true) | (false, false) => return,
    };
    table.report(Diagnostic::new(Code::BodyPathsMissing, table.site_of("body_paths"), title).help(help));
}

/// A place in the head that is no credential's.
#[derive(Debug)]
pub(super) struct HeadPlace(pub(super) Place);

impl Word for HeadPlace {
    const EXAMPLE: &'static str = "\"header:X-Conversation-Id\"";
    const WANTED: &'static str = "a place";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let help = "write \"header:NAME\", \"query:NAME\" or \"path:/conversations/*/*\"";
        match AnyPlace::parse(text).map_err(|complaint| complaint.help(help))? {
            AnyPlace::Head(Place::Bearer) => {
                Err(Complaint::new(Code::BadPlace, "does not take \"bearer\": what stands there is an embed key or a token").help(help))
            }
            AnyPlace::Head(Place::Path(pattern)) if !pattern.has_star() => {
                let sentence = format!("does not take \"{text}\": no star in it stands for one segment, a final one is everything below");
                Err(Complaint::new(Code::BadPlace, sentence).help(help))
            }
            AnyPlace::Head(place) => Ok(Self(place)),
            AnyPlace::Body(_) => {
                Err(Complaint::new(Code::BadPlace, format!("does not take \"{text}\": bodies are sent on unread")).help(help))
            }
        }
    }
}

impl Word for AnyPlace {
    const EXAMPLE: &'static str = "\"header:X-User-Token\"";
    const WANTED: &'static str = "a place";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let shape = "write \"bearer\", \"header:NAME\", \"query:NAME\", \"body:member.member\" or \"path:/*/*/v1/*\"";
        let bad = |why: &str| Complaint::new(Code::BadPlace, format!("does not take \"{text}\": {why}")).help(shape);
        match text.split_once(':') {
            None if text == "bearer" => Ok(Self::Head(Place::Bearer)),
            Some(("header", name)) if name.eq_ignore_ascii_case("authorization") => {
                Err(Complaint::new(Code::BadPlace, "reads Authorization by its scheme").help("write \"bearer\""))
            }
            Some(("header", name)) => OwnHeader::parse(name).map(|name| Self::Head(Place::Header(name.0))),
            Some(("query", name)) if is_name(name) => Ok(Self::Head(Place::Query(name.to_owned()))),
            Some(("body", path)) if path.split('.').all(is_name) => Ok(Self::Body(path.split('.').map(str::to_owned).collect())),
            Some(("path", pattern)) => {
                let pattern = PathPattern::parse(pattern).map_err(|why| bad(&why))?;
                Ok(Self::Head(Place::Path(pattern)))
            }
            Some(("cookie", _)) => Err(bad("cookies are never a credential")),
            Some(("query", _)) => Err(bad("the parameter has no plain name")),
            Some(("body", _)) => Err(bad("the member has no plain name")),
            _ => Err(bad("no such place")),
        }
    }
}

/// A parameter's or member's name that needs no escaping anywhere.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$' | b'[' | b']'))
}
