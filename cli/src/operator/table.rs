//! Tables and lists for people.

use std::io::{IsTerminal as _, stdout};

use super::terminal_text::{display_width, escaped, truncated};

/// Blanks between two columns of a table.
const GAP: usize = 2;

/// Width of an answer if standard output is no terminal.
const DEFAULT_WIDTH: usize = 120;

/// Minimum width of the last column of a table.
const MIN_LAST_COLUMN: usize = 20;

/// Returns the width of the terminal in columns.
pub(super) fn terminal_width() -> usize {
    let from_environment = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let detected = || stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    from_environment.or_else(|| detected().map(|(width, _)| usize::from(width.0))).unwrap_or(DEFAULT_WIDTH)
}

/// Formats rows in aligned columns with headings. The last column is cut to the width of the terminal. Cells are
/// escaped here.
pub(super) fn table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    format_table(names, rows, Some(terminal_width()))
}

/// Formats a table like [`table`], with the last column uncut.
pub(super) fn untruncated_table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    format_table(names, rows, None)
}

fn format_table<const N: usize>(names: [&str; N], rows: &[[String; N]], columns: Option<usize>) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let mut widths = names.map(display_width);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = display_width(cell).max(*width);
        }
    }
    let before_last: usize = widths[..N - 1].iter().map(|width| width + GAP).sum();
    let last_width = columns.map(|columns| columns.saturating_sub(before_last).max(MIN_LAST_COLUMN));
    let mut text = String::new();
    for row in std::iter::once(&names.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row[..N - 1].iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - display_width(cell) + GAP));
        }
        match last_width {
            Some(last_width) => line.push_str(&truncated(&row[N - 1], last_width)),
            None => line.push_str(&row[N - 1]),
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Formats names with their values, aligned. Values are escaped here.
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
