//! Patches: the memory setting of a deployed function, found and changed in the source that deploys it.
//!
//! [`source`] reads a folder. One module per format finds the functions that a file defines, each with its name and its
//! memory setting as byte ranges. `matching` finds the definition of a deployed function. An edit replaces the digits
//! of the setting or inserts the setting, so every other byte of the file is unchanged. What is not certain is listed
//! with the reason and is not changed.

use std::collections::BTreeMap;
use std::ops::Range;

use tailor_sizing::units::Megabytes;

pub mod advice;
mod cdk;
mod cloudformation;
pub mod comment;
mod diff;
mod document;
mod insertion;
mod matching;
mod name;
mod program;
mod pulumi;
mod python;
mod serverless;
pub mod source;
mod sst;
mod stack;
mod terraform;
mod typescript;

pub use source::{Source, SourceError};

use name::Name;
use source::Definitions;

/// A deployed function and the memory size that it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Function name.
    pub function: String,
    /// AWS account; empty when not known.
    pub account: String,
    /// AWS region; empty when not known.
    pub region: String,
    /// The size that the deployed function has; `None` when not known.
    pub deployed: Option<Megabytes>,
    /// The size to set; for a function that is not to change, the size that it has.
    pub memory: Megabytes,
    /// The value of its tag `aws:cloudformation:logical-id`, where known.
    pub logical_id: Option<String>,
    /// The value of its tag `aws:cloudformation:stack-name`, where known.
    pub stack: Option<String>,
}

impl Target {
    /// A function of which only the name is known.
    #[must_use]
    pub fn named(function: &str, memory: Megabytes) -> Self {
        Self {
            function: function.to_owned(),
            account: String::new(),
            region: String::new(),
            deployed: None,
            memory,
            logical_id: None,
            stack: None,
        }
    }
}

/// A function as a file defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Definition {
    /// Index of the file.
    file: usize,
    /// Byte offset, for the line number.
    at: usize,
    /// Its name in the file: logical id, construct id or address.
    label: String,
    /// The names that the deployed function can have.
    name: Name,
    /// The memory setting.
    setting: Setting,
}

/// The memory setting of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    /// A literal.
    Literal { range: Range<usize>, memory: Megabytes, unit: Unit },
    /// There is none. It can be inserted at this offset, between these texts.
    Absent { at: usize, before: String, after: String, default: Megabytes, unit: Unit },
    /// It cannot be changed with certainty, because of this.
    Unsure(String),
}

/// How a file writes a memory size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A number of MB.
    Number,
    /// A text with its unit: `512 MB` or `2 GB`.
    Text,
}

impl Unit {
    fn write(self, Megabytes(mb): Megabytes) -> String {
        match self {
            Self::Number => mb.to_string(),
            Self::Text if mb.is_multiple_of(1_024) => format!("{} GB", mb / 1_024),
            Self::Text => format!("{mb} MB"),
        }
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// Path below the source folder, with `/`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// A setting that the patch changes, or that has the size already.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// Function name.
    pub function: String,
    /// Where its memory setting is, or where it is inserted.
    #[serde(flatten)]
    pub place: Place,
    /// The size in the source before the patch, MB; the format's default where the source has none.
    pub before_mb: u32,
    /// The size after the patch, MB.
    pub after_mb: u32,
}

/// A function that the patch does not change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unsure {
    /// Function name.
    pub function: String,
    /// The size that it was to have, MB.
    pub memory_mb: u32,
    /// Why it is not changed, and what to do.
    pub reason: String,
    /// The places that may define it.
    pub places: Vec<Place>,
}

/// A file that the patch changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Path below the source folder, with `/`.
    pub file: String,
    /// Its text before.
    pub before: String,
    /// Its text after.
    pub after: String,
}

/// The patch of a source folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// The changed files, by path.
    pub files: Vec<ChangedFile>,
    /// The settings that change, in the order of the targets.
    pub changed: Vec<Found>,
    /// The functions whose source has the size already.
    pub unchanged: Vec<Found>,
    /// The functions that are not changed because something is not certain.
    pub unsure: Vec<Unsure>,
    /// Files that define functions and cannot be parsed.
    pub unreadable: Vec<Place>,
}

impl Patch {
    /// The unified diff of all files. It applies with `patch -p1` and with `git apply` in the source folder.
    #[must_use]
    pub fn diff(&self) -> String {
        self.files.iter().map(|file| diff::unified(&file.file, &file.before, &file.after)).collect()
    }
}

/// Edits of one file: the range to replace and the new text, by the index of the definition.
type Edits = BTreeMap<usize, (Range<usize>, String, Megabytes)>;

/// Maximum number of functions that a reason names.
const MAX_NAMED: usize = 8;

/// Computes the patch that sets the memory of `targets` in the files of `source`. `others` are all other functions that are
/// known: a setting that is also theirs is changed only to the size that they have.
#[must_use]
pub fn patch(source: &Source, targets: &[Target], others: &[Target]) -> Patch {
    let definitions = source.definitions();
    let mut patch = Patch { unreadable: definitions.unreadable.clone(), ..Patch::default() };
    let mut edits = Edits::new();
    let chosen: Vec<_> =
        targets.iter().map(|target| matching::definition_of(target, source, &definitions)).collect();
    for (target, choice) in targets.iter().zip(&chosen) {
        let index = match choice {
            Ok(index) => *index,
            Err(unsure) => {
                patch.unsure.push(unsure.clone());
                continue;
            }
        };
        let definition = &definitions.all[index];
        let changed = targets.iter().zip(&chosen).filter(|(_, choice)| choice.as_ref() == Ok(&index));
        let kept = others.iter().filter(|other| matching::can_be(index, other, &definitions));
        let of_setting = changed.map(|(other, _)| other).chain(kept);
        let different: Vec<_> = of_setting.filter(|other| other.memory != target.memory).collect();
        if !different.is_empty() {
            patch.unsure.push(unsure(target, source, shared(target, &different), &[definition]));
            continue;
        }
        match edit(definition, target) {
            Ok(Change::Edit(edit, before)) => {
                edits.insert(index, edit);
                patch.changed.push(found(target, source, definition, before));
            }
            Ok(Change::None(memory)) => patch.unchanged.push(found(target, source, definition, memory)),
            Err(reason) => patch.unsure.push(unsure(target, source, reason, &[definition])),
        }
    }
    write(source, &definitions, edits, &mut patch);
    patch
}

/// Why a setting is not changed that is also for other functions, which are to have other sizes.
fn shared(target: &Target, different: &[&Target]) -> String {
    // The same name in several accounts or regions.
    let is_ambiguous = different.iter().any(|other| other.function == target.function);
    let described = |function: &Target| {
        let place = format!("{} {}", function.account, function.region);
        let place = match place.trim() {
            place if is_ambiguous && !place.is_empty() => format!(" ({place})"),
            _ => String::new(),
        };
        format!("`{}`{place} {} MB", function.function, function.memory.0)
    };
    let all = std::iter::once(target).chain(different.iter().copied());
    let mut named: Vec<_> = all.take(MAX_NAMED).map(described).collect();
    let rest = (different.len() + 1).saturating_sub(MAX_NAMED);
    if rest > 0 {
        named.push(format!("{rest} more"));
    }
    format!(
        "one setting is for several functions with different sizes: {}; choose one size for all of them with `--memory`",
        named.join(", ")
    )
}

enum Change {
    /// The edit, and the size before.
    Edit((Range<usize>, String, Megabytes), Megabytes),
    /// The source has the size already.
    None(Megabytes),
}

fn edit(definition: &Definition, target: &Target) -> Result<Change, String> {
    let (before, edit) = match &definition.setting {
        Setting::Unsure(reason) => return Err(reason.clone()),
        Setting::Literal { range, memory, unit } => (*memory, (range.clone(), unit.write(target.memory))),
        Setting::Absent { at, before, after, default, unit } => {
            (*default, (*at..*at, format!("{before}{}{after}", unit.write(target.memory))))
        }
    };
    if before == target.memory {
        return Ok(Change::None(before));
    }
    match target.deployed {
        Some(deployed) if deployed != before => Err(format!(
            "the source has {} MB and the deployed function {} MB: deploy first, or set the size with `--memory {}={}`",
            before.0, deployed.0, target.function, target.memory.0
        )),
        _ => Ok(Change::Edit((edit.0, edit.1, target.memory), before)),
    }
}

/// Applies the edits and reads the result again. An edit that is not read back as intended is not part of the patch.
fn write(source: &Source, definitions: &Definitions, edits: Edits, patch: &mut Patch) {
    let mut texts: BTreeMap<usize, String> = BTreeMap::new();
    // From the end, so that ranges stay valid.
    let mut ordered: Vec<_> = edits.iter().map(|(index, edit)| (&definitions.all[*index], edit)).collect();
    ordered.sort_by_key(|(definition, edit)| std::cmp::Reverse((definition.file, edit.0.start)));
    for (definition, (range, text, _)) in ordered {
        let after =
            texts.entry(definition.file).or_insert_with(|| source.files[definition.file].text.clone());
        after.replace_range(range.clone(), text);
    }
    let written = source.with_texts(&texts).definitions();
    let as_intended = written.all.len() == definitions.all.len()
        && written.all.iter().zip(&definitions.all).enumerate().all(|(index, (after, before))| {
            let same = after.label == before.label && after.name == before.name;
            same && match (edits.get(&index), &after.setting, &before.setting) {
                (Some((.., memory)), Setting::Literal { memory: read, .. }, _) => read == memory,
                (Some(_), ..) => false,
                (None, Setting::Literal { memory: after, .. }, Setting::Literal { memory: before, .. }) => {
                    after == before
                }
                (None, after, before) => std::mem::discriminant(after) == std::mem::discriminant(before),
            }
        });
    if !as_intended {
        for found in std::mem::take(&mut patch.changed) {
            patch.unsure.push(Unsure {
                function: found.function,
                memory_mb: found.after_mb,
                reason: "the file with the change is not read as intended: change it by hand".to_owned(),
                places: vec![found.place],
            });
        }
        return;
    }
    patch.files = texts
        .into_iter()
        .map(|(file, after)| {
            let file = &source.files[file];
            ChangedFile { file: file.path.clone(), before: file.text.clone(), after }
        })
        .collect();
}

fn found(target: &Target, source: &Source, definition: &Definition, before: Megabytes) -> Found {
    let at = match &definition.setting {
        Setting::Literal { range, .. } => range.start,
        _ => definition.at,
    };
    Found {
        function: target.function.clone(),
        place: source.place(definition.file, at),
        before_mb: before.0,
        after_mb: target.memory.0,
    }
}

fn unsure(target: &Target, source: &Source, reason: String, definitions: &[&Definition]) -> Unsure {
    let place = |definition: &&Definition| source.place(definition.file, definition.at);
    Unsure {
        function: target.function.clone(),
        memory_mb: target.memory.0,
        reason,
        places: definitions.iter().map(place).collect(),
    }
}
