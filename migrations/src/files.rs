//! The list of migrations, in order. A file that has landed is never edited: expand with a new file, then contract.

/// One file of `sql/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order, from 1.
    pub version: u32,
    /// Its file name.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal,)*) => {
        /// Every migration, in order.
        pub const ALL: &[Migration] =
            &[$(Migration { version: $version, name: $name, sql: include_str!(concat!("../sql/", $name)) },)*];
    };
}

migrations! {
    1 "0001_ledger.sql",
    2 "0002_partners.sql",
    3 "0003_deliveries.sql",
    4 "0004_money.sql",
    5 "0005_webhooks.sql",
    6 "0006_people.sql",
    7 "0007_evidence.sql",
    8 "0008_commands.sql",
    9 "0009_customers.sql",
    10 "0010_partners.sql",
    11 "0011_audit.sql",
    12 "0012_analytics.sql",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_once_and_in_order() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let mut on_disk: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        on_disk.sort();
        let listed: Vec<_> = ALL.iter().map(|migration| migration.name).collect();
        assert_eq!(listed, on_disk);
        assert!(ALL.is_sorted_by(|before, after| before.version < after.version));
        for migration in ALL {
            assert!(migration.name.starts_with(&format!("{:04}_", migration.version)));
        }
    }

    #[test]
    fn every_file_has_statements() {
        for migration in ALL {
            let statements = crate::split::statements(migration.sql).unwrap();
            assert!(!statements.is_empty(), "{}", migration.name);
        }
    }
}
