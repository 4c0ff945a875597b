//! Where a setting is inserted in a list of settings.

use std::ops::Range;

use tailor_sizing::units::Megabytes;

use super::{Setting, Unit};

/// A setting to insert.
pub(super) struct Insert<'a> {
    /// The text before the size, such as `memorySize: `.
    pub(super) label: &'a str,
    /// The text after the size: a closing quote, or nothing.
    pub(super) end: &'a str,
    /// What a function has without the setting.
    pub(super) default: Megabytes,
    /// How the size is written.
    pub(super) unit: Unit,
}

impl Insert<'_> {
    fn at(&self, at: usize, before: &str, after: &str) -> Setting {
        Setting::Absent {
            at,
            before: format!("{before}{}", self.label),
            after: format!("{}{after}", self.end),
            default: self.default,
            unit: self.unit,
        }
    }

    /// Into a list with commas, after the item at `anchor`. `open` is the offset after the bracket of an empty list.
    pub(super) fn with_comma(
        &self,
        text: &str,
        items: &[Range<usize>],
        anchor: usize,
        open: usize,
    ) -> Setting {
        let Some(item) = items.get(anchor) else { return self.at(open, " ", " ") };
        let line = own_line(text, item.start);
        let after = &text[item.end..];
        let spaces = after.len() - after.trim_start().len();
        if !after.trim_start().starts_with(',') {
            let between =
                line.map_or_else(|| ", ".to_owned(), |indent| format!(",{}{indent}", line_end(text)));
            return self.at(item.end, &between, "");
        }
        let comma_end = item.end + spaces + 1;
        let rest = rest_of_line(text, comma_end);
        let is_end = ["", "//", "#"].iter().any(|start| match *start {
            "" => rest.trim().is_empty(),
            start => rest.trim_start().starts_with(start),
        });
        match line {
            Some(indent) if is_end => {
                self.at(comma_end + rest.len(), &format!("{}{indent}", line_end(text)), ",")
            }
            _ => self.at(comma_end, " ", ","),
        }
    }

    /// Into a list with one item per line, after or before the item at `anchor`. `None` when that item shares its
    /// first line with something else.
    pub(super) fn as_line(&self, text: &str, items: &[Range<usize>], anchor: usize) -> Option<Setting> {
        let item = items.get(anchor)?;
        let indent = own_line(text, item.start)?;
        let end = line_end(text);
        if text[item.clone()].contains('\n') {
            return Some(self.at(item.start, "", &format!("{end}{indent}")));
        }
        let at = item.end + rest_of_line(text, item.end).len();
        Some(self.at(at, &format!("{end}{indent}"), ""))
    }
}

/// The index of the item after which a setting is inserted: the first of `names` that has one line, else the last item with one line,
/// else the first item.
pub(super) fn anchor(text: &str, items: &[(&str, Range<usize>)], names: &[&str]) -> usize {
    let is_line = |range: &Range<usize>| !text[range.clone()].contains('\n');
    let named =
        names.iter().find_map(|name| items.iter().position(|(item, range)| item == name && is_line(range)));
    named.or_else(|| items.iter().rposition(|(_, range)| is_line(range))).unwrap_or(0)
}

/// The spaces before an offset, when nothing else is before it on its line.
pub(super) fn own_line(text: &str, at: usize) -> Option<&str> {
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let before = &text[start..at];
    before.trim().is_empty().then_some(before)
}

/// From an offset to the end of its line, without the line terminator.
fn rest_of_line(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let line = rest.split('\n').next().unwrap_or_default();
    line.strip_suffix('\r').unwrap_or(line)
}

/// The line terminator of a file.
fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
