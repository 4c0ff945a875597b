//! Import cycles between the top-level modules of a crate, computed from its sources.
//!
//! A path that begins with `crate::`, or with enough `super::` to reach the crate's root, is an import. The crate's
//! root file may use every module, so it is not part of the check. Test code is ignored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// For each top-level module, the top-level modules that it imports.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// The imports between the top-level modules of the crate whose sources are in `source_folder`.
pub(crate) fn imports(source_folder: &Path) -> Imports {
    let mut imports = Imports::new();
    for (name, path) in top_level_modules(source_folder) {
        read_module(&path, 1, imports.entry(name).or_default());
    }
    let names: BTreeSet<String> = imports.keys().cloned().collect();
    for (name, imported) in &mut imports {
        imported.retain(|other| other != name && names.contains(other));
    }
    imports
}

/// One shortest cycle for each group of modules that import each other, as `a -> b -> a`.
pub(crate) fn cycles(imports: &Imports) -> Vec<String> {
    let mut in_reported_cycle = BTreeSet::new();
    let mut found = vec![];
    for start in imports.keys() {
        if in_reported_cycle.contains(start) {
            continue;
        }
        if let Some(cycle) = shortest_cycle(imports, start) {
            found.push(cycle.join(" -> "));
            in_reported_cycle.extend(cycle);
        }
    }
    found
}

fn shortest_cycle(imports: &Imports, start: &str) -> Option<Vec<String>> {
    let mut queue = VecDeque::from([vec![start.to_owned()]]);
    let mut visited = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        for next in imports.get(path.last()?).into_iter().flatten() {
            let longer: Vec<_> = path.iter().chain([next]).cloned().collect();
            if next == start {
                return Some(longer);
            }
            if visited.insert(next.clone()) {
                queue.push_back(longer);
            }
        }
    }
    None
}

/// Names of the top-level modules, with the file of each.
fn top_level_modules(source_folder: &Path) -> Vec<(String, PathBuf)> {
    let mut modules = vec![];
    for entry in fs::read_dir(source_folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let has_mod_file = path.join("mod.rs").exists();
        if is_source && !["lib", "main", "tests"].contains(&name.as_str()) {
            modules.push((name, path));
        } else if has_mod_file {
            modules.push((name, path.join("mod.rs")));
        }
    }
    modules
}

/// Adds the top-level modules that the module in `file` and its submodules import. `depth` is 1 for a top-level module.
fn read_module(file: &Path, depth: usize, imported: &mut BTreeSet<String>) {
    let code = without_test_items(&tokens(&fs::read_to_string(file).unwrap()));
    imported.extend(root_imports(&code, depth));
    let is_mod_file = file.file_name().is_some_and(|name| name == "mod.rs");
    let folder = if is_mod_file { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    for declaration in code.windows(3).filter(|window| window[0] == "mod" && window[2] == ";") {
        let name = &declaration[1];
        let files = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
        if let Some(submodule) = files.iter().find(|path| name != "tests" && path.exists()) {
            read_module(submodule, depth + 1, imported);
        }
    }
}

/// First segments after the crate's root, of all paths in `code`.
fn root_imports(code: &[String], depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // For each open brace, whether it belongs to an inline module.
    let mut braces = vec![];
    let mut position = 0;
    while position < code.len() {
        match code[position].as_str() {
            "{" => braces.push(position >= 2 && code[position - 2] == "mod"),
            "}" => drop(braces.pop()),
            "crate" if is(code, position + 1, "::") => first_segments(code, position + 2, &mut found),
            "super" => {
                let mut count = 1;
                while is(code, position + 1, "::") && is(code, position + 2, "super") {
                    count += 1;
                    position += 2;
                }
                let inline_depth = braces.iter().filter(|is_module| **is_module).count();
                if count == depth + inline_depth && is(code, position + 1, "::") {
                    first_segments(code, position + 2, &mut found);
                }
            }
            _ => {}
        }
        position += 1;
    }
    found
}

fn is(code: &[String], position: usize, token: &str) -> bool {
    code.get(position).is_some_and(|found| found == token)
}

/// The first segment of the path at `position`, or of each path of the group there.
fn first_segments(code: &[String], position: usize, found: &mut BTreeSet<String>) {
    if !is(code, position, "{") {
        found.extend(code.get(position).cloned());
        return;
    }
    let mut depth = 0;
    for window in code[position..].windows(2) {
        match window[0].as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
        if depth == 1 && matches!(window[0].as_str(), "{" | ",") {
            found.insert(window[1].clone());
        }
    }
}

/// `code` without the items that have the attribute `#[cfg(test)]`.
fn without_test_items(code: &[String]) -> Vec<String> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = vec![];
    let mut position = 0;
    while position < code.len() {
        if code[position..].iter().take(ATTRIBUTE.len()).eq(ATTRIBUTE.iter()) {
            position = end_of_item(code, position + ATTRIBUTE.len());
        } else {
            kept.push(code[position].clone());
            position += 1;
        }
    }
    kept
}

/// The position after the item at `position`: after its `;` or its closing brace.
fn end_of_item(code: &[String], mut position: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = code.get(position) {
        position += 1;
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(token.as_str(), ";" | "}") {
            break;
        }
    }
    position
}

/// Identifiers and punctuation of Rust source, without comments, strings and characters.
pub(crate) fn tokens(source: &str) -> Vec<String> {
    let mut found = vec![];
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            // A lifetime is `'` and an identifier without a closing `'`.
            let mut after = rest.chars().skip(1);
            let is_char = after.next() == Some('\\') || after.next() == Some('\'');
            if is_char { quoted(rest, '\'') } else { 1 }
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let end = end.unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            end
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                found.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    found
}

/// Length of the raw string that `rest` begins with.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body_length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(rest.len() - body.len() + body_length)
}

/// Length of the quoted literal that `rest` begins with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (position, letter) in rest.char_indices().skip(1) {
        if letter == quote && !is_escaped {
            return position + letter.len_utf8();
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    rest.len()
}
