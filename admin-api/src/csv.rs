//! Lines of CSV (RFC 4180) that a spreadsheet opens without harm: a text that could be taken for a formula has an
//! apostrophe before it.

/// A cell.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// What somebody typed.
    Text(&'a str),
    /// What this service wrote itself: numbers, ids, times, words of closed sets. A negative amount stays a number.
    Plain(&'a str),
}

/// What begins a formula in one program or another, also as full-width characters.
const FORMULA: [char; 12] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\0', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Writes one line.
pub fn line(out: &mut String, cells: &[Cell<'_>]) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match cell {
            // Spreadsheets cut spaces off before they look.
            Cell::Text(text) if text.trim_start_matches(' ').starts_with(FORMULA) => quoted(out, "'", text),
            Cell::Text(text) | Cell::Plain(text) => quoted(out, "", text),
        }
    }
    out.push_str("\r\n");
}

fn quoted(out: &mut String, before: &str, text: &str) {
    if !text.contains(['"', ',', '\r', '\n']) {
        out.push_str(before);
        out.push_str(text);
        return;
    }
    out.push('"');
    out.push_str(before);
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_typed_is_a_formula_and_numbers_stay_numbers() {
        for (typed, written) in [
            ("Kaffee", "Kaffee"),
            ("", ""),
            ("=1+1", "'=1+1"),
            ("+43 1", "'+43 1"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\0x", "'\0x"),
            ("  =x", "'  =x"),
            ("\u{ff1d}x", "'\u{ff1d}x"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("\r\n=x", "\"'\r\n=x\""),
            ("a=b", "a=b"),
        ] {
            let mut out = String::new();
            line(&mut out, &[Cell::Text(typed)]);
            assert_eq!(out, format!("{written}\r\n"), "{typed:?}");
        }
        let mut out = String::new();
        line(&mut out, &[Cell::Plain("-12.50"), Cell::Plain("EUR"), Cell::Text("x")]);
        assert_eq!(out, "-12.50,EUR,x\r\n");
    }
}
