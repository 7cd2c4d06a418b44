//! Reads files of lines `NAME='value'`, as `wired-local` and `admin-api seed` write them.

use std::collections::BTreeMap;

/// The variables of a file.
pub(super) fn parse(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('\'').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_go_and_comments_are_skipped() {
        let variables = parse("# A='b'\nWIRED_A='x=y'\nWIRED_B=z\n");
        assert_eq!(variables.len(), 2);
        assert_eq!(variables["WIRED_A"], "x=y");
        assert_eq!(variables["WIRED_B"], "z");
    }
}
