//! What `GET /v1/payments/{id}` tells beside the state: entries on the partner's own accounts, and what followed.

use domain::account::Direction;
use domain::ids::AccountId;
use domain::money::{Currency, decimal_text};
use domain::payment::{PaymentKind, PaymentView};
use domain::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::problem::Problem;
use crate::read;
use crate::signed::Caller;
use crate::store::follow_ups as store;

/// A payment and what belongs to it.
#[derive(Debug, Serialize)]
pub struct Details {
    #[serde(flatten)]
    payment: PaymentView,
    entries: Vec<OwnEntry>,
    captures: Vec<PaymentView>,
    refunds: Vec<PaymentView>,
    reversals: Vec<PaymentView>,
    /// There are more captures, refunds and reversals than are shown.
    more: bool,
}

/// An entry on an account of the partner.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnEntry {
    /// The account.
    #[schema(value_type = String, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    pub account: AccountId,
    /// Counts the account's entries.
    pub version: u64,
    /// `debit` or `credit`.
    #[schema(value_type = String, example = "credit")]
    pub direction: Direction,
    /// Decimal string.
    pub amount: String,
    /// Decimal string: the account's balance after it.
    pub balance: String,
    /// ISO 4217.
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
    /// When, RFC 3339.
    #[schema(value_type = String)]
    pub entered_at: Timestamp,
}

/// Reads what belongs to a payment of the caller.
pub async fn of(app: &App, caller: &Caller, payment: PaymentView) -> Result<Details, Problem> {
    let partner = caller.partner.id;
    let found =
        read::within(app, caller.request_id, store::of_payment(&app.reads, partner, payment.id)).await?;
    let entries = found.entries.into_iter().map(|row| OwnEntry {
        account: row.account,
        version: row.version,
        direction: row.direction,
        amount: decimal_text(row.amount_minor, row.currency),
        balance: decimal_text(row.balance_minor, row.currency),
        currency: row.currency,
        entered_at: row.entered_at,
    });
    let mut details = Details {
        payment,
        entries: entries.collect(),
        captures: Vec::new(),
        refunds: Vec::new(),
        reversals: Vec::new(),
        more: found.more,
    };
    for view in found.follow_ups {
        match view.kind {
            PaymentKind::Capture => details.captures.push(view),
            PaymentKind::Refund => details.refunds.push(view),
            PaymentKind::Reversal => details.reversals.push(view),
            // Voids and expiries moved nothing; the payment's own status tells them.
            PaymentKind::Payment
            | PaymentKind::Deposit
            | PaymentKind::Conflict
            | PaymentKind::Void
            | PaymentKind::Expire
            | PaymentKind::Transfer
            | PaymentKind::Withdrawal => {}
        }
    }
    Ok(details)
}
