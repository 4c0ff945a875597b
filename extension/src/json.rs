//! A JSON object of which each member is read alone, so that one that cannot be read costs only itself.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// The most members of an object that are kept without an allocation: as many as the platform's records have. A small
/// allocation in each object would make the allocator map and unmap a page.
const INLINE_MEMBERS: usize = 8;

/// The members of one object: names, and values as JSON text.
#[derive(Debug, Default)]
pub(crate) struct Object<'a>(SmallVec<[(&'a str, &'a RawValue); INLINE_MEMBERS]>);

impl<'a> Object<'a> {
    /// Reads an object; `None` when `json` is anything else.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Reads an object in UTF-8; `None` when `json` is anything else.
    pub(crate) fn parse_bytes(json: &'a [u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(json).ok()?)
    }

    /// The text of a member; `None` when it is absent or not a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.json(name)?).ok()
    }

    /// A member that is a number, or a string that contains one; `None` when it is absent, negative or anything else.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        let json = self.json(name)?;
        let quoted = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
        let value: f64 = quoted.unwrap_or(json).trim().parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    }

    /// The only member, as [`Object::text`]; `None` when there are more.
    pub(crate) fn only_text(&self) -> Option<String> {
        match self.0.as_slice() {
            [(_, value)] => serde_json::from_str(value.get()).ok(),
            _ => None,
        }
    }

    /// A member that is an object; an empty one when it is absent or anything else.
    pub(crate) fn object(&self, name: &str) -> Self {
        self.json(name).and_then(Self::parse).unwrap_or_default()
    }

    /// The members that are strings.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&'a str, String)> {
        self.0.iter().filter_map(|(name, value)| Some((*name, serde_json::from_str(value.get()).ok()?)))
    }

    /// The JSON text of the last member of this name.
    pub(crate) fn json(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = SmallVec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The name of a member. One that is written with escapes is empty: the platform's names have none.
struct Name<'a>(&'a str);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(name))
            }

            fn visit_str<E>(self, _name: &str) -> Result<Self::Value, E> {
                Ok(Name(""))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
