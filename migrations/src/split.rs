//! Splits a file of SQL into statements, as MySQL reads it: semicolons in strings, names and comments do not count.
//!
//! Knows no `DELIMITER`: stored programs are not portable and not used.

/// The file ends inside something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file ends within {0}")]
pub struct Unterminated(pub &'static str);

/// The statements of a file, without the semicolons and without the comments before each.
pub fn statements(sql: &str) -> Result<Vec<&str>, Unterminated> {
    let mut statements = Vec::new();
    let mut rest = sql;
    loop {
        rest = skip_blank(rest)?;
        if rest.is_empty() {
            return Ok(statements);
        }
        let end = statement_end(rest)?;
        let statement = rest[..end].trim_end();
        if !statement.is_empty() {
            statements.push(statement);
        }
        rest = rest[end..].strip_prefix(';').unwrap_or_default();
    }
}

/// The text after white space and comments. `/*!` and `/*T!` are no comments: they hold SQL for some servers.
fn skip_blank(text: &str) -> Result<&str, Unterminated> {
    let mut rest = text.trim_start();
    while !rest.starts_with("/*!") && !rest.starts_with("/*T!") {
        match comment_length(rest)? {
            Some(length) => rest = rest[length..].trim_start(),
            None => break,
        }
    }
    Ok(rest)
}

/// Where the first statement ends: at its semicolon, or at the end of the text.
fn statement_end(text: &str) -> Result<usize, Unterminated> {
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let rest = &text[at..];
        at += match character {
            ';' => return Ok(at),
            '\'' | '"' | '`' => quoted_length(rest, character)?,
            _ => comment_length(rest)?.unwrap_or(character.len_utf8()),
        };
    }
    Ok(at)
}

/// The length of the comment that `text` begins with, if it does.
fn comment_length(text: &str) -> Result<Option<usize>, Unterminated> {
    // MySQL wants white space or the end after the dashes, since `5--3` is 8.
    let after_dashes = text.strip_prefix("--");
    let dashes = after_dashes.is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace));
    if dashes || text.starts_with('#') {
        return Ok(Some(text.find('\n').unwrap_or(text.len())));
    }
    match text.strip_prefix("/*") {
        Some(rest) => rest.find("*/").map(|end| Some(end + 4)).ok_or(Unterminated("a comment")),
        None => Ok(None),
    }
}

/// The length of the string or name that `text` begins with. A doubled quote gives two in a row, which is the same.
fn quoted_length(text: &str, quote: char) -> Result<usize, Unterminated> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' && quote != '`' {
            characters.next();
        } else if character == quote {
            return Ok(at + quote.len_utf8());
        }
    }
    Err(Unterminated(if quote == '`' { "a quoted name" } else { "a string" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn semicolons_count_only_between_statements() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ; ;; \n", &[]),
            ("-- only; a comment", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            ("-- a; b\nSELECT 1; # c; d\n/* e; f */ SELECT 2", &["SELECT 1", "SELECT 2"]),
            ("SELECT 1 -- a; 'b\n, 2;", &["SELECT 1 -- a; 'b\n, 2"]),
            ("SELECT 5--3; SELECT 2", &["SELECT 5--3", "SELECT 2"]),
            ("SELECT ';', \";\", `;`; SELECT 2", &["SELECT ';', \";\", `;`", "SELECT 2"]),
            ("SELECT 'it''s;'; SELECT 2", &["SELECT 'it''s;'", "SELECT 2"]),
            ("SELECT 'it\\'s;'; SELECT 2", &["SELECT 'it\\'s;'", "SELECT 2"]),
            ("SELECT `\\`; SELECT 2", &["SELECT `\\`", "SELECT 2"]),
            ("SELECT '-- no comment'; SELECT 2", &["SELECT '-- no comment'", "SELECT 2"]),
            (
                "CREATE TABLE t (a INT) /*T![c] CLUSTERED; */; SELECT 2",
                &["CREATE TABLE t (a INT) /*T![c] CLUSTERED; */", "SELECT 2"],
            ),
            ("/*!80000 SET x = 1 */; SELECT 2", &["/*!80000 SET x = 1 */", "SELECT 2"]),
            ("SELECT 'ä;ö'; SELECT '–'", &["SELECT 'ä;ö'", "SELECT '–'"]),
            ("SELECT 1 --", &["SELECT 1 --"]),
        ];
        for (sql, expected) in cases {
            assert_eq!(statements(sql).as_deref(), Ok(*expected), "{sql}");
        }
    }

    #[test]
    fn a_file_that_ends_within_something_is_refused() {
        for (sql, within) in [
            ("SELECT 'a", "a string"),
            ("SELECT \"a\\\"", "a string"),
            ("SELECT `a", "a quoted name"),
            ("SELECT 1; /* a", "a comment"),
        ] {
            assert_eq!(statements(sql), Err(Unterminated(within)), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_separators_and_comments_is_lost(sql in r#"[a;'"`\\/*\-# \n!é]{0,40}"#) {
            if let Ok(found) = statements(&sql) {
                let mut rest = sql.as_str();
                for statement in found {
                    prop_assert!(!statement.is_empty());
                    let at = rest.find(statement);
                    prop_assert!(at.is_some(), "statements come in order, unchanged");
                    rest = &rest[at.unwrap() + statement.len()..];
                }
            }
        }
    }
}
