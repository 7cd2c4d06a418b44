//! I9: each partner's events are numbered from 1 without gap or repeat.

use domain::{event::EventType, ids::PartnerId};
use uuid::Uuid;

use super::{Run, scratch, stored};
use crate::{
    Error, Invariant,
    report::Row,
    state::{PARTNER_BYTES, part},
    store::{self, RANGE_ROWS_MAX, RANGES_MAX, Range, Sequence},
};

/// A partner on its way along its events.
struct Walk {
    sequence: Sequence,
    next: u64,
    broken: bool,
}

impl Run<'_> {
    /// Walks every partner's log.
    pub(crate) async fn events(&mut self) -> Result<(), Error> {
        let failed = stored(self.state_file);
        let mut after = None;
        loop {
            let page = store::sequences_after(self.pool, after).await?;
            self.report.read("partner_sequences", page.len());
            let is_last = page.len() < store::PAGE as usize;
            let up_to = page.last().map(|it| it.partner);
            let bound = if is_last { None } else { up_to };
            if let Some(orphan) = store::orphaned_events(self.pool, after, bound).await? {
                let row = Row { table: "events", key: &|| PartnerId::from_uuid(orphan).to_string() };
                let say = || ("a row in partner_sequences".to_owned(), "none".to_owned());
                self.report.hold(Invariant::I9, &row, false, say);
            }
            let mut walks = Vec::with_capacity(page.len());
            for sequence in page {
                walks.push(self.begin_log(sequence)?);
            }
            self.walk_logs(&mut walks).await?;
            for walk in &walks {
                let mut record = [0; PARTNER_BYTES];
                record[..16].copy_from_slice(walk.sequence.partner.as_bytes());
                record[16..].copy_from_slice(&walk.sequence.last.to_be_bytes());
                self.after.partners.push(&record).map_err(scratch)?;
            }
            if is_last || self.report.is_full() {
                break;
            }
            after = up_to;
        }
        while let Some(record) = self.before.partners.next().map_err(&failed)? {
            self.vanished(&record);
        }
        Ok(())
    }

    fn begin_log(&mut self, sequence: Sequence) -> Result<Walk, Error> {
        let failed = stored(self.state_file);
        let id = sequence.partner.as_bytes();
        while let Some(record) = self.before.partners.next_below(id).map_err(&failed)? {
            self.vanished(&record);
        }
        let verified = self.before.partners.take(id).map_err(&failed)?;
        let verified = verified.map_or(0, |record| u64::from_be_bytes(part(&record[16..])));
        let row =
            Row { table: "partner_sequences", key: &|| PartnerId::from_uuid(sequence.partner).to_string() };
        let last = sequence.last;
        let say = || (format!("last_sequence at least {verified}, which was verified"), last.to_string());
        let broken = !self.report.hold(Invariant::I9, &row, last >= verified, say);
        let last_event = sequence.last_event.unwrap_or_default();
        self.report.expect(Invariant::I9, &row, "the last event to have sequence", &last, &last_event);
        Ok(Walk { next: verified + 1, sequence, broken })
    }

    async fn walk_logs(&mut self, walks: &mut [Walk]) -> Result<(), Error> {
        while !self.report.is_full() {
            let ranges = plan(walks);
            if ranges.is_empty() {
                return Ok(());
            }
            let ids: Vec<Range> = ranges.iter().map(|(_, range)| *range).collect();
            let events = store::event_numbers_in(self.pool, &ids).await?;
            self.report.read("events", events.len());
            self.pace(events.len()).await;
            let mut events = events.iter().peekable();
            for (index, range) in ranges {
                let walk = &mut walks[index];
                walk.next = range.last + 1;
                for number in range.first..=range.last {
                    let key = || format!("{} sequence {number}", PartnerId::from_uuid(range.owner));
                    let row = Row { table: "events", key: &key };
                    let Some((_, _, epoch, kind)) =
                        events.next_if(|it| (it.0, it.1) == (range.owner, number))
                    else {
                        let last = walk.sequence.last;
                        let say = || (format!("an event, up to {last}"), "none".to_owned());
                        walk.broken = !self.report.hold(Invariant::I9, &row, false, say);
                        while events.next_if(|it| it.0 == range.owner).is_some() {}
                        break;
                    };
                    let legal = EventType::from_code(*kind).is_some();
                    self.report
                        .hold(Invariant::I9, &row, legal, || ("a legal type".to_owned(), kind.to_string()));
                    let current = walk.sequence.epoch;
                    let say = || (format!("an epoch within 1..={current}"), epoch.to_string());
                    self.report.hold(Invariant::I9, &row, (1..=current).contains(epoch), say);
                }
            }
        }
        Ok(())
    }

    fn vanished(&mut self, record: &[u8; PARTNER_BYTES]) {
        let partner = Uuid::from_bytes(part(&record[..16]));
        let row = Row { table: "partner_sequences", key: &|| PartnerId::from_uuid(partner).to_string() };
        let say = || ("the partner verified earlier".to_owned(), "none".to_owned());
        self.report.hold(Invariant::I9, &row, false, say);
    }
}

fn plan(walks: &[Walk]) -> Vec<(usize, Range)> {
    let mut ranges = Vec::new();
    let mut room = RANGE_ROWS_MAX;
    for (index, walk) in walks.iter().enumerate() {
        if walk.broken || walk.next > walk.sequence.last {
            continue;
        }
        if room == 0 || ranges.len() >= RANGES_MAX {
            break;
        }
        let last = walk.sequence.last.min(walk.next.saturating_add(room - 1));
        room -= last - walk.next + 1;
        ranges.push((index, Range { owner: walk.sequence.partner, first: walk.next, last }));
    }
    ranges
}
