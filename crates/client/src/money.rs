//! Captures, voids, refunds, transfers, batches, lists, statements and mandates.

use std::time::Duration;

use domain::account::Direction;
use domain::command::SandboxState;
use domain::ids::{AccountId, MandateId, PaymentId};
use domain::mandate::MandateKind;
use domain::money::{Amount, Currency};
use domain::payment::{Metadata, PaymentKind, PaymentStatus, PaymentView};
use domain::time::Timestamp;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Accepted, Client, Error, PaymentRequest, Problem, SendOptions};

/// The body of a capture or a refund: of everything that is left, unless an amount says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
    /// The partner's own reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What the customer reads on the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl PartRequest {
    /// Everything that is left.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A part.
    pub fn of(amount: Amount) -> Self {
        Self { amount: Some(amount.to_string()), currency: Some(amount.currency()), ..Self::default() }
    }
}

/// The body of `POST /v1/transfers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransferRequest {
    from: AccountId,
    to: AccountId,
    amount: String,
    currency: Currency,
    /// The partner's own reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What both sides read on the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The partner's own keys and values.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl TransferRequest {
    /// Moves `amount` between two accounts.
    pub fn new(from: AccountId, to: AccountId, amount: Amount) -> Self {
        Self {
            from,
            to,
            amount: amount.to_string(),
            currency: amount.currency(),
            reference: None,
            description: None,
            metadata: Metadata::new(),
        }
    }
}

/// What became of one payment of a batch.
#[derive(Debug, Clone, Deserialize)]
pub struct BatchItem {
    /// Its place in the batch.
    pub index: usize,
    /// The status that it would have been answered with alone.
    pub status: u16,
    /// With a status of 200 or 202.
    #[serde(default)]
    pub payment: Option<PaymentView>,
    /// With any other.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

/// Which payments to list; all by default.
#[derive(Debug, Clone, Default)]
pub struct PaymentFilter {
    /// One of these; any when empty.
    pub statuses: Vec<PaymentStatus>,
    /// One of these; any when empty.
    pub kinds: Vec<PaymentKind>,
    /// Under this mandate.
    pub mandate: Option<MandateId>,
    /// With this reference.
    pub reference: Option<String>,
    /// Accepted at this time or later.
    pub created_from: Option<Timestamp>,
    /// Accepted before this time.
    pub created_to: Option<Timestamp>,
    /// Items of a page, 1 to 200; 50 when absent.
    pub limit: Option<u32>,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
}

/// Which entries of an account to read; all, newest first, by default.
#[derive(Debug, Clone, Default)]
pub struct StatementFilter {
    /// The oldest first.
    pub ascending: bool,
    /// Entered at this time or later.
    pub from: Option<Timestamp>,
    /// Entered before this time.
    pub to: Option<Timestamp>,
    /// Items of a page, 1 to 200; 50 when absent.
    pub limit: Option<u32>,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
}

/// An entry of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StatementEntry {
    /// Counts the account's entries from 1.
    pub version: u64,
    /// What moved the money.
    pub payment: PaymentId,
    /// Its kind.
    #[serde(default)]
    pub kind: Option<PaymentKind>,
    /// Which side.
    pub direction: Direction,
    /// Decimal string.
    pub amount: String,
    /// Decimal string: the balance after it.
    pub balance: String,
    /// The account's currency.
    pub currency: Currency,
    /// When.
    pub entered_at: Timestamp,
    /// The payment's reference, of the partner's own payments.
    #[serde(default)]
    pub reference: Option<String>,
    /// What both sides read.
    #[serde(default)]
    pub description: Option<String>,
}

/// The body of `POST /v1/mandates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MandateRequest {
    /// Once or repeatedly.
    pub kind: MandateKind,
    /// The currency.
    pub currency: Currency,
    /// Decimal string: the most that one payment may debit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_payment_max: Option<String>,
    /// Decimal string: the most that may be debited in a day of the bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_cap: Option<String>,
    /// From when on it authorises nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The partner's own reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Where the customer goes afterwards; not for test mandates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_url: Option<String>,
}

impl MandateRequest {
    /// Without caps.
    pub const fn new(kind: MandateKind, currency: Currency) -> Self {
        Self {
            kind,
            currency,
            per_payment_max: None,
            daily_cap: None,
            expires_at: None,
            reference: None,
            return_url: None,
        }
    }
}

/// A mandate, or the request for it.
#[derive(Debug, Clone, Deserialize)]
pub struct Mandate {
    /// What events about it carry, too.
    #[serde(flatten)]
    pub view: domain::event::MandateView,
    /// When it was asked for, or granted without a request.
    pub created_at: Timestamp,
    /// Until when the customer may answer, while it is pending.
    #[serde(default)]
    pub answer_by: Option<Timestamp>,
    /// Where the customer answers, while it is pending.
    #[serde(default)]
    pub consent_url: Option<String>,
    /// What the customer enters on the bank's page; in the answer to the request alone.
    #[serde(default)]
    pub code: Option<String>,
}

/// A mandate on a funded test account.
#[derive(Debug, Clone, Deserialize)]
pub struct SandboxMandate {
    /// To pay with.
    pub mandate: MandateId,
    /// The account behind it.
    pub account: AccountId,
    /// `ready`, `pending` or `rejected`.
    pub status: String,
}

impl Client {
    /// Takes of an authorised payment, once; the rest is released.
    pub async fn capture(
        &self,
        payment: PaymentId,
        request: &PartRequest,
        idempotency_key: &str,
        wait: Option<Duration>,
    ) -> Result<Accepted, Error> {
        self.move_money(&format!("/v1/payments/{payment}/capture"), request, idempotency_key, wait).await
    }

    /// Releases what an authorised payment holds.
    pub async fn void(
        &self,
        payment: PaymentId,
        idempotency_key: &str,
        wait: Option<Duration>,
    ) -> Result<Accepted, Error> {
        self.move_money(&format!("/v1/payments/{payment}/void"), &json!({}), idempotency_key, wait).await
    }

    /// Gives back of a posted payment.
    pub async fn refund(
        &self,
        payment: PaymentId,
        request: &PartRequest,
        idempotency_key: &str,
        wait: Option<Duration>,
    ) -> Result<Accepted, Error> {
        self.move_money(&format!("/v1/payments/{payment}/refunds"), request, idempotency_key, wait).await
    }

    /// Moves money from an account of the partner.
    pub async fn transfer(
        &self,
        request: &TransferRequest,
        idempotency_key: &str,
        wait: Option<Duration>,
    ) -> Result<Accepted, Error> {
        self.move_money("/v1/transfers", request, idempotency_key, wait).await
    }

    /// Posts up to 500 payments, each under its own idempotency key; what became of each, in their order.
    pub async fn pay_batch(&self, payments: &[(String, PaymentRequest)]) -> Result<Vec<BatchItem>, Error> {
        #[derive(Serialize)]
        struct Item<'a> {
            idempotency_key: &'a str,
            #[serde(flatten)]
            payment: &'a PaymentRequest,
        }
        #[derive(Deserialize)]
        struct Items {
            items: Vec<BatchItem>,
        }
        let items: Vec<_> =
            payments.iter().map(|(idempotency_key, payment)| Item { idempotency_key, payment }).collect();
        let body = json!({ "payments": items });
        let answer: Items = self.post("/v1/payments/batch", &body, None, None).await?;
        Ok(answer.items)
    }

    /// A page of the partner's payments, newest first.
    pub async fn payments(&self, filter: &PaymentFilter) -> Result<Page<PaymentView>, Error> {
        let words = |words: Vec<&str>| (!words.is_empty()).then(|| words.join(","));
        let target = target(
            "/v1/payments",
            [
                ("status", words(filter.statuses.iter().map(|status| status.as_str()).collect())),
                ("kind", words(filter.kinds.iter().map(|kind| kind.as_str()).collect())),
                ("mandate", filter.mandate.map(|id| id.to_string())),
                ("reference", filter.reference.clone()),
                ("created_from", filter.created_from.map(|at| at.to_string())),
                ("created_to", filter.created_to.map(|at| at.to_string())),
                ("limit", filter.limit.map(|limit| limit.to_string())),
                ("cursor", filter.cursor.clone()),
            ],
        );
        self.get(&target).await
    }

    /// A page of the statement of one of the partner's accounts.
    pub async fn entries(
        &self,
        account: AccountId,
        filter: &StatementFilter,
    ) -> Result<Page<StatementEntry>, Error> {
        let target = target(
            &format!("/v1/accounts/{account}/entries"),
            [
                ("order", filter.ascending.then(|| "asc".to_owned())),
                ("from", filter.from.map(|at| at.to_string())),
                ("to", filter.to.map(|at| at.to_string())),
                ("limit", filter.limit.map(|limit| limit.to_string())),
                ("cursor", filter.cursor.clone()),
            ],
        );
        self.get(&target).await
    }

    /// The balance of one of the partner's accounts at a past instant, as a decimal string.
    pub async fn balance_at(&self, account: AccountId, at: Timestamp) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Balance {
            balance: String,
        }
        let path = target(&format!("/v1/accounts/{account}/balance"), [("at", Some(at.to_string()))]);
        let balance: Balance = self.get(&path).await?;
        Ok(balance.balance)
    }

    /// Asks a customer for a mandate.
    pub async fn request_mandate(
        &self,
        request: &MandateRequest,
        idempotency_key: &str,
    ) -> Result<Mandate, Error> {
        self.post("/v1/mandates", request, Some(idempotency_key), None).await
    }

    /// A mandate as it stands, or the request for it.
    pub async fn mandate(&self, id: MandateId) -> Result<Mandate, Error> {
        self.get(&format!("/v1/mandates/{id}")).await
    }

    /// A page of mandates and requests for them, newest first.
    pub async fn mandates(&self, cursor: Option<&str>) -> Result<Page<Mandate>, Error> {
        self.get(&target("/v1/mandates", [("cursor", cursor.map(ToOwned::to_owned))])).await
    }

    /// Gives a mandate up, or the request for it; waits until it has ended.
    pub async fn cancel_mandate(&self, id: MandateId, wait: Option<Duration>) -> Result<Mandate, Error> {
        self.post(&format!("/v1/mandates/{id}/cancel"), &json!({}), None, wait).await
    }

    /// For test partners: a mandate on a new test account with this balance, a decimal string.
    pub async fn sandbox_mandate(
        &self,
        request: &MandateRequest,
        balance: &str,
        state: SandboxState,
        idempotency_key: &str,
    ) -> Result<SandboxMandate, Error> {
        let mut body = serde_json::to_value(request).map_err(|error| Error::Request(error.to_string()))?;
        body["balance"] = balance.into();
        body["state"] = state.as_str().into();
        // The bank waits by itself for as long.
        let wait = Some(Duration::from_secs(10));
        self.post("/v1/sandbox/mandates", &body, Some(idempotency_key), wait).await
    }

    /// Posts what moves money; the same key with the same request is the same payment, however often it is sent.
    pub(crate) async fn move_money(
        &self,
        path: &str,
        request: &impl Serialize,
        idempotency_key: &str,
        wait: Option<Duration>,
    ) -> Result<Accepted, Error> {
        let body = serde_json::to_vec(request).map_err(|error| Error::Request(error.to_string()))?;
        let options = SendOptions {
            idempotency_key: Some(idempotency_key.to_owned()),
            wait,
            headers: HeaderMap::new(),
        };
        let answer = self.request(Method::POST, path, Some(body.into()), options).await?;
        let payment = answer.json()?;
        let replayed = answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
        Ok(Accepted { payment, replayed, status: answer.status })
    }
}

/// A path with those parameters that have a value.
fn target<const N: usize>(path: &str, parameters: [(&str, Option<String>); N]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_holds_what_was_asked_for_escaped() {
        assert_eq!(target("/v1/x", [("a", None)]), "/v1/x");
        let found =
            target("/v1/x", [("reference", Some("a & b=+".to_owned())), ("limit", Some("5".to_owned()))]);
        assert_eq!(found, "/v1/x?reference=a+%26+b%3D%2B&limit=5");
    }

    #[test]
    fn a_part_has_amount_and_currency_or_neither() {
        let part = PartRequest::of(Amount::new(500, Currency::EUR).unwrap());
        assert_eq!(serde_json::to_value(part).unwrap(), json!({"amount": "5.00", "currency": "EUR"}));
        assert_eq!(serde_json::to_value(PartRequest::everything()).unwrap(), json!({}));
    }
}
