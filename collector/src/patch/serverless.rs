//! Configuration files of the Serverless Framework, in YAML and JSON, and the files with functions that they include.

use std::collections::BTreeMap;

use super::document::{Document, Value};
use super::name::{Name, Part, template};
use super::source::{File, Source, Unparsed};
use super::{Definition, Setting};

/// What a function without the setting has, MB.
const DEFAULT_MB: u32 = 1_024;
const KEY: &str = "memorySize";
/// The properties after which the size is inserted.
const ANCHORS: [&str; 4] = ["timeout", "runtime", "handler", "name"];

/// The settings of a service that its functions share.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// The parts of its name.
    name: Vec<Part>,
    has_memory: bool,
}

/// Whether this is the configuration of a service.
fn is_service(file: &File) -> bool {
    file.name().starts_with("serverless") && file.text.contains("functions")
}

impl Service {
    fn of(root: &Value<'_>) -> Self {
        let service = root.get("service");
        let name = service.and_then(|service| service.scalar().or_else(|| service.get("name")?.scalar()));
        let provider = root.get("provider");
        Self {
            name: name.map_or_else(|| vec![Part::Hole], |name| template(&name, "${", '}')),
            has_memory: provider.is_some_and(|provider| provider.get(KEY).is_some()),
        }
    }
}

/// The files that services include as maps of functions, with the service.
pub(super) fn function_files(source: &Source) -> BTreeMap<String, Service> {
    let mut included = BTreeMap::new();
    for file in source.files.iter().filter(|file| is_service(file)) {
        let Ok(document) = Document::parse(&file.text, file.extension() == "json") else { continue };
        for root in document.roots() {
            let Some(functions) = root.get("functions") else { continue };
            let references = functions.items().into_iter().chain([functions]);
            for path in references.filter_map(|value| included_file(&value.scalar()?)) {
                included.insert(beside(&file.path, &path), Service::of(&root));
            }
        }
    }
    included
}

/// The path in `${file(PATH)}`. A part of a file (`${file(PATH):KEY}`) is not supported.
fn included_file(text: &str) -> Option<String> {
    let path = text.trim().strip_prefix("${file(")?.strip_suffix(")}")?;
    let is_plain = !path.contains("${");
    is_plain.then(|| path.trim_start_matches("./").to_owned())
}

/// A path relative to the folder of another file.
fn beside(file: &str, path: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Adds the functions of a service's configuration, or of a file that one includes.
pub(super) fn read(
    file: &File,
    function_files: &BTreeMap<String, Service>,
    found: &mut Vec<Definition>,
) -> Result<(), Unparsed> {
    let included = function_files.get(&file.path);
    if included.is_none() && !is_service(file) {
        return Ok(());
    }
    let document = Document::parse(&file.text, file.extension() == "json")?;
    for root in document.roots() {
        if let Some(service) = included {
            functions(service, &root, found);
        } else if let Some(map) = root.get("functions") {
            let service = Service::of(&root);
            functions(&service, &map, found);
            map.items().iter().for_each(|item| functions(&service, item, found));
        }
    }
    Ok(())
}

fn functions(service: &Service, map: &Value<'_>, found: &mut Vec<Definition>) {
    for entry in map.entries() {
        let name = entry.value.and_then(|value| value.get("name"));
        let name = match name.map(|name| name.scalar()) {
            Some(Some(text)) => Name::of_parts(resolved(&text, service)),
            Some(None) => Name::Computed,
            None => {
                let key = format!("-{}", entry.key);
                let text = [Part::Text("-".to_owned()), Part::Hole, Part::Text(key)];
                Name::of_parts(service.name.iter().cloned().chain(text).collect())
            }
        };
        let shared = service.has_memory.then_some("provider.memorySize");
        let setting = entry.value.map_or_else(
            || Setting::Unsure("it has no settings".to_owned()),
            |value| value.setting(KEY, DEFAULT_MB, shared, &ANCHORS),
        );
        found.push(Definition { file: 0, at: entry.range.start, label: entry.key.clone(), name, setting });
    }
}

/// The parts of a name. The service's own name is known.
fn resolved(text: &str, service: &Service) -> Vec<Part> {
    match &service.name[..] {
        [Part::Text(name)] => template(&text.replace("${self:service}", name), "${", '}'),
        _ => template(text, "${", '}'),
    }
}
