//! I2: each hold is of an authorised payment. That each authorised payment has its hold is seen with the payment, and
//! that they sum to what an account holds, with the account.

use domain::{
    ids::{AccountId, PaymentId},
    payment::{PaymentKind, PaymentStatus},
};

use super::Run;
use crate::{Error, Invariant, report::Row, store};

impl Run<'_> {
    /// Walks all holds: as many as payments that wait for their capture.
    pub(crate) async fn holds(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = store::holds_after(self.pool, after).await?;
            self.report.read("holds", page.len());
            for hold in &page {
                let key = || {
                    let account = AccountId::from_uuid(hold.account);
                    format!("{account} for {}", PaymentId::from_uuid(hold.payment))
                };
                let row = Row { table: "holds", key: &key };
                let say = || ("a row in accounts".to_owned(), "none".to_owned());
                self.report.hold(Invariant::I2, &row, hold.has_account, say);
                let (kind, status) = (PaymentKind::Payment.code(), PaymentStatus::Authorized.code());
                let expected = Some((kind, status, hold.said.clone()));
                let say = || {
                    (
                        "an authorised payment of this account, amount and time".to_owned(),
                        format!("{:?}", hold.found),
                    )
                };
                self.report.hold(Invariant::I2, &row, hold.found == expected, say);
            }
            match page.last() {
                Some(last) if page.len() >= store::PAGE as usize && !self.report.is_full() => {
                    after = Some((last.account, last.payment));
                }
                _ => return Ok(()),
            }
            self.pace(page.len()).await;
        }
    }
}
