//! The topics: a name carries a generation, and its partition count never changes. Repartitioning is a drain
//! and then a new topic.

/// A Kafka topic and the settings it is created with and checked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// The name, without the prefix that tests use.
    pub name: &'static str,
    /// How many partitions it has, for ever.
    pub partitions: i32,
    /// `true`: records carry the broker's time, from which expiries and the days of caps are reckoned.
    pub log_append_time: bool,
    /// How long records are kept, in days; -1 for ever.
    pub retention_days: i64,
}

/// Commands of partners, written by ingest.
pub const PARTNER_COMMANDS: Topic =
    Topic { name: "payments.commands.v1", partitions: 8, log_append_time: true, retention_days: 60 };

/// Commands of the bank, written by admin-api.
pub const BANK_COMMANDS: Topic =
    Topic { name: "bank.commands.v1", partitions: 4, log_append_time: true, retention_days: 60 };

/// Events, written by the processor.
pub const EVENTS: Topic =
    Topic { name: "payments.events.v1", partitions: 8, log_append_time: false, retention_days: 30 };

/// Signed checkpoints of the ledger, written by admin-api: kept for ever, so that they outlive the database.
pub const CHECKPOINTS: Topic =
    Topic { name: "ledger.checkpoints.v1", partitions: 1, log_append_time: true, retention_days: -1 };

/// Calls of both APIs, written by ingest and admin-api, loaded into `api_calls` by admin-api. One partition: its order is
/// the order of the table.
pub const API_CALLS: Topic =
    Topic { name: "api.calls.v1", partitions: 1, log_append_time: false, retention_days: 7 };

/// Every topic.
pub const ALL: [Topic; 5] = [PARTNER_COMMANDS, BANK_COMMANDS, EVENTS, CHECKPOINTS, API_CALLS];

crate::codes::codes! {
    /// The topic that a command came from; the first part of its position.
    Source {
        /// [`PARTNER_COMMANDS`].
        Partner = 1 "partner",
        /// [`BANK_COMMANDS`].
        Bank = 2 "bank",
    }
}

impl Source {
    /// The topic.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Partner => PARTNER_COMMANDS,
            Self::Bank => BANK_COMMANDS,
        }
    }
}

/// Where a command stands: the primary key of what it left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}
