//! Columns for a terminal.

/// Columns as wide as their widest cell, the last one as it is.
pub fn render(heads: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(n, head)| {
            let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| width(cell));
            cells.chain([width(head)]).max().unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    let heads: Vec<_> = heads.iter().map(|head| (*head).to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width_of_column) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                width_of_column.saturating_sub(width(cell)) + 2,
            ));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Characters stand for cells: ids and topics of devices are plain.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = [
            vec!["plug".to_owned(), "x".to_owned()],
            vec!["a long name".to_owned(), String::new()],
        ];
        assert_eq!(
            render(&["device", "n"], &rows),
            "device       n\nplug         x\na long name\n"
        );
    }
}
