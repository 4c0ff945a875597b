//! The files of a source folder, and the functions that they define.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tree_sitter::{Language, Node, Parser, Tree};

use super::stack::{self, Stacks};
use super::{Definition, Place, cdk, cloudformation, pulumi, python, serverless, sst, terraform, typescript};

/// Largest file that is read. Templates of CloudFormation have at most 1 MB.
const MAX_FILE_BYTES: u64 = 2 << 20;
/// Maximum number of files: protects from a wrong folder, such as the home folder.
const MAX_FILES: usize = 20_000;
/// Deepest folder.
const MAX_DEPTH: usize = 24;
/// Folders with generated files or other people's programs. Folders whose names begin with a dot are left out as well.
const IGNORED: [&str; 10] = [
    "node_modules",
    "cdk.out",
    "cdktf.out",
    "dist",
    "build",
    "target",
    "vendor",
    "venv",
    "__pycache__",
    "site-packages",
];

/// Why a source folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder cannot be read or written.
    #[error("cannot access {0}")]
    Access(PathBuf, #[source] io::Error),
    /// There are too many files.
    #[error("{0} has more than {MAX_FILES} files of templates and programs: choose a smaller folder")]
    TooManyFiles(PathBuf),
}

/// A file.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Path below the source folder, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    /// File name without folders.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Path of its folder.
    fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// What follows the last dot of the file name.
    pub(super) fn extension(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }
}

/// The files of a source folder that can define functions.
#[derive(Debug, Clone, Default)]
pub struct Source {
    pub(super) files: Vec<File>,
}

/// What the files define.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// The functions, in the order of the files.
    pub(super) all: Vec<Definition>,
    /// The ids of all constructs of CDK programs.
    pub(super) construct_ids: BTreeSet<String>,
    /// The stacks that templates are deployed as.
    pub(super) stacks: Stacks,
    /// Files that mention functions and cannot be parsed.
    pub(super) unreadable: Vec<Place>,
}

impl Source {
    /// Reads the templates and programs of a folder. Links are not followed.
    ///
    /// # Errors
    /// A folder or file that cannot be read, or too many files. Files that are not UTF-8 or too large are left out.
    pub fn read(folder: &Path) -> Result<Self, SourceError> {
        let mut files = Vec::new();
        let mut folders = vec![(folder.to_owned(), String::new(), 0)];
        while let Some((at, prefix, depth)) = folders.pop() {
            let error = |error| SourceError::Access(at.clone(), error);
            for entry in fs::read_dir(&at).map_err(error)? {
                let entry = entry.map_err(error)?;
                let kind = entry.file_type().map_err(error)?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let path = format!("{prefix}{name}");
                if kind.is_dir() {
                    if depth < MAX_DEPTH && !name.starts_with('.') && !IGNORED.contains(&name.as_str()) {
                        folders.push((entry.path(), format!("{path}/"), depth + 1));
                    }
                } else if kind.is_file() && is_source(&name) {
                    let access = |error| SourceError::Access(entry.path(), error);
                    if entry.metadata().map_err(access)?.len() > MAX_FILE_BYTES {
                        continue;
                    }
                    if let Ok(text) = String::from_utf8(fs::read(entry.path()).map_err(access)?) {
                        files.push(File { path, text });
                    }
                    if files.len() > MAX_FILES {
                        return Err(SourceError::TooManyFiles(folder.to_owned()));
                    }
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// A source of one file, for tests and for text that is not in a folder.
    #[must_use]
    pub fn of_file(path: &str, text: &str) -> Self {
        Self { files: vec![File { path: path.to_owned(), text: text.to_owned() }] }
    }

    /// The same files, some with another text.
    pub(super) fn with_texts(&self, texts: &BTreeMap<usize, String>) -> Self {
        let files = self.files.iter().enumerate().map(|(index, file)| File {
            path: file.path.clone(),
            text: texts.get(&index).unwrap_or(&file.text).clone(),
        });
        Self { files: files.collect() }
    }

    /// The functions that the files define.
    pub(super) fn definitions(&self) -> Definitions {
        let mut definitions = Definitions { stacks: self.stacks(), ..Definitions::default() };
        let has_defaults = self.files.iter().any(|file| sst::has_defaults(&file.text));
        let function_files = serverless::function_files(self);
        for (index, file) in self.files.iter().enumerate() {
            let text = file.text.as_str();
            let mut found = Vec::new();
            let reading = match file.extension() {
                "yml" | "yaml" | "json" => serverless::read(file, &function_files, &mut found)
                    .and_then(|()| cloudformation::read(file, &mut found))
                    .and_then(|()| pulumi::read_yaml(file, &mut found)),
                "tf" | "tofu" => terraform::read(text, &mut found),
                // A configuration of the SAM CLI.
                "toml" => Ok(()),
                "py" => python::calls(text).map(|calls| {
                    definitions.construct_ids.extend(cdk::construct_ids(&calls));
                    cdk::read(text, &calls, &cdk::PYTHON, &mut found);
                    pulumi::read(text, &calls, &pulumi::PYTHON, &mut found);
                }),
                _ => typescript::calls(text).map(|calls| {
                    definitions.construct_ids.extend(cdk::construct_ids(&calls));
                    cdk::read(text, &calls, &cdk::TYPESCRIPT, &mut found);
                    sst::read(text, &calls, has_defaults, &mut found);
                    pulumi::read(text, &calls, &pulumi::TYPESCRIPT, &mut found);
                }),
            };
            match reading {
                Ok(()) => definitions
                    .all
                    .extend(found.into_iter().map(|definition| Definition { file: index, ..definition })),
                Err(Unparsed { at }) => definitions.unreadable.push(self.place(index, at)),
            }
        }
        definitions
    }

    /// The stacks that the templates beside a configuration of the SAM CLI are deployed as.
    fn stacks(&self) -> Stacks {
        let mut of_folders: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for file in self.files.iter().filter(|file| stack::is_configuration(file.name())) {
            of_folders.entry(file.folder()).or_default().extend(stack::configured(&file.text));
        }
        of_folders.retain(|_, stacks| !stacks.is_empty());
        let files = self.files.iter().enumerate();
        let templates = files.filter(|(_, file)| ["yml", "yaml", "json"].contains(&file.extension()));
        templates.filter_map(|(index, file)| Some((index, of_folders.get(file.folder())?.clone()))).collect()
    }

    /// The place of an offset.
    pub(super) fn place(&self, file: usize, at: usize) -> Place {
        let file = &self.files[file];
        let line = file.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        Place { file: file.path.clone(), line }
    }
}

/// Whether a file can define functions, or name the stack that defines them, by its name.
fn is_source(name: &str) -> bool {
    let is_generated = ["package-lock.json", "package.json", "tsconfig.json", "composer.json"]
        .contains(&name)
        || name.ends_with(".d.ts")
        || name.ends_with(".min.js");
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is_known = ["yml", "yaml", "json", "tf", "tofu", "py", "ts", "mts", "cts", "js", "mjs", "cjs"]
        .contains(&extension);
    !is_generated && (is_known || stack::is_configuration(name))
}

/// The text cannot be parsed, at this offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unparsed {
    pub(super) at: usize,
}

/// Parses a text. A text with an error gives no tree, because the parser's repair may be wrong.
pub(super) fn parse(text: &str, language: impl Into<Language>) -> Result<Tree, Unparsed> {
    let mut parser = Parser::new();
    parser.set_language(&language.into()).map_err(|_| Unparsed { at: 0 })?;
    let tree = parser.parse(text, None).ok_or(Unparsed { at: 0 })?;
    match first_error(tree.root_node()) {
        Some(at) => Err(Unparsed { at }),
        None => Ok(tree),
    }
}

fn first_error(mut node: Node<'_>) -> Option<usize> {
    if !node.has_error() {
        return None;
    }
    // Down to the innermost node, without recursion: the depth is the text's.
    loop {
        let next = children(node).find(|child| child.has_error() || child.is_error() || child.is_missing());
        match next {
            Some(child) if !node.is_error() && !node.is_missing() => node = child,
            _ => return Some(node.start_byte()),
        }
    }
}

/// The children of a node, without comments.
pub(super) fn named(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    children(node).filter(|child| child.is_named() && child.kind() != "comment")
}

/// All children of a node.
pub(super) fn children(node: Node<'_>) -> std::vec::IntoIter<Node<'_>> {
    // By index, each child costs a walk over those before it.
    node.children(&mut node.walk()).collect::<Vec<_>>().into_iter()
}

/// The node and all nodes in it, in the order of the text.
pub(super) fn descendants(root: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    let mut open = vec![root];
    std::iter::from_fn(move || {
        let node = open.pop()?;
        open.extend(children(node).rev());
        Some(node)
    })
}
