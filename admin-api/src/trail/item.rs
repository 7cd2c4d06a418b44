//! One thing that was done.

use std::net::IpAddr;

use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditSource)]
pub enum Source {
    /// What a partner asked the ledger for.
    PartnerCommand,
    /// What a customer or the bank asked the ledger for.
    BankCommand,
    /// What somebody did beside that.
    People,
    /// A request to one of the APIs.
    ApiCall,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditOutcome)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused: rejected, not allowed, answered with a 4xx.
    Refused,
    /// The bank failed: answered with a 5xx.
    Failed,
}

impl Source {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PartnerCommand => "partner_command",
            Self::BankCommand => "bank_command",
            Self::People => "people",
            Self::ApiCall => "api_call",
        }
    }
}

impl Outcome {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was done.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AuditItem, example = json!({
    "id": "aud_01k9q5m3v7f8h9j0kamcneprqs", "source": "people", "at": "2026-01-31T12:00:00.000000Z",
    "actor": "usr_01k9q5m3v7f8h9j0kamcneprqs", "partner": null, "action": "user.read_personal_data",
    "target": "usr_01k9q5m3v7f8h9j0kamcnepr00", "outcome": "done", "reason": null, "status": null, "duration_us": null,
    "request_id": "0192d1a0-5b6c-7d8e-9f01-23456789abcd", "address": "192.0.2.1",
    "detail": {"reason": "called about a lost card, case 4711"}
}))]
pub struct Item {
    /// The payment, change, row of the audit log, or call.
    #[schema(example = "aud_01k9q5m3v7f8h9j0kamcneprqs")]
    pub id: String,
    /// Where it stands.
    pub source: Source,
    /// When: commands when the broker took them, calls when they came.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    pub at: Timestamp,
    /// The API key or the user; nobody when nobody was recognised.
    #[schema(example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub actor: Option<String>,
    /// The partner whose doing it is.
    #[schema(example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub partner: Option<String>,
    /// The kind of the command, the word of the audit log, or method and route of the call.
    #[schema(example = "user.read_personal_data")]
    pub action: String,
    /// What it was done to.
    #[schema(example = "usr_01k9q5m3v7f8h9j0kamcnepr00")]
    pub target: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was refused, as a word.
    #[schema(example = "insufficient_funds")]
    pub reason: Option<String>,
    /// The status of the answer, of calls.
    #[schema(example = 202)]
    pub status: Option<u16>,
    /// Microseconds until the answer, of calls.
    #[schema(example = 1_234)]
    pub duration_us: Option<u32>,
    /// The request.
    #[schema(value_type = String, example = "0192d1a0-5b6c-7d8e-9f01-23456789abcd")]
    pub request_id: Uuid,
    /// The client's network address.
    #[schema(value_type = Option<String>, example = "192.0.2.1")]
    pub address: Option<IpAddr>,
    /// What else is known, by source.
    #[schema(value_type = Object)]
    pub detail: Value,
}
