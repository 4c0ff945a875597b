//! What of an export could not be read, by kind.

use std::collections::BTreeMap;

/// Maximum length of an example, characters.
const MAX_EXAMPLE: usize = 200;

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// A file or folder that cannot be opened, or that ends early.
    UnreadableFile,
    /// A file without the columns of a known format.
    UnknownFormat,
    /// A row that is not valid CSV or Parquet.
    MalformedRow,
    /// A row without a valid start or end.
    InvalidTime,
    /// A row whose quantity or cost is not a number.
    InvalidNumber,
    /// A row in another currency than US dollars.
    OtherCurrency,
}

impl Problem {
    /// It in words, for a count of several.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::UnreadableFile => "files that cannot be read",
            Self::UnknownFormat => "files that are not an export of CUR 2.0 or FOCUS",
            Self::MalformedRow => "rows that cannot be read",
            Self::InvalidTime => "rows without a valid time",
            Self::InvalidNumber => "rows without a valid number",
            Self::OtherCurrency => "rows in another currency than USD",
        }
    }
}

/// How often each problem occurred, with the first example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(BTreeMap<Problem, (u64, String)>);

impl Problems {
    /// Counts a problem.
    pub fn add(&mut self, kind: Problem, example: impl FnOnce() -> String) {
        let (count, _) = self.0.entry(kind).or_insert_with(|| {
            let visible = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
            (0, example().chars().map(visible).take(MAX_EXAMPLE).collect())
        });
        *count += 1;
    }

    /// All kinds that occurred, with count and example.
    pub fn iter(&self) -> impl Iterator<Item = (Problem, u64, &str)> {
        self.0.iter().map(|(kind, (count, example))| (*kind, *count, example.as_str()))
    }

    /// How often a kind occurred.
    #[must_use]
    pub fn count(&self, kind: Problem) -> u64 {
        self.0.get(&kind).map_or(0, |(count, _)| *count)
    }
}
