//! Text tables, all in one style.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// A table with `headings`; a heading that ends in `>` (not shown) aligns its column to the right. Cells beyond the
/// headings are dropped.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    padded(headings, rows, (1, 1))
}

/// The same in less width: columns that have nothing but zeros and dashes are left out, and the rest stand closer. The first
/// column stays.
pub(crate) fn narrow_table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let says = |n: usize| rows.iter().any(|row| !matches!(row.get(n).map_or("", |s| s), "" | "0" | "-"));
    let kept: Vec<usize> = (0..headings.len()).filter(|&n| n == 0 || rows.is_empty() || says(n)).collect();
    let headings: Vec<_> = kept.iter().map(|&n| headings[n]).collect();
    let rows = rows.iter().map(|row| kept.iter().map(|&n| row.get(n).cloned().unwrap_or_default()).collect());
    padded(&headings, rows, (0, 1))
}

fn padded(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>, padding: (u16, u16)) -> String {
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
    table.column_iter_mut().for_each(|column| {
        column.set_padding(padding);
    });
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_table_leaves_out_columns_that_say_nothing_but_never_the_first() {
        let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
        let rows = || [row(["0", "0", "3", "-"]), row(["0", "-", "4", ""])];
        let text = narrow_table(&["of>", "errors>", "requests>", "GSI>"], rows());
        assert!(text.contains("of") && text.contains("requests"), "{text}");
        assert!(!text.contains("errors") && !text.contains("GSI"), "{text}");
        assert!(table(&["of>", "errors>", "requests>", "GSI>"], rows()).contains("errors"));
        // An empty one keeps its headings: they say what could be there.
        assert!(narrow_table(&["of", "errors>"], []).contains("errors"));
    }
}
