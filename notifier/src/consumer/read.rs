//! Decodes records of the event topic and registers their offsets.

use domain::event::EventRecord;
use domain::ids::PaymentId;
use rdkafka::message::{BorrowedMessage, Message};
use serde::Deserialize;
use uuid::Uuid;

use crate::dispatch::Consumed;
use crate::metrics;
use crate::progress::{Progress, Ticket};

/// Decodes a record and registers its offset. What cannot be decoded is told and passed over: only the processor
/// writes this topic, and the event itself stands in MySQL.
pub(super) fn read(message: &BorrowedMessage<'_>, progress: &Progress) -> Option<Consumed> {
    let ticket = progress.begin(message.partition(), message.offset())?;
    let event: Result<EventRecord, String> = match message.payload() {
        Some(payload) => serde_json::from_slice(payload).map_err(|error| error.to_string()),
        None => Err("no payload".to_owned()),
    };
    match event {
        Ok(event) if event.schema == domain::command::SCHEMA => {
            let order = order_of(&event);
            Some(Consumed { ticket, event, order })
        }
        Ok(event) => {
            undecodable(message, &format!("schema {} is not known", event.schema), progress, ticket);
            None
        }
        Err(why) => {
            undecodable(message, &why, progress, ticket);
            None
        }
    }
}

fn undecodable(message: &BorrowedMessage<'_>, why: &str, progress: &Progress, ticket: Ticket) {
    let (partition, offset) = (message.partition(), message.offset());
    tracing::error!(
        kafka.partition = partition,
        kafka.offset = offset,
        error = why,
        "record of the event topic is no event"
    );
    metrics::add("wired_notifier_undecodable_records_total", 1);
    progress.release(ticket);
}

/// The root payment that an event is about.
pub(crate) fn order_of(event: &EventRecord) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Data {
        payment: Option<Payment>,
    }
    #[derive(Deserialize)]
    struct Payment {
        root: PaymentId,
    }
    let data: Data = serde_json::from_str(event.data.get()).ok()?;
    data.payment.map(|payment| payment.root.uuid())
}
