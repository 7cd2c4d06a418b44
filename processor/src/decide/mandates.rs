//! Mandates: granted and revoked by the bank for the customer, declined, given up by the partner, and expired.
//!
//! A request for a mandate is not in the ledger. What ends it without a grant makes the mandate in its final status, so
//! that a grant that comes later is refused.

use domain::account::{AccountStatus, Owner};
use domain::command::{GrantMandate, MandateTerms, PartnerEnvelope};
use domain::event::{EventType, MandateView};
use domain::ids::{MandateId, PartnerId};
use domain::mandate::MandateStatus;
use domain::money::decimal_text;
use domain::payment::Reason;
use domain::time::Timestamp;
use serde::Serialize;

use super::{Fold, Mandate, Slot, Spent, Told};
use crate::item::Item;

impl Fold {
    pub(super) fn grant_mandate(&mut self, grant: &GrantMandate, item: &Item) -> Result<Told, Reason> {
        if self.view.mandates.contains_key(&grant.mandate) {
            return Err(Reason::MandateExists);
        }
        let partner = self.view.partners.get(&grant.partner).ok_or(Reason::PartnerUnknown)?;
        let account = self.account(grant.account)?;
        if account.owner == Owner::Bank {
            return Err(Reason::BankAccount);
        }
        if account.currency != grant.currency {
            return Err(Reason::CurrencyMismatch);
        }
        if account.livemode != partner.livemode {
            return Err(Reason::LivemodeMismatch);
        }
        if account.status == AccountStatus::Closed {
            return Err(Reason::AccountClosed);
        }
        if grant.expires_at.is_some_and(|expires_at| item.accepted_at >= expires_at) {
            return Err(Reason::MandateExpired);
        }
        let mandate = Mandate {
            id: grant.mandate,
            partner: grant.partner,
            account: Some(grant.account),
            kind: grant.kind,
            status: MandateStatus::Active,
            version: 1,
            currency: grant.currency,
            payment_max_minor: grant.payment_max_minor,
            daily_max_minor: grant.daily_max_minor,
            spent: Spent::default(),
            expires_at: grant.expires_at,
            reference: grant.reference.clone(),
            granted_at: self.decided_at,
        };
        Ok(Some(self.add_mandate(mandate, EventType::MandateActive)))
    }

    pub(super) fn revoke_mandate(&mut self, id: MandateId) -> Result<Told, Reason> {
        let partner = self.view.mandates.get(&id).ok_or(Reason::MandateUnknown)?.row.partner;
        self.end_mandate(partner, id, MandateStatus::Revoked, EventType::MandateRevoked)
    }

    pub(super) fn decline_mandate(
        &mut self,
        partner: PartnerId,
        terms: &MandateTerms,
    ) -> Result<Told, Reason> {
        if self.view.mandates.contains_key(&terms.mandate) {
            return Err(Reason::MandateExists);
        }
        if !self.view.partners.contains_key(&partner) {
            return Err(Reason::PartnerUnknown);
        }
        Ok(Some(self.end_request(partner, terms, MandateStatus::Declined, EventType::MandateDeclined)))
    }

    pub(super) fn cancel_mandate(&mut self, item: &Item, envelope: &PartnerEnvelope, terms: &MandateTerms) {
        let (status, event_type) = (MandateStatus::Revoked, EventType::MandateRevoked);
        let outcome = if self.view.mandates.contains_key(&terms.mandate) {
            self.end_mandate(envelope.partner, terms.mandate, status, event_type)
        } else {
            Ok(Some(self.end_request(envelope.partner, terms, status, event_type)))
        };
        self.partner_change(item, envelope, envelope.id.uuid(), outcome);
    }

    /// An expiry that finds nothing to expire leaves nothing: it is asked for by a clock that may be wrong, and must be
    /// able to come again.
    pub(super) fn expire_mandate(&mut self, item: &Item, envelope: &PartnerEnvelope, terms: &MandateTerms) {
        let due = |time: Option<Timestamp>| time.is_some_and(|time| item.accepted_at >= time);
        let (status, event_type) = (MandateStatus::Expired, EventType::MandateExpired);
        let outcome = match self.view.mandates.get(&terms.mandate).map(|slot| &slot.row) {
            Some(mandate) if mandate.status == MandateStatus::Active && due(mandate.expires_at) => {
                self.end_mandate(envelope.partner, terms.mandate, status, event_type)
            }
            None if due(terms.answer_by) => {
                Ok(Some(self.end_request(envelope.partner, terms, status, event_type)))
            }
            Some(_) | None => {
                self.effects.duplicates += 1;
                return;
            }
        };
        self.partner_change(item, envelope, envelope.id.uuid(), outcome);
    }

    fn end_mandate(
        &mut self,
        partner: PartnerId,
        id: MandateId,
        status: MandateStatus,
        event_type: EventType,
    ) -> Result<Told, Reason> {
        let slot = self.view.mandates.get_mut(&id).filter(|slot| slot.row.partner == partner);
        let slot = slot.ok_or(Reason::MandateUnknown)?;
        if slot.row.status != MandateStatus::Active {
            return Err(Reason::MandateNotActive);
        }
        let mandate = slot.change();
        mandate.status = status;
        mandate.version += 1;
        let mandate = mandate.clone();
        Ok(Some(self.tell_mandate(&mandate, event_type)))
    }

    fn end_request(
        &mut self,
        partner: PartnerId,
        terms: &MandateTerms,
        status: MandateStatus,
        event_type: EventType,
    ) -> (PartnerId, u64) {
        self.add_mandate(Mandate { status, ..self.mandate_of(partner, terms) }, event_type)
    }

    /// A mandate on these terms, without an account.
    pub(super) fn mandate_of(&self, partner: PartnerId, terms: &MandateTerms) -> Mandate {
        Mandate {
            id: terms.mandate,
            partner,
            account: None,
            kind: terms.kind,
            status: MandateStatus::Active,
            version: 1,
            currency: terms.currency,
            payment_max_minor: terms.payment_max_minor,
            daily_max_minor: terms.daily_max_minor,
            spent: Spent::default(),
            expires_at: terms.expires_at,
            reference: terms.reference.clone(),
            granted_at: self.decided_at,
        }
    }

    pub(super) fn add_mandate(&mut self, mandate: Mandate, event_type: EventType) -> (PartnerId, u64) {
        let told = self.tell_mandate(&mandate, event_type);
        self.view.mandates.insert(mandate.id, Slot::new(mandate));
        told
    }

    fn tell_mandate(&mut self, mandate: &Mandate, event_type: EventType) -> (PartnerId, u64) {
        #[derive(Serialize)]
        struct Data {
            mandate: MandateView,
        }
        let text = |minor: Option<i64>| minor.map(|minor| decimal_text(minor, mandate.currency));
        let view = MandateView {
            id: mandate.id,
            kind: mandate.kind,
            status: mandate.status,
            currency: mandate.currency,
            per_payment_max: text(mandate.payment_max_minor),
            daily_cap: text(mandate.daily_max_minor),
            expires_at: mandate.expires_at,
            reference: mandate.reference.clone(),
        };
        let sequence = self.tell(mandate.partner, event_type, &Data { mandate: view });
        (mandate.partner, sequence)
    }
}
