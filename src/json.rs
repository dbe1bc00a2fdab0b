//! Strict JSON (RFC 8259 as narrowed by I-JSON, RFC 7493): one object, UTF-8, no duplicate member at any depth. Two
//! readers that disagree about a duplicate would see two identities, so there is no lenient variant.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Largest integer that every JSON reader agrees on (RFC 7493 §2.2): 2^53 − 1.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The marker in a serde error that tells a duplicate from other problems.
pub(crate) const DUPLICATE: &str = "duplicate member";

/// Why bytes are not one strict JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not JSON, not an object, trailing data, too deep, or a number out of range.
    Malformed,
    /// A member name stands twice in one object.
    Duplicate,
}

impl Problem {
    /// The problem as a detail for the audit record.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "not one JSON object with numbers in range",
            Self::Duplicate => "a member stands twice",
        }
    }

    /// Tells which problem a `serde_json` error from a strict visitor means.
    pub(crate) fn of(error: &serde_json::Error) -> Self {
        if error.is_data() && error.to_string().starts_with(DUPLICATE) { Self::Duplicate } else { Self::Malformed }
    }
}

/// Reads one JSON object.
///
/// # Errors
/// [`Problem`] when the bytes are anything else, or a member stands twice in one object.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let map = reader.deserialize_map(ObjectVisitor).map_err(|e| Problem::of(&e))?;
    reader.end().map_err(|_| Problem::Malformed)?;
    Ok(map)
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict)?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom(DUPLICATE));
            }
        }
        Ok(map)
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = elements.next_element_seed(Strict)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Value, A::Error> {
        ObjectVisitor.visit_map(members).map(Value::Object)
    }
}
