//! Payments of every kind and every partner, as staff look for them.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::ids::{AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId, bank_owner, payment_id};
use domain::money::{Currency, decimal_text};
use domain::payment::{Metadata, PaymentKind, PaymentStatus};
use domain::time::Timestamp;
use domain::topic::Source;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::documents::ProblemShape;
use crate::access::Reader;
use crate::app::App;
use crate::body::{FromPath, FromQuery};
use crate::cursor;
use crate::problem::{Code, Problem};
use crate::store::payment_list::{self, After, Filters, Of};
use crate::store::payments::{self as store, PaymentRow, Place};
use crate::store::trace;

/// Where a command stands on Kafka.
#[derive(Debug, Serialize, ToSchema)]
pub struct Position {
    /// The topic, without a prefix that topics of this bank may have.
    #[schema(example = "payments.commands.v1")]
    topic: &'static str,
    /// The partition.
    #[schema(example = 3)]
    partition: u16,
    /// The offset.
    #[schema(example = 4711)]
    offset: u64,
}

impl Position {
    /// Of a place.
    pub const fn of(place: Place) -> Self {
        Self { topic: place.source.topic().name, partition: place.partition, offset: place.offset }
    }
}

/// Who asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct Actor {
    /// `key`: a partner by this API key; `user`: a customer or a member of the staff; `bank`: the bank by itself.
    #[schema(example = "key")]
    kind: &'static str,
    /// The key or the user; nothing for the bank itself.
    #[schema(example = "key_01k9q5m3v7f8h9j0kamcneprqs")]
    id: Option<String>,
    /// Why, in the user's words.
    #[schema(example = "cash desk, receipt 17")]
    reason: Option<String>,
}

impl Actor {
    /// Of a payment.
    pub fn of(row: &PaymentRow) -> Self {
        let (kind, id) = match row.place.source {
            _ if row.actor == bank_owner() => ("bank", None),
            Source::Partner => ("key", Some(KeyId::from_uuid(row.actor).to_string())),
            Source::Bank => ("user", Some(UserId::from_uuid(row.actor).to_string())),
        };
        Self { kind, id, reason: row.actor_reason.clone() }
    }

    /// Somebody sent a request.
    pub const fn is_somebody(&self) -> bool {
        self.id.is_some()
    }
}

/// A payment of any kind, as staff see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Payment {
    /// The payment.
    #[schema(value_type = String, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    pub(super) id: PaymentId,
    /// `payment`, `deposit`, `conflict`, `capture`, `void`, `expire`, `refund`, `transfer`, `withdrawal`, `reversal`.
    #[schema(value_type = String, example = "payment")]
    kind: PaymentKind,
    /// The payment that this one belongs to; itself for a root.
    #[schema(value_type = String, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    pub(super) root: PaymentId,
    /// `pending` (under review), `authorized`, `posted`, `rejected`, `voided`, `expired` or `conflicted`.
    #[schema(value_type = String, example = "posted")]
    status: PaymentStatus,
    /// Why it was rejected.
    #[schema(example = "insufficient_funds")]
    reason: Option<&'static str>,
    /// It could not be applied and waits for an operator.
    #[schema(example = false)]
    under_review: bool,
    /// Counts its changes.
    #[schema(example = 1)]
    version: u32,
    /// What it asks for, as a decimal string; nothing for a command on a payment that is not there.
    #[schema(example = "12.50")]
    amount: Option<String>,
    /// Its currency.
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: Option<Currency>,
    /// What was captured of it.
    #[schema(example = "12.50")]
    amount_captured: Option<String>,
    /// What was given back of it.
    #[schema(example = "0.00")]
    amount_refunded: Option<String>,
    /// Whose it is; nothing for the bank's own.
    #[schema(value_type = Option<String>, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: Option<PartnerId>,
    /// The mandate it debits under.
    #[schema(value_type = Option<String>, example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    mandate: Option<MandateId>,
    /// The debited account.
    #[schema(value_type = Option<String>, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    debit_account: Option<AccountId>,
    /// The credited account.
    #[schema(value_type = Option<String>, example = "acct_01k9q5m3v7f8h9j0kamcnepgvs")]
    credit_account: Option<AccountId>,
    /// The partner's own reference.
    #[schema(example = "order-4711")]
    reference: Option<String>,
    /// What the customer reads on the statement.
    #[schema(example = "Café Mozart, two coffees")]
    description: Option<String>,
    /// The partner's own keys and values.
    #[schema(value_type = std::collections::BTreeMap<String, String>, example = json!({"table": "7"}))]
    metadata: Metadata,
    /// `false` for test money.
    #[schema(example = true)]
    livemode: bool,
    /// Who asked.
    actor: Actor,
    /// The idempotency key as sent.
    #[schema(example = "8f2c1c9e-4711")]
    idempotency_key: Option<String>,
    /// The request.
    #[schema(value_type = String, example = "01999999-0000-7000-8000-000000000000")]
    request_id: Uuid,
    /// When it was accepted.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    accepted_at: Timestamp,
    /// When it was decided; nothing while it is under review.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00.004100Z")]
    decided_at: Option<Timestamp>,
    /// Until when it may be captured, of a payment in two phases.
    #[schema(value_type = Option<String>, example = "2026-02-07T12:00:00.000000Z")]
    expires_at: Option<Timestamp>,
}

impl From<&PaymentRow> for Payment {
    fn from(row: &PaymentRow) -> Self {
        let decimal = |minor| row.currency.map(|currency| decimal_text(minor, currency));
        Self {
            id: row.id,
            kind: row.kind,
            root: row.root,
            status: row.status,
            reason: row.reason.map(domain::payment::Reason::as_str),
            under_review: row.is_under_review(),
            version: row.version,
            amount: decimal(row.amount_minor),
            currency: row.currency,
            amount_captured: decimal(row.captured_minor),
            amount_refunded: decimal(row.refunded_minor),
            partner: row.partner,
            mandate: row.mandate,
            debit_account: row.debit.map(|side| side.account),
            credit_account: row.credit.map(|side| side.account),
            reference: row.reference.clone(),
            description: row.description.clone(),
            metadata: row.metadata.clone(),
            livemode: row.livemode,
            actor: Actor::of(row),
            idempotency_key: row.idempotency_key.clone(),
            request_id: row.request_id,
            accepted_at: row.accepted_at,
            decided_at: row.decided_at,
            expires_at: row.expires_at,
        }
    }
}

/// Payments, newest first.
#[derive(Serialize, ToSchema)]
pub struct Payments {
    /// The payments.
    data: Vec<Payment>,
    /// For the next page; nothing on the last one.
    #[schema(example = "AQAGRwCwTLAAAQADAAAAAAAAEmc")]
    next: Option<String>,
}

/// Which payments. Not everything can be combined, since nothing is found by reading all payments.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// This payment alone; nothing else beside it.
    #[param(value_type = Option<String>, example = "pay_01k9q5m3v7f8h9j0kamcneprqs")]
    id: Option<PaymentId>,
    /// Of this partner.
    #[param(value_type = Option<String>, example = "ptr_01k9q5m3v7f8h9j0kamcneprqs")]
    partner: Option<PartnerId>,
    /// Under this mandate.
    #[param(value_type = Option<String>, example = "mdt_01k9q5m3v7f8h9j0kamcneprqs")]
    mandate: Option<MandateId>,
    /// Those that moved money of this account, newest booking first; `from` and `to` are then times of booking. Not with
    /// `mandate` or `reference`.
    #[param(value_type = Option<String>, example = "acct_01k9q5m3v7f8h9j0kamcneprqs")]
    account: Option<AccountId>,
    /// With this reference, exactly; needs `partner` or `mandate`.
    #[param(example = "order-4711")]
    reference: Option<String>,
    /// The payment of this idempotency key; needs `partner`, and nothing else beside it.
    #[param(example = "8f2c1c9e-4711")]
    idempotency_key: Option<String>,
    /// In one of these states, separated by commas: `authorized`, `posted`, `rejected`, `voided`, `expired`, `conflicted`.
    #[param(example = "rejected")]
    status: Option<String>,
    /// Of one of these kinds, separated by commas.
    #[param(example = "payment,refund")]
    kind: Option<String>,
    /// Accepted at this time or later, RFC 3339.
    #[param(value_type = Option<String>, example = "2026-11-01T00:00:00Z")]
    from: Option<Timestamp>,
    /// Accepted before this time.
    #[param(value_type = Option<String>, example = "2026-12-01T00:00:00Z")]
    to: Option<Timestamp>,
    /// How many, 1 to 200.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next` of the last answer, with the same parameters.
    #[param(example = "AQAGRwCwTLAAAQADAAAAAAAAEmc")]
    cursor: Option<String>,
}

/// What a search comes to.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    One(PaymentId),
    Many { of: Of, mandate: Option<MandateId> },
}

fn refuse(detail: &'static str) -> Problem {
    Problem::new(Code::MalformedRequest, detail)
}

impl Search {
    /// Refuses what only reading all payments could answer.
    fn wanted(&self) -> Result<Wanted, Problem> {
        let filtered =
            self.status.is_some() || self.kind.is_some() || self.from.is_some() || self.to.is_some();
        let beside_keys =
            filtered || self.mandate.is_some() || self.account.is_some() || self.reference.is_some();
        match self {
            Self { id: Some(id), partner: None, idempotency_key: None, .. } if !beside_keys => {
                return Ok(Wanted::One(*id));
            }
            Self { id: Some(_), .. } => {
                return Err(refuse("`id` names one payment: leave everything else out"));
            }
            Self { idempotency_key: Some(key), partner: Some(partner), .. } if !beside_keys => {
                return Ok(Wanted::One(payment_id(*partner, key)));
            }
            Self { idempotency_key: Some(_), partner: Some(_), .. } => {
                return Err(refuse(
                    "`idempotency_key` and `partner` name one payment: leave everything else out",
                ));
            }
            Self { idempotency_key: Some(_), .. } => {
                return Err(refuse("`idempotency_key` needs `partner`: each partner has keys of its own"));
            }
            _ => {}
        }
        if let Some(account) = self.account {
            if self.mandate.is_some() || self.reference.is_some() {
                return Err(refuse("`account` cannot be combined with `mandate` or `reference`"));
            }
            return Ok(Wanted::Many { of: Of::Account { account, partner: self.partner }, mandate: None });
        }
        let (mandate, reference) = (self.mandate, self.reference.clone());
        match self.partner {
            Some(partner) => {
                Ok(Wanted::Many { of: Of::Partner { partner, mandate, reference }, mandate: None })
            }
            None if mandate.is_some() => Ok(Wanted::Many { of: Of::Bank, mandate }),
            None if reference.is_some() => {
                Err(refuse("`reference` needs `partner` or `mandate`; GET /v1/trace?id=… looks everywhere"))
            }
            None => Ok(Wanted::Many { of: Of::Bank, mandate: None }),
        }
    }

    fn filters(&self) -> Result<Filters, Problem> {
        let statuses: Vec<PaymentStatus> = words(self.status.as_deref()).map_err(|()| {
            refuse("`status` is one or more of authorized, posted, rejected, voided, expired, conflicted")
        })?;
        if statuses.contains(&PaymentStatus::Pending) {
            return Err(refuse(
                "pending payments are not listed: what is under review stands among the dead letters",
            ));
        }
        let kinds = words(self.kind.as_deref()).map_err(|()| {
            refuse("`kind` is one or more of payment, deposit, conflict, capture, void, expire, refund, transfer, withdrawal, reversal")
        })?;
        Ok(Filters { statuses, kinds, from: self.from, to: self.to })
    }
}

fn words<T: std::str::FromStr>(text: Option<&str>) -> Result<Vec<T>, ()> {
    text.map_or(Ok(Vec::new()), |text| text.split(',').map(|word| word.parse().map_err(drop)).collect())
}

/// Search payments
///
/// Payments of every kind, newest first. Several filters must all fit. A page may hold fewer items than `limit` although
/// `next` is there, when what lies in between does not fit: follow `next` until it is null.
#[utoipa::path(
    get, path = "/v1/payments", tag = "payments", operation_id = "list_payments", security(("access_token" = [])),
    params(Search),
    responses(
        (status = 200, description = "A page", body = Payments),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    _: Reader,
    FromQuery(search): FromQuery<Search>,
) -> Result<axum::Json<Payments>, Problem> {
    let limit = cursor::limit(search.limit)? as usize;
    let filters = search.filters()?;
    let mut connection = app.pool.acquire().await?;
    let of = match search.wanted()? {
        Wanted::One(id) => {
            let found = store::find(&mut connection, id).await?;
            return Ok(axum::Json(Payments { data: found.iter().map(Payment::from).collect(), next: None }));
        }
        // An unknown mandate has no payments.
        Wanted::Many { mandate: Some(mandate), .. } => {
            let Some(partner) = trace::partner_of_mandate(&mut connection, mandate).await? else {
                return Ok(axum::Json(Payments { data: Vec::new(), next: None }));
            };
            Of::Partner { partner, mandate: Some(mandate), reference: search.reference.clone() }
        }
        Wanted::Many { of, mandate: None } => of,
    };
    drop(connection);
    let after = search.cursor.as_deref().map(|cursor| {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        bytes.and_then(|bytes| After::decode(&of, &bytes)).ok_or_else(|| Problem::plain(Code::InvalidCursor))
    });
    let listed = payment_list::list(&app.pool, &of, &filters, after.transpose()?, limit).await?;
    let next = listed.next.map(|after| URL_SAFE_NO_PAD.encode(after.encode()));
    Ok(axum::Json(Payments { data: listed.payments.iter().map(Payment::from).collect(), next }))
}

/// A payment
///
/// Of any kind, also one that is under review. A payment that was accepted and is not decided yet is not found.
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments", operation_id = "read_payment", security(("access_token" = [])),
    params(("id" = String, Path, description = "The payment", example = "pay_01k9q5m3v7f8h9j0kamcneprqs")),
    responses(
        (status = 200, description = "The payment", body = Payment),
        (status = 404, description = "There is no such payment, or it is not decided yet", body = ProblemShape, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(app): State<Arc<App>>,
    _: Reader,
    FromPath(id): FromPath<PaymentId>,
) -> Result<axum::Json<Payment>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let found = store::find(&mut connection, id).await?.ok_or_else(|| Problem::plain(Code::NotFound))?;
    Ok(axum::Json(Payment::from(&found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(text: &str) -> Result<Wanted, String> {
        let search: Search = serde_json::from_str(text).unwrap();
        search.wanted().map_err(|problem| problem.detail.into_owned())
    }

    #[test]
    fn what_no_index_serves_is_refused() {
        let (payment, partner) = ("pay_00000000000000000000000001", "ptr_00000000000000000000000001");
        let (mandate, account) = ("mdt_00000000000000000000000001", "acct_00000000000000000000000001");
        let ok = [
            "{}".to_owned(),
            format!(r#"{{"id":"{payment}"}}"#),
            format!(r#"{{"partner":"{partner}","idempotency_key":"a"}}"#),
            format!(r#"{{"partner":"{partner}","reference":"a","status":"posted"}}"#),
            format!(r#"{{"partner":"{partner}","mandate":"{mandate}","reference":"a"}}"#),
            format!(r#"{{"mandate":"{mandate}","reference":"a"}}"#),
            format!(r#"{{"account":"{account}","partner":"{partner}","kind":"refund"}}"#),
            r#"{"status":"rejected","kind":"payment","from":"2026-01-01T00:00:00Z"}"#.to_owned(),
        ];
        for text in ok {
            assert!(search(&text).is_ok(), "{text}");
        }
        for (text, why) in [
            (format!(r#"{{"id":"{payment}","status":"posted"}}"#), "`id` names one"),
            (format!(r#"{{"id":"{payment}","partner":"{partner}"}}"#), "`id` names one"),
            (r#"{"idempotency_key":"a"}"#.to_owned(), "needs `partner`"),
            (
                format!(r#"{{"partner":"{partner}","idempotency_key":"a","kind":"payment"}}"#),
                "name one payment",
            ),
            (r#"{"reference":"a"}"#.to_owned(), "needs `partner` or `mandate`"),
            (format!(r#"{{"account":"{account}","reference":"a"}}"#), "cannot be combined"),
            (format!(r#"{{"account":"{account}","mandate":"{mandate}"}}"#), "cannot be combined"),
        ] {
            assert!(search(&text).is_err_and(|problem| problem.contains(why)), "{text}");
        }
    }
}
