//! Aligned columns; colours count for nothing and wide characters for two.

use console::{Alignment, measure_text_width, pad_str};

/// Rows in columns, two spaces apart and two from the margin. `right` names the columns of numbers.
pub fn columns(rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |index: usize| rows.iter().filter_map(|row| row.get(index)).map(|cell| measure_text_width(cell)).max();
    let widths: Vec<usize> = (0..count).map(|index| width(index).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let alignment = if right.contains(&index) { Alignment::Right } else { Alignment::Left };
            line.push_str("  ");
            line.push_str(&pad_str(cell, widths[index], alignment, None));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn wide_characters_and_colours_keep_columns_straight() {
        let red = crate::ui::paint(crate::ui::BAD, "x");
        let rows = vec![vec!["学習".into(), "1".into(), red], vec!["ab".into(), "20".into(), "y".into()]];
        let text = anstream::adapter::strip_str(&super::columns(rows, &[1])).to_string();
        assert_eq!(text, "  学習   1  x\n  ab    20  y\n");
    }
}
