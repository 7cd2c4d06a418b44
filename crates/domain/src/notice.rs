//! Notices: messages to an endpoint that are no events. They have no sequence and stand in no event log.
//!
//! A *rehearsal* is a ping with a [`Flaw`], which a good receiver must notice; what it answered is its [`Verdict`].
//! Pings and rehearsals are sent once, count neither for nor against the endpoint, and reach one that is disabled.

use crate::codes::codes;
use crate::ids::EndpointId;
use crate::time::Timestamp;

codes! {
    /// What a notice tells.
    NoticeType {
        /// Nothing: can the receiver be reached, and does it verify?
        Ping = 1 "ping",
        /// An endpoint of the partner was disabled; told to its other endpoints.
        EndpointDisabled = 2 "endpoint.disabled",
    }
}

codes! {
    /// What is wrong with a ping, on purpose.
    Flaw {
        /// Signed with a key that nobody has. To be refused.
        WrongSignature = 1 "wrong_signature",
        /// Signed well, an hour ago. To be refused.
        OldTimestamp = 2 "old_timestamp",
        /// Sent twice under one id. To be accepted twice.
        Doubled = 3 "doubled",
    }
}

codes! {
    /// What an answer to a ping or a rehearsal says of the receiver.
    Verdict {
        /// It did what it should: 2xx to a good one, 4xx to one that must be refused.
        Passed = 1 "passed",
        /// It refused a good one, or accepted one that it should have refused.
        Failed = 2 "failed",
        /// There was no answer, or one that says nothing: 3xx, 5xx.
        NoAnswer = 3 "no_answer",
    }
}

codes! {
    /// Why an endpoint gets no deliveries.
    DisabledReason {
        /// It answered 410.
        Gone = 1 "gone",
        /// Every attempt of five days failed.
        Failing = 2 "failing",
        /// Its owner wants it so.
        Owner = 3 "owner",
    }
}

impl Flaw {
    /// How far in the past [`Flaw::OldTimestamp`] is signed, in seconds: outside every tolerance.
    pub const AGE_SECONDS: i64 = 3_600;

    /// Whether a good receiver refuses it.
    pub const fn must_be_refused(self) -> bool {
        match self {
            Self::WrongSignature | Self::OldTimestamp => true,
            Self::Doubled => false,
        }
    }
}

impl Verdict {
    /// What the status of an answer says; `None` stands for no answer.
    pub const fn of(flaw: Option<Flaw>, status: Option<u16>) -> Self {
        let refuse = matches!(flaw, Some(flaw) if flaw.must_be_refused());
        match (status, refuse) {
            (Some(200..=299), false) | (Some(400..=499), true) => Self::Passed,
            (Some(200..=299), true) | (Some(400..=499), false) => Self::Failed,
            _ => Self::NoAnswer,
        }
    }
}

/// The body of a notice's webhook, for an endpoint pinned to `api_version`. `data` is JSON.
pub fn webhook_body(notice: NoticeType, api_version: &str, timestamp: Timestamp, data: &str) -> String {
    format!(r#"{{"type":"{notice}","api_version":"{api_version}","timestamp":"{timestamp}","data":{data}}}"#)
}

/// `data` of a ping to an endpoint.
pub fn ping_data(endpoint: EndpointId) -> String {
    format!(r#"{{"endpoint":{{"id":"{endpoint}"}}}}"#)
}

/// `data` of the news that an endpoint was disabled.
pub fn disabled_data(
    endpoint: EndpointId,
    reason: DisabledReason,
    at: Timestamp,
    missed_after: Option<u64>,
) -> String {
    let missed_after = missed_after.map_or_else(|| "null".to_owned(), |sequence| sequence.to_string());
    format!(
        r#"{{"endpoint":{{"id":"{endpoint}","disabled_at":"{at}","disabled_reason":"{reason}","missed_after":{missed_after}}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_verdict_follows_from_flaw_and_status() {
        use Verdict::{Failed, NoAnswer, Passed};
        let statuses = [Some(200), Some(299), Some(400), Some(499), Some(302), Some(500), Some(199), None];
        let good = [Passed, Passed, Failed, Failed, NoAnswer, NoAnswer, NoAnswer, NoAnswer];
        let forged = [Failed, Failed, Passed, Passed, NoAnswer, NoAnswer, NoAnswer, NoAnswer];
        for (index, status) in statuses.into_iter().enumerate() {
            for flaw in [None, Some(Flaw::Doubled)] {
                assert_eq!(Verdict::of(flaw, status), good[index], "{flaw:?} {status:?}");
            }
            for flaw in [Flaw::WrongSignature, Flaw::OldTimestamp] {
                assert_eq!(Verdict::of(Some(flaw), status), forged[index], "{flaw:?} {status:?}");
            }
        }
    }

    #[test]
    fn bodies_are_json_without_a_sequence() {
        let endpoint = EndpointId::from_uuid(Uuid::from_u128(1));
        let at = Timestamp::from_micros(1_800_000_000_000_000);
        for (kind, data) in [
            (NoticeType::Ping, ping_data(endpoint)),
            (NoticeType::EndpointDisabled, disabled_data(endpoint, DisabledReason::Gone, at, Some(7))),
            (NoticeType::EndpointDisabled, disabled_data(endpoint, DisabledReason::Failing, at, None)),
        ] {
            let body: serde_json::Value =
                serde_json::from_str(&webhook_body(kind, "2026-11-01", at, &data)).unwrap();
            assert_eq!(body["type"], kind.as_str());
            assert_eq!(body["api_version"], "2026-11-01");
            assert_eq!(body["data"]["endpoint"]["id"], endpoint.to_string());
            assert!(body.get("sequence").is_none());
        }
    }
}
