//! The monthly report as Markdown and as HTML.

use maud::{DOCTYPE, PreEscaped, html as markup};

use super::{Document, Section};
use crate::render::text::{markdown_cell, visible};

/// Mail programs load no style sheets, so the style is in the page.
const STYLE: &str = "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1b1f24}\
                     table{border-collapse:collapse}th,td{padding:.3em .8em;border-bottom:1px solid #d0d7de;text-align:left}";

/// The report in Markdown.
#[must_use]
pub fn markdown(document: &Document) -> String {
    let mut text = format!("# {}\n", markdown_cell(&document.title));
    for section in &document.sections {
        text.push_str(&format!("\n## {}\n", markdown_cell(&section.title)));
        for paragraph in &section.texts {
            text.push_str(&format!("\n{}\n", markdown_cell(paragraph)));
        }
        if section.rows.is_empty() {
            text.push_str(if section.header.is_empty() { "" } else { "\nNone.\n" });
            continue;
        }
        text.push('\n');
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(section.header.iter().map(|title| (*title).to_owned()).collect()));
        text.push_str(&line(vec!["---".to_owned(); section.header.len()]));
        for row in &section.rows {
            text.push_str(&line(row.iter().map(|cell| markdown_cell(cell)).collect()));
        }
    }
    text
}

/// The report as one HTML page.
#[must_use]
pub fn html(document: &Document) -> String {
    let page = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (visible(&document.title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (visible(&document.title)) }
                @for section in &document.sections { (part(section)) }
            }
        }
    };
    page.into_string() + "\n"
}

fn part(section: &Section) -> maud::Markup {
    markup! {
        h2 { (visible(&section.title)) }
        @for paragraph in &section.texts { p { (visible(paragraph)) } }
        @if section.rows.is_empty() {
            @if !section.header.is_empty() { p { "None." } }
        } @else {
            table {
                thead { tr { @for title in &section.header { th scope="col" { (title) } } } }
                tbody {
                    @for row in &section.rows { tr { @for cell in row { td { (visible(cell)) } } } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_neither_markup_nor_html() {
        let section = Section {
            title: "Cost <b>".to_owned(),
            texts: vec!["a & b\u{202e}".to_owned()],
            header: vec!["Function"],
            rows: vec![vec!["<script>|`x`".to_owned()]],
        };
        let document = Document { title: "T".to_owned(), sections: vec![section, Section::default()] };
        let text = markdown(&document);
        assert!(
            text.contains("| &lt;script&gt;\\|\\`x\\` |\n") && text.contains("a &amp; b\u{fffd}"),
            "{text}"
        );
        let page = html(&document);
        assert!(page.contains("<td>&lt;script&gt;|`x`</td>") && !page.contains("<script"), "{page}");
    }
}
