//! JSON: compact in responses, indented for people.

use serde::Serialize;

use crate::query::TableStyle;

/// A value as JSON with a final newline.
#[must_use]
pub fn json(value: &impl Serialize, style: TableStyle) -> String {
    // Reports have no maps with other keys than text, which is all that could fail.
    let text = serde_json::to_string(value).unwrap_or_default() + "\n";
    if style.indents { indent(&text) } else { text }
}

/// Indents valid JSON by two spaces and keeps the order of fields and the digits of numbers.
#[must_use]
pub fn indent(text: &str) -> String {
    let mut indented = String::with_capacity(text.len() * 2);
    let (mut depth, mut is_in_text, mut is_escaped) = (0usize, false, false);
    let mut characters = text.chars().filter(|character| *character != '\n').peekable();
    let new_line = |indented: &mut String, depth: usize| {
        indented.push('\n');
        indented.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = characters.next() {
        if is_in_text {
            indented.push(character);
            is_in_text = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
            continue;
        }
        match character {
            '{' | '[' => {
                indented.push(character);
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    indented.push(end);
                } else {
                    depth += 1;
                    new_line(&mut indented, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut indented, depth);
                indented.push(character);
            }
            ',' => {
                indented.push(',');
                new_line(&mut indented, depth);
            }
            ':' => indented.push_str(": "),
            '"' => {
                is_in_text = true;
                indented.push('"');
            }
            character => indented.push(character),
        }
    }
    indented.push('\n');
    indented
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_json_is_as_serde_writes_it() {
        let value = serde_json::json!({
            "text": "a \"quoted\\\" [text], {with}: all",
            "empty": {}, "none": [], "list": [1, -2.5e-9, true, null, {"nested": [[], [0.1]]}],
        });
        let indented = indent(&serde_json::to_string(&value).unwrap());
        assert_eq!(indented, serde_json::to_string_pretty(&value).unwrap() + "\n");
        assert_eq!(indent(&format!("{value}\n")), indented);
    }
}
