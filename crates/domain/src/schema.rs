//! The JSON Schemas (2020-12) of what webhooks carry, one for each type of event and notice.
//!
//! They stand in `schemas/`, by [`API_VERSION`]. Each is complete in itself, so that a receiver needs one file, and
//! open: changes within a version only add, so a receiver must take what it does not know. Their examples are what
//! the types of this crate write; a test compares them.

use crate::event::{API_VERSION, EventType};
use crate::notice::NoticeType;

macro_rules! file {
    ($word:literal) => {
        include_str!(concat!("../schemas/2026-11-01/", $word, ".json"))
    };
}

/// The schema of an event's body.
pub const fn of(event_type: EventType) -> &'static str {
    match event_type {
        EventType::PaymentPosted => file!("payment.posted"),
        EventType::PaymentRejected => file!("payment.rejected"),
        EventType::PaymentConflicted => file!("payment.conflicted"),
        EventType::AccountCredited => file!("account.credited"),
        EventType::MandateActive => file!("mandate.active"),
        EventType::MandateRevoked => file!("mandate.revoked"),
        EventType::PaymentAuthorized => file!("payment.authorized"),
        EventType::PaymentVoided => file!("payment.voided"),
        EventType::PaymentExpired => file!("payment.expired"),
        EventType::PaymentReversed => file!("payment.reversed"),
        EventType::CapturePosted => file!("capture.posted"),
        EventType::CaptureRejected => file!("capture.rejected"),
        EventType::VoidRejected => file!("void.rejected"),
        EventType::RefundPosted => file!("refund.posted"),
        EventType::RefundRejected => file!("refund.rejected"),
        EventType::TransferPosted => file!("transfer.posted"),
        EventType::TransferRejected => file!("transfer.rejected"),
        EventType::MandateDeclined => file!("mandate.declined"),
        EventType::MandateExpired => file!("mandate.expired"),
        EventType::AccountDebited => file!("account.debited"),
    }
}

/// The schema of a notice's body.
pub const fn of_notice(notice: NoticeType) -> &'static str {
    match notice {
        NoticeType::Ping => file!("ping"),
        NoticeType::EndpointDisabled => file!("endpoint.disabled"),
    }
}

/// The words of all types, events first.
pub fn types() -> impl Iterator<Item = &'static str> {
    let events = EventType::ALL.iter().map(|event| event.as_str());
    events.chain(NoticeType::ALL.iter().map(|notice| notice.as_str()))
}

/// The schema of the body of type `word` for endpoints pinned to `api_version`: `{"type": word, …}`.
pub fn find(api_version: &str, word: &str) -> Option<&'static str> {
    if api_version != API_VERSION {
        return None;
    }
    let event = word.parse().map(of);
    event.or_else(|_| word.parse().map(of_notice)).ok()
}

#[cfg(test)]
mod tests;
