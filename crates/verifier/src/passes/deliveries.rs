//! I10: no event was passed over on its way to an endpoint.
//!
//! An event that an endpoint subscribes to has a row in `deliveries` (pending, delivered or dead) once the notifier has
//! dealt with it. When it has dealt with a later one of the same partner, and a while has passed, a missing row is a
//! lost event. A notifier that is behind, or down, is no finding.
//!
//! Looked at are endpoints that are not disabled, and events since the endpoint's settings were changed last, so that
//! they were subscribed as they are now; and only what is younger than deliveries are kept. Whole runs only.

use std::collections::HashSet;

use domain::{
    event::EventType,
    ids::{EndpointId, PartnerId, event_id},
};

use super::Run;
use crate::{
    Error, Invariant,
    report::Row,
    store::{self, Endpoint, RANGE_ROWS_MAX},
};

impl Run<'_> {
    /// Walks all endpoints, and the events of each from the last one back.
    pub(crate) async fn deliveries(&mut self) -> Result<(), Error> {
        if self.report.resumed {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = store::endpoints_after(self.pool, after).await?;
            self.report.read("endpoints", page.len());
            for endpoint in &page {
                self.deliveries_to(endpoint).await?;
            }
            match page.last() {
                Some(last) if page.len() >= store::PAGE as usize && !self.report.is_full() => {
                    after = Some(last.id);
                }
                _ => return Ok(()),
            }
        }
    }

    async fn deliveries_to(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let partner = PartnerId::from_uuid(endpoint.partner);
        let mut below = u64::MAX;
        // Something later has a delivery: the notifier has come by here.
        let mut passed = false;
        while below > 1 && !self.report.is_full() {
            let page = store::events_below(self.pool, endpoint.partner, below, RANGE_ROWS_MAX).await?;
            let Some(last) = page.last() else { return Ok(()) };
            below = last.sequence;
            let ids: Vec<_> =
                page.iter().map(|event| event_id(partner, event.epoch, event.sequence).uuid()).collect();
            let found: HashSet<_> =
                store::deliveries_of(self.pool, endpoint.id, &ids).await?.into_iter().collect();
            self.report.read("deliveries", found.len());
            for (event, id) in page.iter().zip(&ids) {
                if event.occurred_at <= endpoint.changed_at || !event.kept {
                    return Ok(());
                }
                let there = found.contains(id);
                passed |= there;
                if !passed || !event.settled || !subscribes(endpoint, event.kind) {
                    continue;
                }
                let name = EndpointId::from_uuid(endpoint.id);
                let row = Row {
                    table: "deliveries",
                    key: &|| format!("{name} of {partner} sequence {}", event.sequence),
                };
                let say =
                    || ("a delivery: later events of the partner have theirs".to_owned(), "none".to_owned());
                self.report.hold(Invariant::I10, &row, there, say);
            }
            self.pace(page.len()).await;
        }
        Ok(())
    }
}

fn subscribes(endpoint: &Endpoint, kind: u8) -> bool {
    // An unknown type is named with the event.
    let Some(event_type) = EventType::from_code(kind) else { return false };
    let types = endpoint.event_types.as_deref();
    types.is_none_or(|types| types.split(',').any(|it| it.trim() == event_type.as_str()))
}
