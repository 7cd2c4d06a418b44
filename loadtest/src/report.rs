//! What a benchmark found: a table for people and JSON for programs.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Nothing: it explains another figure.
    None,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// The goal, such as `>= 0.8`.
    pub goal: Option<String>,
    /// Whether the figure reaches it.
    pub holds: Option<bool>,
}

/// All figures of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it ran.
    pub machine: String,
    /// In the order of measuring.
    pub results: Vec<Figure>,
}

impl Report {
    /// No figures yet.
    pub fn new(machine: String) -> Self {
        Self { machine, results: Vec::new() }
    }

    /// Adds a figure and prints its line, so that a long run shows that it lives.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        let (text, holds) = match goal {
            Goal::AtLeast(least) => (Some(format!(">= {least}")), Some(value >= least)),
            Goal::AtMost(most) => (Some(format!("<= {most}")), Some(value <= most)),
            Goal::None => (None, None),
        };
        let figure = Figure { name: name.into(), value, unit, goal: text, holds };
        eprintln!("  {}", line(&figure));
        self.results.push(figure);
    }

    /// How many figures miss their goal.
    pub fn missed(&self) -> usize {
        self.results.iter().filter(|figure| figure.holds == Some(false)).count()
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut table = format!("{}\n", self.machine);
        for figure in &self.results {
            table.push_str(&line(figure));
            table.push('\n');
        }
        table
    }

    /// Writes the JSON as a whole or not at all.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let draft = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self)?;
        let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path));
        written.with_context(|| format!("{} cannot be written", path.display()))
    }
}

fn line(figure: &Figure) -> String {
    let verdict = match figure.holds {
        Some(true) => "holds",
        Some(false) => "MISSED",
        None => "",
    };
    let value = format!("{} {}", rounded(figure.value), figure.unit);
    let goal = figure.goal.as_deref().unwrap_or_default();
    format!("{:<72} {value:>16}  {goal:<10} {verdict}", figure.name).trim_end().to_owned()
}

/// Three digits that mean something are enough.
fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_holds_or_is_missed_and_json_says_so() {
        let mut report = Report::new("a machine".to_owned());
        report.add("drain / ceiling", 0.81, "", Goal::AtLeast(0.8));
        report.add("webhook after the answer", 3.5, "ms", Goal::AtMost(3.0));
        report.add("drained", 9_000.4, "payments/s", Goal::None);
        assert_eq!(report.missed(), 1);
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["machine"], "a machine");
        assert_eq!(
            json["results"][0],
            serde_json::json!({"name": "drain / ceiling", "value": 0.81, "unit": "", "goal": ">= 0.8", "holds": true})
        );
        assert_eq!(json["results"][2]["holds"], serde_json::Value::Null);
        assert!(report.table().lines().nth(2).unwrap().ends_with("MISSED"), "{}", report.table());
        assert!(report.table().contains("9000 payments/s"));
    }
}
