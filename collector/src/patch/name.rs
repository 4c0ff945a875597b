//! The names that a deployed function can have, from its definition.

/// The names that a deployed function can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Set in the source. Variables in it are holes.
    Set(Vec<Part>),
    /// CloudFormation makes it from the stack, this logical id and a random text.
    CloudFormation(String),
    /// As CloudFormation, and CDK makes the logical id from the path of construct ids, which ends with these.
    Cdk(Vec<String>),
    /// Pulumi appends seven random hexadecimal digits to this.
    Pulumi(String),
    /// SST makes it from app, stage, this and eight random letters.
    Sst(String),
    /// It is computed.
    Computed,
}

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// This text.
    Text(String),
    /// A variable: any text that is not empty.
    Hole,
}

/// Minimum number of characters of a name that must be known, so that a match is not by chance.
const MIN_KNOWN_CHARACTERS: usize = 3;

impl Name {
    /// A name of these parts. One without enough text is computed.
    pub(super) fn of_parts(parts: Vec<Part>) -> Self {
        let known = parts.iter().map(|part| match part {
            Part::Text(text) => text.chars().filter(|c| c.is_alphanumeric()).count(),
            Part::Hole => 0,
        });
        let has_hole = parts.contains(&Part::Hole);
        let known: usize = known.sum();
        if known == 0 || (has_hole && known < MIN_KNOWN_CHARACTERS) {
            Self::Computed
        } else {
            Self::Set(parts)
        }
    }
}

/// The parts of a text in which `open`…`close` are variables. Variables may be nested.
pub(super) fn template(text: &str, open: &str, close: char) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(Part::Hole);
        let mut depth = 1;
        let end = after.char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                c if *c == close => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        rest = end.map_or("", |(at, c)| &after[at + c.len_utf8()..]);
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    parts
}

/// How well a name matches the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    /// A variable stands for several words.
    Words,
    /// Each variable stands for one word: a text without hyphen.
    Word,
    /// The name has no variables, or a hash confirms it.
    Exact,
}

/// Compares a function's name with parts.
pub(super) fn matches(parts: &[Part], name: &str) -> Option<Strength> {
    let Some((first, rest)) = parts.split_first() else {
        return name.is_empty().then_some(Strength::Exact);
    };
    match first {
        Part::Text(text) => matches(rest, name.strip_prefix(text.as_str())?),
        Part::Hole => {
            let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
            ends.filter_map(|end| {
                let own = if name[..end].contains('-') { Strength::Words } else { Strength::Word };
                matches(rest, &name[end..]).map(|rest| rest.min(own))
            })
            .max()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_match_any_text() {
        let name = |text: &str| template(text, "${", '}');
        assert_eq!(matches(&name("orders-api"), "orders-api"), Some(Strength::Exact));
        assert_eq!(matches(&name("${stage}-api"), "prod-api"), Some(Strength::Word));
        assert_eq!(matches(&name("${stage}-api"), "prod-my-api"), Some(Strength::Words));
        assert_eq!(matches(&name("${a.b({x: 1})}-api"), "-api"), None);
        assert_eq!(Name::of_parts(name("${a}-${b}")), Name::Computed);
    }
}
