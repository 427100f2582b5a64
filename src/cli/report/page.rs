//! A page of headings, texts, lists and tables, written as Markdown or as HTML.
//!
//! Texts are texts: nothing in them is markup, whoever wrote them.

use std::fmt::Write as _;

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) title: &'static str,
    pub(super) blocks: Vec<Block>,
}

#[derive(Debug)]
pub(super) enum Block {
    Heading(&'static str),
    Text(String),
    List(Vec<String>),
    Table {
        head: Vec<String>,
        /// How many columns are text; the others are figures.
        left: usize,
        rows: Vec<Vec<String>>,
    },
}

/// Readable by day and by night, on a screen and printed.
const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: .3rem .7rem; text-align: right; white-space: nowrap; }
thead th { vertical-align: bottom; } tbody th { font-weight: 600; }
.left, tbody th { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
@media print { body { font-size: 10px; margin: 0; max-width: none; } .wide { overflow: visible; } }
";

impl Page {
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        for block in &self.blocks {
            text.push('\n');
            match block {
                Block::Heading(heading) => text.push_str(&format!("## {heading}\n")),
                Block::Text(said) => text.push_str(&format!("{}\n", as_markdown(said))),
                Block::List(items) => {
                    items.iter().for_each(|item| text.push_str(&format!("- {}\n", as_markdown(item))));
                }
                Block::Table { head, left, rows } => {
                    line(&mut text, head);
                    let rule = (0..head.len()).map(|at| if at < *left { "---" } else { "--:" });
                    text.push_str(&format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
                    rows.iter().for_each(|row| line(&mut text, row));
                }
            }
        }
        text
    }

    pub(super) fn html(&self) -> String {
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n<h1>{0}</h1>\n",
            self.title
        );
        for block in &self.blocks {
            // Writing into a string cannot fail.
            let _ = match block {
                Block::Heading(heading) => writeln!(text, "<h2>{heading}</h2>"),
                Block::Text(said) => writeln!(text, "<p>{}</p>", as_html(said)),
                Block::List(items) => {
                    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", as_html(item))).collect();
                    writeln!(text, "<ul>\n{items}</ul>")
                }
                Block::Table { head, left, rows } => writeln!(text, "{}", table(head, *left, rows)),
            };
        }
        text.push_str("</html>\n");
        text
    }
}

fn line(text: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| as_markdown(cell)).collect();
    text.push_str(&format!("| {} |\n", cells.join(" | ")));
}

fn table(head: &[String], left: usize, rows: &[Vec<String>]) -> String {
    let class = |at: usize| if at < left { " class=\"left\"" } else { "" };
    let mut text = "<div class=\"wide\"><table>\n<thead><tr>".to_owned();
    for (at, title) in head.iter().enumerate() {
        text.push_str(&format!("<th scope=\"col\"{}>{}</th>", class(at), as_html(title)));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let cell = as_html(cell);
            match at {
                0 => text.push_str(&format!("<th scope=\"row\">{cell}</th>")),
                _ => text.push_str(&format!("<td{}>{cell}</td>", class(at))),
            }
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>"
}

/// Backslashes before whatever Markdown could take for its own.
fn as_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&' | '$' | '!') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn as_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_no_markup() {
        let said = "<b> [a](b) *c* \"d\" & 'e' | `f`".to_owned();
        let row = vec![said.clone()];
        let table = Block::Table { head: vec!["Route".to_owned()], left: 1, rows: vec![row] };
        let page = Page { title: "T", blocks: vec![Block::Text(said), table] };
        let escaped = "\\<b\\> \\[a\\](b) \\*c\\* \"d\" \\& 'e' \\| \\`f\\`";
        assert_eq!(page.markdown(), format!("# T\n\n{escaped}\n\n| Route |\n| --- |\n| {escaped} |\n"));
        assert_eq!(page.html().matches("&lt;b&gt; [a](b) *c* &quot;d&quot; &amp; &#39;e&#39; | `f`").count(), 2);
    }
}
