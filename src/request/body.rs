//! The few members of a JSON body that a tenant inspects, read without building the document: memory stays within a small
//! multiple of what the client sent. Everything that another JSON reader might see differently is refused (`threats` 36):
//! a backend must not find an identity here that we did not see.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use crate::json::{self, MAX_SAFE_INTEGER};
use crate::reason::{Denied, Reason};

/// What an inspected member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The identity token.
    Token,
    /// A user id asserted beside the token.
    AssertedId,
    /// A name of the tenant.
    TenantName,
}

/// A member path such as `metadata.user_id`, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inspected {
    /// Member names from the top-level object down.
    pub path: Vec<String>,
    /// What it is for.
    pub purpose: Purpose,
}

/// The inspected members that a body has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFields {
    found: Vec<(Purpose, String)>,
}

impl BodyFields {
    /// Reads a held body. An empty body has no fields. `null` and `""` name nobody and count as absent.
    ///
    /// # Errors
    /// `body_malformed` or `body_ambiguous` for anything but one strict UTF-8 JSON object whose inspected members are
    /// strings or safe integers.
    pub fn parse(bytes: &[u8], inspected: &[Inspected]) -> Result<Self, Denied> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut fields = Self::default();
        let here: Vec<_> = inspected.iter().map(|i| (i.path.as_slice(), i.purpose)).collect();
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        reader.deserialize_map(Object { here, found: &mut fields.found }).and_then(|()| reader.end()).map_err(|error| {
            let text = error.to_string();
            let reason = if text.starts_with(json::DUPLICATE) { Reason::BodyAmbiguous } else { Reason::BodyMalformed };
            Denied::new(
                reason,
                match reason {
                    Reason::BodyAmbiguous => "a member stands twice, or in another case",
                    _ if text.starts_with(NOT_AN_ID) => "an inspected member is neither a string nor a safe integer",
                    _ => "not one strict JSON object",
                },
            )
        })?;
        Ok(fields)
    }

    /// The values found for one purpose, in body order.
    pub fn of(&self, purpose: Purpose) -> impl Iterator<Item = &str> {
        self.found.iter().filter(move |(p, _)| *p == purpose).map(|(_, value)| value.as_str())
    }
}

const NOT_AN_ID: &str = "not an id";

/// Whether a lenient reader takes one member name for the other (Go's `strings.EqualFold`, `ſ` and the Kelvin sign
/// included): equal after upper-casing, then lower-casing.
fn same_when_folded(a: &str, b: &str) -> bool {
    let fold = |name: &str| name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>();
    if a.is_ascii() && b.is_ascii() { a.eq_ignore_ascii_case(b) } else { fold(a) == fold(b) }
}

/// Reads one object; `here` holds what is inspected at this level and below.
struct Object<'p, 'f> {
    here: Vec<(&'p [String], Purpose)>,
    found: &'f mut Vec<(Purpose, String)>,
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            let mut below = Vec::new();
            let mut purpose = None;
            for (path, p) in &self.here {
                match path.split_first() {
                    Some((first, rest)) if *first == *name => {
                        if rest.is_empty() {
                            purpose = Some(*p)
                        } else {
                            below.push((rest, *p))
                        }
                    }
                    Some((first, _)) if same_when_folded(first, &name) => return Err(A::Error::custom(json::DUPLICATE)),
                    _ => {}
                }
            }
            if !seen.insert(name) {
                return Err(A::Error::custom(json::DUPLICATE));
            }
            members.next_value_seed(Member { below, purpose, found: &mut *self.found })?;
        }
        Ok(())
    }
}

/// A member name, borrowed where it has no escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(v.to_owned())))
            }
        }
        reader.deserialize_str(NameVisitor)
    }
}

/// Reads one value: kept if it is inspected, walked for duplicates otherwise.
struct Member<'p, 'f> {
    below: Vec<(&'p [String], Purpose)>,
    purpose: Option<Purpose>,
    found: &'f mut Vec<(Purpose, String)>,
}

impl Member<'_, '_> {
    fn keep<E: Error>(self, value: &str) -> Result<(), E> {
        // A string where an object with inspected members belongs hides nothing: no reader finds an id in it.
        if let Some(purpose) = self.purpose
            && !value.is_empty()
        {
            self.found.push((purpose, value.to_owned()));
        }
        Ok(())
    }

    fn refuse_if_inspected<E: Error>(&self) -> Result<(), E> {
        if self.purpose.is_some() { Err(E::custom(NOT_AN_ID)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.refuse_if_inspected()
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<(), E> {
        match self.purpose {
            Some(Purpose::AssertedId) if v.unsigned_abs() <= MAX_SAFE_INTEGER => self.keep(&v.to_string()),
            _ => self.refuse_if_inspected(),
        }
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<(), E> {
        match self.purpose {
            Some(Purpose::AssertedId) if v <= MAX_SAFE_INTEGER => self.keep(&v.to_string()),
            _ => self.refuse_if_inspected(),
        }
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.refuse_if_inspected()
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<(), E> {
        self.keep(v)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.refuse_if_inspected()?;
        while elements.next_element_seed(Member { below: Vec::new(), purpose: None, found: &mut *self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        self.refuse_if_inspected()?;
        Object { here: self.below, found: self.found }.visit_map(members)
    }
}
