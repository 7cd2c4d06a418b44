//! What partners are told, reduced to what matters, so that the events of both banks can be compared.

use domain::event::{CreditView, EventType, MandateView};
use domain::ids::{AccountId, MandateId, PartnerId, PaymentId};
use domain::mandate::MandateStatus;
use domain::money::{Amount, decimal_text};
use domain::payment::{Amounts, PaymentKind, PaymentStatus, PaymentView, Reason};
use serde::Deserialize;

use super::{NaiveBank, Payment};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it tells.
    pub event_type: EventType,
    /// Of what.
    pub about: About,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A payment.
    Payment {
        /// Which.
        id: PaymentId,
        /// What it does.
        kind: PaymentKind,
        /// What it belongs to.
        root: PaymentId,
        /// Where it stands.
        status: PaymentStatus,
        /// Its version.
        version: u32,
        /// Asked for, captured and given back.
        amounts: Option<Amounts>,
        /// Why it was rejected.
        reason: Option<Reason>,
        /// `false` for a test partner's.
        livemode: bool,
    },
    /// A mandate.
    Mandate {
        /// Which.
        id: MandateId,
        /// Where it stands.
        status: MandateStatus,
    },
    /// A credit, or a debit that moves one back.
    Account {
        /// Which account.
        id: AccountId,
        /// How much.
        amount: String,
        /// The balance afterwards.
        balance: String,
    },
}

impl Event {
    /// Reads `data` of an event of the real bank.
    ///
    /// # Panics
    /// When it is no such data.
    pub fn read(event_type: EventType, data: &str) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Data {
            Payment(PaymentView),
            Mandate(MandateView),
            Account(CreditView),
        }
        let about = match serde_json::from_str(data) {
            Ok(Data::Payment(view)) => About::Payment {
                id: view.id,
                kind: view.kind,
                root: view.root,
                status: view.status,
                version: view.version,
                amounts: view.amounts,
                reason: view.reason,
                livemode: view.livemode,
            },
            Ok(Data::Mandate(view)) => About::Mandate { id: view.id, status: view.status },
            Ok(Data::Account(view)) => {
                About::Account { id: view.id, amount: view.amount, balance: view.balance }
            }
            Err(error) => panic!("{event_type}: {error}: {data}"),
        };
        Self { event_type, about }
    }
}

impl NaiveBank {
    pub(super) fn tell(&mut self, partner: PartnerId, event_type: EventType, about: About) {
        self.events.entry(partner).or_default().push(Event { event_type, about });
    }

    /// Tells the partner that sees a payment, if any.
    pub(super) fn tell_payment(&mut self, id: PaymentId, payment: &Payment, event_type: EventType) {
        let Some(partner) = payment.partner else { return };
        let amounts = payment
            .amount
            .map(|amount| Amounts::of(amount.currency(), amount.minor(), payment.captured, payment.refunded));
        let about = About::Payment {
            id,
            kind: payment.kind,
            root: payment.root,
            status: payment.status,
            version: payment.version,
            amounts,
            reason: payment.reason,
            livemode: payment.livemode,
        };
        self.tell(partner, event_type, about);
    }

    /// Tells the partner that owns an account, if any, that it was credited.
    pub(super) fn tell_credit(&mut self, id: AccountId, amount: Amount) {
        self.tell_account(id, amount, EventType::AccountCredited);
    }

    /// The same of what was credited and is moved back.
    pub(super) fn tell_debit(&mut self, id: AccountId, amount: Amount) {
        self.tell_account(id, amount, EventType::AccountDebited);
    }

    fn tell_account(&mut self, id: AccountId, amount: Amount, event_type: EventType) {
        let (Some(partner), account) = (self.owning_partner(id), &self.accounts[&id]) else { return };
        // What fits a balance fits an i64.
        let balance = decimal_text(account.balance as i64, account.currency);
        let about = About::Account { id, amount: amount.to_string(), balance };
        self.tell(partner, event_type, about);
    }

    pub(super) fn tell_mandate(&mut self, id: MandateId, event_type: EventType) {
        let mandate = &self.mandates[&id];
        self.tell(mandate.partner, event_type, About::Mandate { id, status: mandate.status });
    }
}
