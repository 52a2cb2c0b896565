//! Tables and lists for people.

use std::io::{IsTerminal as _, stdout};

use super::terminal_text::{display_width, escaped, truncated};

/// Columns between two of a table's.
const GAP: usize = 2;

/// How wide an answer may be where there is no terminal.
const DEFAULT_WIDTH: usize = 120;

/// The last column of a table is not cut to less.
const MIN_LAST_COLUMN: usize = 20;

/// How wide an answer may be: as wide as the terminal.
pub(super) fn terminal_width() -> usize {
    let from_environment = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let found = || stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    from_environment
        .or_else(|| found().map(|(display_width, _)| usize::from(display_width.0)))
        .unwrap_or(DEFAULT_WIDTH)
}

/// Rows in aligned columns under their names; the last column is cut to what the terminal leaves of it. Cells are escaped
/// here, whatever they hold.
pub(super) fn table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    format_table(names, rows, Some(terminal_width()))
}

/// The same with the last column whole: it says what people look for.
pub(super) fn untruncated_table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    format_table(names, rows, None)
}

fn format_table<const N: usize>(names: [&str; N], rows: &[[String; N]], columns: Option<usize>) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let mut widths = names.map(display_width);
    for row in &rows {
        for (known, cell) in widths.iter_mut().zip(row) {
            *known = display_width(cell).max(*known);
        }
    }
    let before_last: usize = widths[..N - 1].iter().map(|display_width| display_width + GAP).sum();
    let left = columns.map(|columns| columns.saturating_sub(before_last).max(MIN_LAST_COLUMN));
    let mut text = String::new();
    for row in std::iter::once(&names.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (cell, width_of_column) in row[..N - 1].iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width_of_column - display_width(cell) + GAP));
        }
        match left {
            Some(left) => line.push_str(&truncated(&row[N - 1], left)),
            None => line.push_str(&row[N - 1]),
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names with their values, aligned. Values are escaped here, whatever they hold.
pub(super) fn key_value_lines(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| display_width(name)).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in pairs {
        let gap = widest - display_width(name) + GAP;
        text.push_str(format!("{name}{:gap$}{}", "", escaped(value)).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_one_is_not_padded() {
        let rows =
            [["1".to_owned(), "世界".to_owned(), String::new()], ["10".into(), "x".into(), "end".into()]];
        assert_eq!(table(["N", "WORD", "LAST"], &rows), "N   WORD  LAST\n1   世界\n10  x     end\n");
    }

    #[test]
    fn control_characters_in_cells_are_escaped() {
        let hostile = "a\u{1b}[2J\u{9b}\u{202e}\nb".to_owned();
        let shown = "a\\u{1b}[2J\\u{9b}\\u{202e}\\nb";
        let rows = [[hostile.clone(), hostile.clone()]];
        assert_eq!(
            untruncated_table(["N", "LAST"], &rows).lines().nth(1),
            Some(&*format!("{shown}  {shown}"))
        );
        assert_eq!(table(["N", "LAST"], &rows).lines().count(), 2);
        assert_eq!(key_value_lines(&[("n", hostile)]), format!("n  {shown}\n"));
    }

    #[test]
    fn values_are_aligned() {
        assert_eq!(key_value_lines(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2\n");
    }
}
