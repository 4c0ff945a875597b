//! The definition of a deployed function.

use md5::{Digest, Md5};

use super::name::{Name, Strength, matches};
use super::source::Definitions;
use super::stack::{self, GeneratedName};
use super::{Definition, Source, Target, Unsure, unsure};

/// Length of CDK's hash at the end of a logical id.
const CDK_HASH: usize = 8;
/// Maximum number of characters of the readable part of CDK's logical ids.
const CDK_READABLE: usize = 240;
/// The letters of SST's random texts.
const SST_LETTERS: &str = "abcdefhkmnorstuvwxz";

/// The index of the only definition that the function can have.
pub(super) fn definition_of(
    target: &Target,
    source: &Source,
    definitions: &Definitions,
) -> Result<usize, Unsure> {
    let Candidates { best, of_other_stacks } = Candidates::of(target, definitions);
    let listed = |indices: &[usize]| -> Vec<&Definition> {
        indices.iter().map(|index| &definitions.all[*index]).collect()
    };
    match best[..] {
        [index] => Ok(index),
        [] if !of_other_stacks.is_empty() => {
            let reason = "the function is of another stack than those that the configuration of SAM names: add its stack as `stack_name`, or choose another folder with `--source`";
            Err(unsure(target, source, reason.to_owned(), &listed(&of_other_stacks)))
        }
        [] => {
            let computed: Vec<_> =
                definitions.all.iter().filter(|definition| definition.name == Name::Computed).collect();
            let reason = if computed.is_empty() {
                "no definition of it was found in the source folder".to_owned()
            } else {
                "no definition has this name; these functions have computed names".to_owned()
            };
            Err(unsure(target, source, reason, &computed))
        }
        _ => {
            let several = listed(&best);
            let reason = format!(
                "{} definitions can be this function: choose a smaller folder with `--source`",
                several.len()
            );
            Err(unsure(target, source, reason, &several))
        }
    }
}

/// Whether a definition is among those that match a function best.
pub(super) fn can_be(index: usize, target: &Target, definitions: &Definitions) -> bool {
    // Most functions are of other sources.
    strength(&definitions.all[index], target, definitions).is_some()
        && Candidates::of(target, definitions).best.contains(&index)
}

/// The definitions that a function can have, as indices.
struct Candidates {
    /// Those that match best.
    best: Vec<usize>,
    /// Those that match and are of other stacks.
    of_other_stacks: Vec<usize>,
}

impl Candidates {
    fn of(target: &Target, definitions: &Definitions) -> Self {
        let all = definitions.all.iter().enumerate();
        let matching =
            all.filter_map(|(index, definition)| Some((strength(definition, target, definitions)?, index)));
        let (of_other_stacks, mut best): (Vec<_>, Vec<_>) = matching
            .partition(|(_, index)| stack::is_other(&definitions.all[*index], target, &definitions.stacks));
        let highest = best.iter().map(|(strength, _)| *strength).max();
        best.retain(|(strength, _)| Some(*strength) == highest);
        let indices = |found: Vec<(Strength, usize)>| found.into_iter().map(|(_, index)| index).collect();
        Self { best: indices(best), of_other_stacks: indices(of_other_stacks) }
    }
}

fn strength(definition: &Definition, target: &Target, definitions: &Definitions) -> Option<Strength> {
    let name = target.function.as_str();
    // A name that the source sets is that of the deployed function, whatever its tags are.
    let by_name = match &definition.name {
        Name::Set(parts) => Some(matches(parts, name)?),
        _ => None,
    };
    if let Some(logical_id) = &target.logical_id {
        let by_tag = match &definition.name {
            Name::Cdk(path) => is_cdk_id(path, logical_id, definitions),
            Name::Set(_) | Name::CloudFormation(_) | Name::Computed => definition.label == *logical_id,
            // These tools do not use CloudFormation.
            Name::Pulumi(_) | Name::Sst(_) => false,
        };
        if by_tag {
            return Some(Strength::Exact);
        }
    }
    let generated = || GeneratedName::read(name, target.stack.as_deref());
    match &definition.name {
        Name::Set(_) => by_name,
        // The tag is the whole logical id.
        Name::CloudFormation(_) if target.logical_id.is_some() => None,
        Name::CloudFormation(logical_id) => {
            let generated = generated()?;
            if generated.logical_id == logical_id {
                Some(Strength::Word)
            } else {
                let is_beginning = generated.is_short && logical_id.starts_with(generated.logical_id);
                is_beginning.then_some(Strength::Words)
            }
        }
        Name::Cdk(path) => is_cdk_id(path, generated()?.logical_id, definitions).then_some(Strength::Exact),
        Name::Pulumi(id) => {
            let random = name.strip_prefix(id.as_str())?.strip_prefix('-')?;
            let is_random = random.len() == 7 && random.bytes().all(|b| b.is_ascii_hexdigit());
            is_random.then_some(Strength::Word)
        }
        Name::Sst(id) => {
            let (rest, random) = name.rsplit_once('-')?;
            let is_random = random.len() == 8 && random.chars().all(|c| SST_LETTERS.contains(c));
            let ends = [id.clone(), format!("{id}Function")];
            let before = ends.iter().find_map(|end| rest.strip_suffix(end.as_str())?.strip_suffix('-'))?;
            (is_random && !before.is_empty()).then_some(Strength::Word)
        }
        Name::Computed => None,
    }
}

/// Whether CDK makes this logical id from a path of construct ids of the program that ends with `path`.
///
/// The id is the path without special characters, then a hash of the path. The first construct of a stack that is a
/// plain resource has its own id.
fn is_cdk_id(path: &[String], logical_id: &str, definitions: &Definitions) -> bool {
    if let [only] = path
        && readable(std::slice::from_ref(only)) == logical_id
    {
        return true;
    }
    let Some((text, hash)) = logical_id.split_at_checked(logical_id.len().saturating_sub(CDK_HASH)) else {
        return false;
    };
    let Some(before) = text.strip_suffix(readable(path).as_str()) else { return false };
    let ids: Vec<_> = definitions
        .construct_ids
        .iter()
        .map(|id| (id.as_str(), readable(std::slice::from_ref(id))))
        .collect();
    prefixes(before, &ids, &mut Vec::new(), &mut |scopes| {
        let full: Vec<&str> = scopes.iter().copied().chain(path.iter().map(String::as_str)).collect();
        let digest = Md5::digest(full.join("/"));
        let computed: String = digest.iter().take(CDK_HASH / 2).map(|byte| format!("{byte:02X}")).collect();
        computed == hash
    })
}

/// Whether `accept` accepts a list of construct ids whose readable forms make `text`.
fn prefixes<'a>(
    text: &str,
    ids: &'a [(&'a str, String)],
    scopes: &mut Vec<&'a str>,
    accept: &mut impl FnMut(&[&str]) -> bool,
) -> bool {
    if text.is_empty() {
        return accept(scopes);
    }
    // A path deeper than any program's would only cost time.
    if scopes.len() >= 12 {
        return false;
    }
    ids.iter().any(|(id, readable)| {
        let Some(rest) = text.strip_prefix(readable.as_str()).filter(|_| !readable.is_empty()) else {
            return false;
        };
        scopes.push(id);
        let accepted = prefixes(rest, ids, scopes, accept);
        scopes.pop();
        accepted
    })
}

/// The readable part of a logical id: without special characters, without the hidden id `Resource`, and a repeated id
/// once.
fn readable(path: &[String]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for id in path.iter().filter(|id| *id != "Resource") {
        let part: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        if parts.last().is_none_or(|last| !last.ends_with(&part)) {
            parts.push(part);
        }
    }
    parts.concat().chars().take(CDK_READABLE).collect()
}
