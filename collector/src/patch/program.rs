//! What the programs of CDK, SST and Pulumi have in common, in any language: calls with named arguments.

use std::ops::Range;

use tailor_sizing::units::Megabytes;

use super::insertion::{Insert, anchor};
use super::name::{Name, Part};
use super::{Setting, Unit};

/// A call of a constructor or a function.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What is called: the module and the exported name with dots, or the text of the expression.
    pub(super) callee: String,
    /// The arguments by position, without named ones.
    pub(super) positional: Vec<Expression>,
    /// The named arguments. TypeScript has them in an object.
    pub(super) named: Option<Arguments>,
    pub(super) at: usize,
}

/// Named arguments.
#[derive(Debug, Clone)]
pub(super) struct Arguments {
    pub(super) list: Vec<Argument>,
    /// Whether more arguments come from another value.
    pub(super) has_spread: bool,
    /// Offset after the opening bracket.
    pub(super) open: usize,
}

/// A named argument.
#[derive(Debug, Clone)]
pub(super) struct Argument {
    pub(super) name: String,
    /// Name and value.
    pub(super) range: Range<usize>,
    pub(super) value: Expression,
}

/// A value in a program.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// A whole number.
    Number(Range<usize>, u32),
    /// A text without variables; the range is that of its content.
    Text(Range<usize>, String),
    /// A text with variables.
    Template(Vec<Part>),
    /// A variable.
    Variable(String),
    /// An object with named values.
    Object(Arguments),
    /// Something else.
    Other(String),
}

impl Arguments {
    pub(super) fn get(&self, name: &str) -> Option<&Expression> {
        self.list.iter().find(|argument| argument.name == name).map(|argument| &argument.value)
    }
}

impl Expression {
    /// The names of a function with this name argument.
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Text(_, text) => Name::of_parts(vec![Part::Text(text.clone())]),
            Self::Template(parts) => Name::of_parts(parts.clone()),
            _ => Name::Computed,
        }
    }
}

impl Call {
    /// A positional argument that is a text.
    pub(super) fn text(&self, position: usize) -> Option<&str> {
        match self.positional.get(position) {
            Some(Expression::Text(_, text)) => Some(text),
            _ => None,
        }
    }
}

/// How a format writes the memory setting of a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// The name of the argument.
    pub(super) key: &'static str,
    /// The text between it and the value.
    pub(super) separator: &'static str,
    /// The arguments after which it is inserted.
    pub(super) anchors: &'static [&'static str],
    /// What a function without it has, MB.
    pub(super) default_mb: u32,
    pub(super) unit: Unit,
}

impl Form {
    /// The memory setting in these arguments.
    pub(super) fn setting(&self, text: &str, arguments: Option<&Arguments>, shared: Option<&str>) -> Setting {
        let Some(arguments) = arguments else {
            return Setting::Unsure("its settings are not written where it is made".to_owned());
        };
        match arguments.get(self.key) {
            Some(value) => self.literal(value),
            None if arguments.has_spread => {
                Setting::Unsure("some of its settings come from another value".to_owned())
            }
            None => shared.map_or_else(
                || self.absent(text, arguments),
                |shared| Setting::Unsure(format!("its size is the shared default in `{shared}`")),
            ),
        }
    }

    fn literal(&self, value: &Expression) -> Setting {
        match value {
            Expression::Number(range, mb) if self.unit == Unit::Number => {
                Setting::Literal { range: range.clone(), memory: Megabytes(*mb), unit: Unit::Number }
            }
            Expression::Text(range, text) => match with_unit(text) {
                Some(memory) => Setting::Literal { range: range.clone(), memory, unit: Unit::Text },
                None => Setting::Unsure(format!("its size is `{text}`")),
            },
            Expression::Variable(name) => Setting::Unsure(format!("its size is the variable `{name}`")),
            Expression::Number(_, number) => {
                Setting::Unsure(format!("its size is `{number}`, without a unit"))
            }
            Expression::Other(text) => Setting::Unsure(format!("its size is computed: `{text}`")),
            Expression::Template(_) | Expression::Object(_) => {
                Setting::Unsure("its size is computed".to_owned())
            }
        }
    }

    fn absent(&self, text: &str, arguments: &Arguments) -> Setting {
        let items: Vec<_> =
            arguments.list.iter().map(|argument| (argument.name.as_str(), argument.range.clone())).collect();
        let ranges: Vec<_> = items.iter().map(|(_, range)| range.clone()).collect();
        let quote = if self.unit == Unit::Text { "\"" } else { "" };
        let label = format!("{}{}{quote}", self.key, self.separator);
        let insert =
            Insert { label: &label, end: quote, default: Megabytes(self.default_mb), unit: self.unit };
        insert.with_comma(text, &ranges, anchor(text, &items, self.anchors), arguments.open)
    }
}

/// The size in `512 MB` or `2 GB`.
fn with_unit(text: &str) -> Option<Megabytes> {
    let (number, unit) = text.split_once(' ')?;
    let number: u32 = number.parse().ok()?;
    match unit {
        "MB" => Some(Megabytes(number)),
        "GB" => number.checked_mul(1_024).map(Megabytes),
        _ => None,
    }
}

/// The text of an expression in a message.
pub(super) fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 60 { line.chars().take(57).chain("...".chars()).collect() } else { line }
}
