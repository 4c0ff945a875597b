//! Text from outside, for places that must not interpret it.

/// Whether a character has no shape of its own: control characters, and those that change the direction or the
/// joining of others. A name with them can be displayed like another name.
#[must_use]
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with a replacement for each invisible character.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars().map(|character| if is_invisible(character) { '\u{fffd}' } else { character }).collect()
}

/// A cell of a CSV file that a spreadsheet does not compute: one that begins like a formula gets an apostrophe before it.
/// Spreadsheets ignore spaces before a formula, and some read full-width signs as signs.
#[must_use]
pub fn csv_cell(text: &str) -> String {
    let text = visible(text);
    let signs = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\u{2212}'];
    let is_formula =
        text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{fffd}').starts_with(signs);
    format!("{}{text}", if is_formula { "'" } else { "" })
}

/// A cell of a Markdown table: the text cannot end the cell, and is neither markup, HTML nor a link.
#[must_use]
pub fn markdown_cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '\\' | '|' | '[' | ']' | '`' | '*' | '!' | '~' => cell.extend(['\\', character]),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '&' => cell.push_str("&amp;"),
            other => cell.push(other),
        }
    }
    // Some renderers make links of bare addresses.
    cell.replace("://", "&#58;//").replace("www.", "www&#46;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_a_csv_file_is_not_a_formula() {
        for formula in [
            "=1+1",
            " =1+1",
            "\t=1+1",
            "\u{a0}=1",
            "\u{200b}=1",
            "\u{ff1d}1+1",
            "+1",
            "-1",
            "@a",
            "\u{ff20}a",
        ] {
            assert!(csv_cell(formula).starts_with('\''), "{formula:?}");
        }
        assert_eq!(csv_cell("checkout-price=1"), "checkout-price=1");
    }

    #[test]
    fn a_cell_of_a_markdown_table_is_plain_text() {
        assert_eq!(
            markdown_cell("[x](javascript:alert(1)) a|b <b> &lt; https://evil"),
            "\\[x\\](javascript:alert(1)) a\\|b &lt;b&gt; &amp;lt; https&#58;//evil"
        );
        assert_eq!(markdown_cell("\\|"), "\\\\\\|");
        assert_eq!(markdown_cell("my_function"), "my_function");
    }

    #[test]
    fn characters_that_change_the_direction_are_replaced() {
        assert_eq!(visible("abc\u{202e}dcba\u{200f}"), "abc\u{fffd}dcba\u{fffd}");
        assert_eq!(visible("größe-関数"), "größe-関数");
    }
}
