//! What a run found.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

/// More bad rows than these add nothing: the first ones say where to look.
const FINDINGS_MAX: usize = 20;

/// What must always hold; see `ARCHITECTURE.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "each is one line of the crate's table")]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    I12,
}

impl Invariant {
    /// Every invariant that a run checks.
    pub const ALL: [Self; 11] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
    ];

    /// What it says.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::I1 => "every posted payment is one debit and one credit of the same amount",
            Self::I2 => "balance, version and hold of an account are those of its entries",
            Self::I3 => "all accounts of a currency sum to zero",
            Self::I4 => "no command is applied twice",
            Self::I6 => "every row has a legal status",
            Self::I7 => "no account but the bank's is overdrawn",
            Self::I8 => "captures, refunds and mandates stay within their bounds",
            Self::I9 => "each partner's events are numbered without gap or repeat",
            Self::I10 => "no event was passed over on its way to an endpoint",
            Self::I11 => "no entry was altered, removed, added or reordered",
            Self::I12 => "no row of the audit log was altered, removed, added or reordered",
        }
    }
}

/// A row that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What does not hold.
    pub invariant: Invariant,
    /// The table.
    pub table: &'static str,
    /// The row's key, readable.
    pub key: String,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, table, key, expected, found } = self;
        write!(f, "{invariant:?} {table} [{key}]: expected {expected}, found {found}")
    }
}

/// What was checked, and what was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How many comparisons were made for each invariant.
    pub checks: BTreeMap<Invariant, u64>,
    /// How many rows of each table were read.
    pub rows: BTreeMap<&'static str, u64>,
    /// The rows that are wrong, in the order in which they were met; empty when the ledger is whole. At most 20, and 20
    /// of checkpoints.
    pub findings: Vec<Finding>,
    /// `true`: rows verified by an earlier run were trusted.
    pub resumed: bool,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
}

fn seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    /// Entries read in a second.
    pub fn entries_per_second(&self) -> f64 {
        let entries = self.rows.get("entries").copied().unwrap_or_default();
        entries as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    pub(crate) fn read(&mut self, table: &'static str, rows: usize) {
        *self.rows.entry(table).or_default() += rows as u64;
    }

    /// Whether enough is known.
    pub(crate) fn is_full(&self) -> bool {
        self.findings.len() >= FINDINGS_MAX
    }

    /// Adds what another one counted and found.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (invariant, checks) in other.checks {
            *self.checks.entry(invariant).or_default() += checks;
        }
        for (table, rows) in other.rows {
            *self.rows.entry(table).or_default() += rows;
        }
        self.findings.extend(other.findings);
    }

    pub(crate) fn found(&mut self, finding: Finding) {
        if !self.is_full() {
            self.findings.push(finding);
        }
    }

    /// Compares; `row` names the row when they differ. Gives whether they are equal.
    pub(crate) fn expect<T: PartialEq + fmt::Debug>(
        &mut self,
        invariant: Invariant,
        row: &Row<'_>,
        what: &str,
        expected: &T,
        found: &T,
    ) -> bool {
        self.hold(invariant, row, expected == found, || {
            (format!("{what} {expected:?}"), format!("{found:?}"))
        })
    }

    /// Notes a comparison; `say` tells what was expected and what was found when it does not hold.
    pub(crate) fn hold(
        &mut self,
        invariant: Invariant,
        row: &Row<'_>,
        holds: bool,
        say: impl FnOnce() -> (String, String),
    ) -> bool {
        *self.checks.entry(invariant).or_default() += 1;
        if !holds {
            let (expected, found) = say();
            self.found(Finding { invariant, table: row.table, key: (row.key)(), expected, found });
        }
        holds
    }
}

/// Names a row, only when it has to be named.
pub(crate) struct Row<'a> {
    pub(crate) table: &'static str,
    pub(crate) key: &'a (dyn Fn() -> String + Sync),
}
