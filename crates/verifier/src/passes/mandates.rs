//! I6 and I8: each mandate against its caps and its use.

use domain::{
    ids::{MandateId, sandbox_owner},
    mandate::{MandateKind, MandateStatus},
};
use uuid::Uuid;

use super::{Run, by_key, distinct, scratch};
use crate::{
    Error, Invariant, Report,
    report::Row,
    sections::{Reader, SortedSet},
    state::SINGLE_BYTES,
    store::{self, Account, Mandate},
};

impl Run<'_> {
    /// Walks the mandates beside the sorted list of the single-use ones that payments used.
    pub(crate) async fn mandates(&mut self) -> Result<(), Error> {
        let singles = std::mem::replace(&mut self.singles, SortedSet::new(Reader::empty(), 0));
        let (mut singles, repeated) = singles.finish().map_err(scratch)?;
        self.repeated_singles(&repeated);
        let mut after = None;
        loop {
            let page = store::mandates_after(self.pool, after).await?;
            self.report.read("mandates", page.len());
            let accounts = distinct(page.iter().filter_map(|it| it.account));
            let accounts = by_key(store::accounts_by_id(self.pool, &accounts).await?, |it| it.id);
            for mandate in &page {
                let used = self.use_of(&mut singles, mandate.id)?;
                let account = mandate.account.and_then(|id| accounts.get(&id));
                check(&mut self.report, mandate, used, account);
            }
            if page.len() < store::PAGE as usize || self.report.is_full() {
                break;
            }
            after = page.last().map(|it| it.id);
            self.pace(page.len()).await;
        }
        while let Some(record) = singles.next().map_err(scratch)? {
            self.after.singles.push(&record).map_err(scratch)?;
        }
        Ok(())
    }

    /// Whether a payment used this single-use mandate.
    fn use_of(&mut self, singles: &mut Reader<SINGLE_BYTES>, id: Uuid) -> Result<bool, Error> {
        while let Some(record) = singles.next_below(id.as_bytes()).map_err(scratch)? {
            self.after.singles.push(&record).map_err(scratch)?;
        }
        let Some(record) = singles.take(id.as_bytes()).map_err(scratch)? else { return Ok(false) };
        self.after.singles.push(&record).map_err(scratch)?;
        Ok(true)
    }
}

fn check(report: &mut Report, mandate: &Mandate, used: bool, account: Option<&Account>) {
    let row = Row { table: "mandates", key: &|| key_of(mandate.id) };
    let kind = MandateKind::from_code(mandate.kind);
    report
        .hold(Invariant::I6, &row, kind.is_some(), || ("a legal kind".to_owned(), mandate.kind.to_string()));
    let status = MandateStatus::from_code(mandate.status);
    let say = || ("a legal status".to_owned(), mandate.status.to_string());
    report.hold(Invariant::I6, &row, status.is_some(), say);
    let say = || ("a version from 1".to_owned(), "0".to_owned());
    report.hold(Invariant::I6, &row, mandate.version >= 1, say);
    // A test mandate may be born in any status. Else only a single-use mandate can be used up, and one that a payment
    // used cannot be active again.
    let is_test = account.is_some_and(|it| it.owner_id == sandbox_owner().uuid());
    let fits = match status {
        Some(MandateStatus::Used) => is_test || kind == Some(MandateKind::Single),
        Some(MandateStatus::Active) => !used,
        // It was never granted, so nothing was ever debited under it.
        Some(MandateStatus::Declined) => !used && mandate.account.is_none(),
        // Nothing stores it.
        Some(MandateStatus::Pending) => false,
        Some(MandateStatus::Revoked | MandateStatus::Expired) | None => true,
    };
    let say = || ("the status that its payments leave".to_owned(), format!("{status:?}"));
    report.hold(Invariant::I8, &row, fits, say);
    // Only what ended before it was granted has no account.
    let ended =
        matches!(status, Some(MandateStatus::Declined | MandateStatus::Revoked | MandateStatus::Expired));
    let currency = account.map(|it| it.currency.as_str());
    let fits = match mandate.account {
        Some(_) => currency == Some(&*mandate.currency),
        None => ended,
    };
    let say =
        || (format!("an account in {}", mandate.currency), format!("{:?} in {currency:?}", mandate.account));
    report.hold(Invariant::I8, &row, fits, say);
    let bound = mandate.daily_max_minor.unwrap_or(i64::MAX);
    let say = || (format!("spent_minor within 0..={bound}"), mandate.spent_minor.to_string());
    report.hold(Invariant::I8, &row, (0..=bound).contains(&mandate.spent_minor), say);
}

fn key_of(mandate: Uuid) -> String {
    MandateId::from_uuid(mandate).to_string()
}
