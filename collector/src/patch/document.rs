//! YAML and JSON documents with the byte ranges of their values.

use std::ops::Range;

use tree_sitter::{Node, Tree};

use tailor_sizing::units::Megabytes;

use super::insertion::{Insert, anchor};
use super::name::{Part, template};
use super::source::{Unparsed, named, parse};
use super::{Setting, Unit};

/// A parsed file.
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    tree: Tree,
}

impl<'a> Document<'a> {
    /// Parses a YAML or JSON file.
    pub(super) fn parse(text: &'a str, is_json: bool) -> Result<Self, Unparsed> {
        let tree = if is_json {
            parse(text, tree_sitter_json::LANGUAGE)?
        } else {
            parse(text, tree_sitter_yaml::LANGUAGE)?
        };
        Ok(Self { text, tree })
    }

    /// The top value of each document in the file.
    pub(super) fn roots(&self) -> Vec<Value<'_>> {
        let root = self.tree.root_node();
        let tops: Vec<_> = match root.kind() {
            // JSON has one document. A file of YAML is a stream of them.
            "document" => vec![root],
            _ => named(root).filter(|node| node.kind() == "document").collect(),
        };
        tops.into_iter()
            .filter_map(|document| named(document).last())
            .map(|node| Value::new(self.text, node))
            .collect()
    }
}

/// A value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'t> {
    text: &'t str,
    node: Node<'t>,
    /// The content without tag and anchor; `None` for an empty value.
    content: Option<Node<'t>>,
    tag: Option<&'t str>,
    is_anchored: bool,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry<'t> {
    pub(super) key: String,
    pub(super) value: Option<Value<'t>>,
    pub(super) range: Range<usize>,
}

impl<'t> Value<'t> {
    fn new(text: &'t str, node: Node<'t>) -> Self {
        let mut value = Self { text, node, content: None, tag: None, is_anchored: false };
        if !["block_node", "flow_node"].contains(&node.kind()) {
            value.content = Some(node);
            return value;
        }
        for part in named(node) {
            match part.kind() {
                "tag" => value.tag = Some(&text[part.byte_range()]),
                "anchor" => value.is_anchored = true,
                _ => value.content = Some(part),
            }
        }
        value
    }

    fn kind(&self) -> &'t str {
        self.content.map_or("", |content| content.kind())
    }

    pub(super) fn at(&self) -> usize {
        self.node.start_byte()
    }

    /// The entries of a map; empty for another value.
    pub(super) fn entries(&self) -> Vec<Entry<'t>> {
        if !["block_mapping", "flow_mapping", "object"].contains(&self.kind()) {
            return Vec::new();
        }
        self.content.into_iter().flat_map(named).filter_map(|pair| self.entry(pair)).collect()
    }

    fn entry(&self, pair: Node<'t>) -> Option<Entry<'t>> {
        let key = Self::new(self.text, pair.child_by_field_name("key")?).scalar()?;
        let value = pair.child_by_field_name("value").map(|node| Self::new(self.text, node));
        Some(Entry { key, value, range: pair.byte_range() })
    }

    pub(super) fn is_map(&self) -> bool {
        ["block_mapping", "flow_mapping", "object"].contains(&self.kind())
    }

    /// The values of a list; empty for another value.
    pub(super) fn items(&self) -> Vec<Value<'t>> {
        let unwrap = |node: Node<'t>| match node.kind() {
            "block_sequence_item" => named(node).last(),
            _ => Some(node),
        };
        match self.kind() {
            "block_sequence" | "flow_sequence" | "array" => self
                .content
                .into_iter()
                .flat_map(named)
                .filter_map(unwrap)
                .map(|node| Self::new(self.text, node))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The value of the only entry with this key.
    pub(super) fn get(&self, key: &str) -> Option<Value<'t>> {
        let mut found = self.entries().into_iter().filter(|entry| entry.key == key);
        let first = found.next()?;
        if found.next().is_some() { None } else { first.value }
    }

    /// The text of a plain or quoted scalar.
    pub(super) fn scalar(&self) -> Option<String> {
        let content = self.content?;
        let raw = &self.text[content.byte_range()];
        match content.kind() {
            "plain_scalar" | "number" | "true" | "false" => Some(raw.to_owned()),
            "single_quote_scalar" => Some(raw.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'")),
            // YAML has more escapes than JSON. A text with one of those is not a name.
            "double_quote_scalar" | "string" => serde_json::from_str(raw).ok(),
            _ => None,
        }
    }

    /// The function of CloudFormation in this value: its name without `Fn::` and its argument.
    fn intrinsic(&self) -> Option<(String, Value<'t>)> {
        if let Some(tag) = self.tag.and_then(|tag| tag.strip_prefix('!')) {
            return Some((tag.to_owned(), Self { tag: None, ..*self }));
        }
        let entries = self.entries();
        let [entry] = &entries[..] else { return None };
        let name = match entry.key.as_str() {
            "Ref" => "Ref",
            key => key.strip_prefix("Fn::")?,
        };
        Some((name.to_owned(), entry.value?))
    }

    /// The parts of a text in CloudFormation. Other values are one variable.
    pub(super) fn parts(&self) -> Vec<Part> {
        let Some((function, argument)) = self.intrinsic() else {
            return self.scalar().map_or_else(|| vec![Part::Hole], |text| vec![Part::Text(text)]);
        };
        match function.as_str() {
            "Sub" => {
                let text = argument.scalar().or_else(|| argument.items().first()?.scalar());
                text.map_or_else(|| vec![Part::Hole], |text| template(&text, "${", '}'))
            }
            "Join" => {
                let [separator, list] = &argument.items()[..] else { return vec![Part::Hole] };
                let (Some(separator), values) = (separator.scalar(), list.items()) else {
                    return vec![Part::Hole];
                };
                if values.is_empty() {
                    return vec![Part::Hole];
                }
                let mut parts = Vec::new();
                for value in values {
                    if !parts.is_empty() && !separator.is_empty() {
                        parts.push(Part::Text(separator.clone()));
                    }
                    parts.extend(value.parts());
                }
                parts
            }
            _ => vec![Part::Hole],
        }
    }

    /// The memory setting `key` in this map of properties.
    pub(super) fn setting(
        &self,
        key: &str,
        default: u32,
        is_shared: Option<&str>,
        anchors: &[&str],
    ) -> Setting {
        let entries = self.entries();
        let own: Vec<_> = entries.iter().filter(|entry| entry.key == key).collect();
        match own[..] {
            [entry] => {
                entry.value.map_or_else(|| Setting::Unsure(format!("`{key}` is empty")), |v| v.number(key))
            }
            [] => self.absent(key, default, is_shared, anchors, &entries),
            _ => Setting::Unsure(format!("`{key}` is set several times")),
        }
    }

    fn absent(
        &self,
        key: &str,
        default: u32,
        is_shared: Option<&str>,
        anchors: &[&str],
        entries: &[Entry<'t>],
    ) -> Setting {
        if let Some(shared) = is_shared {
            return Setting::Unsure(format!("its size is the shared default in `{shared}`"));
        }
        if !self.is_map() || entries.is_empty() {
            return Setting::Unsure("it has no properties beside which the size can be inserted".to_owned());
        }
        if self.is_anchored {
            return Setting::Unsure("its properties have an anchor, so others can share them".to_owned());
        }
        if let Some(entry) = entries.iter().find(|e| e.key == "<<" || e.key.starts_with("Fn::")) {
            return Setting::Unsure(format!("its properties come from `{}`", entry.key));
        }
        let items: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.range.clone())).collect();
        let ranges: Vec<_> = items.iter().map(|(_, range)| range.clone()).collect();
        let label = if self.kind() == "object" { format!("\"{key}\": ") } else { format!("{key}: ") };
        let insert = Insert { label: &label, end: "", default: Megabytes(default), unit: Unit::Number };
        let anchor = anchor(self.text, &items, anchors);
        if self.kind() == "block_mapping" {
            let setting = insert.as_line(self.text, &ranges, anchor);
            return setting.unwrap_or_else(|| {
                Setting::Unsure("its properties are not on lines of their own".to_owned())
            });
        }
        insert.with_comma(
            self.text,
            &ranges,
            anchor,
            self.content.map_or(0, |content| content.start_byte() + 1),
        )
    }

    /// This value as a memory size.
    fn number(&self, key: &str) -> Setting {
        if let Some((function, argument)) = self.intrinsic() {
            let argument = argument.scalar().unwrap_or_default();
            return Setting::Unsure(match function.as_str() {
                "Ref" => format!("its size is the parameter `{argument}`"),
                _ => format!("its size is computed by `{function}`"),
            });
        }
        let unsure = |text: &str| Setting::Unsure(format!("`{key}` is {text}"));
        if self.is_anchored {
            return unsure("an anchor, so others can share it");
        }
        if self.kind() == "alias" {
            return unsure("an alias of another value");
        }
        let Some(content) = self.content else { return unsure("empty") };
        let Some(text) = self.scalar() else { return unsure("not a number") };
        let Ok(memory) = text.parse::<u32>() else {
            return Setting::Unsure(format!("its size is `{text}`, which is not a number"));
        };
        let quotes = usize::from(content.kind() == "string" || content.kind().ends_with("quote_scalar"));
        let range = content.start_byte() + quotes..content.end_byte() - quotes;
        if self.text[range.clone()] != text || self.tag.is_some() {
            return unsure("not written in plain digits");
        }
        Setting::Literal { range, memory: Megabytes(memory), unit: Unit::Number }
    }
}
