//! Text tables, all in one style.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// A table with `headings`; a heading that ends in `>` (not shown) aligns its column to the right. Cells beyond the
/// headings are dropped.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let right = |n: usize| headings.get(n).is_some_and(|heading| heading.ends_with('>'));
    let cell = |(n, text): (usize, String)| match right(n) {
        true => Cell::new(text).set_alignment(CellAlignment::Right),
        false => Cell::new(text),
    };
    let line = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().top_border(line).header_separator(line).bottom_border(line));
    // Never wrapped to a terminal's width: one row is one line.
    table.set_content_arrangement(ContentArrangement::Disabled);
    let shown = headings.iter().map(|heading| heading.trim_end_matches('>').to_string());
    table.set_header(shown.enumerate().map(cell));
    for row in rows {
        table.add_row(row.into_iter().take(headings.len()).enumerate().map(cell));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n")
}
