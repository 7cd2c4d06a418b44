//! Reads the lines of `SHOW GRANTS`, and says how to take back what a line gives too much.

use std::collections::BTreeSet;

/// Names of rights, e.g. `SELECT`.
pub(super) type Rights = BTreeSet<String>;

/// What a right to pass rights on is called in [`Rights`].
const GRANT_OPTION: &str = "GRANT OPTION";

/// One line of `SHOW GRANTS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// What the rights are on, as in the line: `` `db`.`table` ``, `*.*`, ``PROCEDURE `db`.`p` ``; empty for roles.
    pub(super) object: String,
    /// The rights, or the roles.
    pub(super) rights: Rights,
}

/// The names of the rights in a cell of the table of grants.
pub(super) fn from_letters(letters: &str) -> Rights {
    letters
        .chars()
        .filter_map(|letter| match letter {
            'S' => Some("SELECT"),
            'I' => Some("INSERT"),
            'U' => Some("UPDATE"),
            'D' => Some("DELETE"),
            _ => None,
        })
        .map(str::to_owned)
        .collect()
}

impl Line {
    /// Reads ``GRANT rights ON object TO `user`@`host` [WITH GRANT OPTION]`` and ``GRANT `role`@`%` TO …``.
    pub(super) fn parse(line: &str) -> Self {
        let body = line.strip_prefix("GRANT ").unwrap_or(line);
        let (given, receiver) = body.rsplit_once(" TO ").unwrap_or((body, ""));
        let (names, object) = given.split_once(" ON ").unwrap_or((given, ""));
        let mut rights = split_outside_parentheses(names);
        if receiver.ends_with("WITH GRANT OPTION") {
            rights.insert(GRANT_OPTION.to_owned());
        }
        Self { object: object.to_owned(), rights }
    }

    /// The line that every user has and that gives nothing.
    pub(super) fn is_usage(&self) -> bool {
        self.object == "*.*" && self.rights.iter().all(|right| right == "USAGE")
    }

    /// Statements, without their `FROM user`, that leave only `kept` of this line.
    pub(super) fn revoke_all_but(&self, kept: &Rights) -> Vec<String> {
        let excess: Vec<_> = self.rights.difference(kept).filter(|right| *right != "USAGE").collect();
        excess
            .into_iter()
            .map(|right| {
                if self.object.is_empty() {
                    format!("REVOKE {right}")
                } else {
                    format!("REVOKE {right} ON {}", self.object)
                }
            })
            .collect()
    }
}

/// Splits at commas, but not within the columns of `SELECT (a, b)`.
fn split_outside_parentheses(text: &str) -> Rights {
    let mut depth = 0_i32;
    text.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .map(|part| part.trim().to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_taken_back() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("GRANT USAGE ON *.* TO `u`@`%`", "", &[]),
            ("GRANT SELECT, INSERT ON `d`.`t` TO `u`@`%`", "SI", &[]),
            ("GRANT SELECT, UPDATE ON `d`.`t` TO `u`@`%`", "S", &["REVOKE UPDATE ON `d`.`t`"]),
            ("GRANT ALL PRIVILEGES ON `d`.* TO `u`@`%`", "", &["REVOKE ALL PRIVILEGES ON `d`.*"]),
            (
                "GRANT SELECT (`a`, `b`), INSERT ON `d`.`t` TO `u`@`%`",
                "SI",
                &["REVOKE SELECT (`a`, `b`) ON `d`.`t`"],
            ),
            (
                "GRANT SELECT ON `d`.`t` TO `u`@`%` WITH GRANT OPTION",
                "S",
                &["REVOKE GRANT OPTION ON `d`.`t`"],
            ),
            ("GRANT `r`@`%` TO `u`@`%`", "", &["REVOKE `r`@`%`"]),
            ("GRANT EXECUTE ON PROCEDURE `d`.`p` TO `u`@`%`", "", &["REVOKE EXECUTE ON PROCEDURE `d`.`p`"]),
        ];
        for (line, kept, revokes) in cases {
            assert_eq!(Line::parse(line).revoke_all_but(&from_letters(kept)), *revokes, "{line}");
        }
    }
}
