//! TypeIDs (`pay_…`, `acct_…`): a prefix that says what the id is of, and a UUID in base32.
//!
//! Every id that a retry must find again is derived, never drawn: the same cause has the same id on any
//! replica, at any time.

use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

use crate::fingerprint::Fingerprint;

macro_rules! ids {
    ($($(#[$doc:meta])* $Id:ident, $Tag:ident, $prefix:literal;)*) => {$(
        #[doc = concat!("Marks an id with the prefix `", $prefix, "`.")]
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Tag;

        impl StaticType for $Tag {
            const TYPE: &'static str = $prefix;
        }

        $(#[$doc])*
        pub type $Id = TypeSafeId<$Tag>;
    )*};
}

ids! {
    /// One requested movement of money, whatever its kind.
    PaymentId, PaymentTag, "pay";
    /// A change of an account or a mandate by a bank command.
    ChangeId, ChangeTag, "chg";
    /// An account.
    AccountId, AccountTag, "acct";
    /// A partner.
    PartnerId, PartnerTag, "ptr";
    /// A customer or a member of the staff.
    UserId, UserTag, "usr";
    /// A log-in of a user.
    SessionId, SessionTag, "ses";
    /// A mandate.
    MandateId, MandateTag, "mdt";
    /// An event or a notice.
    EventId, EventTag, "evt";
    /// A webhook endpoint.
    EndpointId, EndpointTag, "ep";
    /// A secret of a webhook endpoint.
    EndpointSecretId, EndpointSecretTag, "eps";
    /// A partner's API key.
    KeyId, KeyTag, "key";
    /// What was asked to be sent to an endpoint again.
    ReplayId, ReplayTag, "rpl";
    /// A row of the audit log.
    AuditId, AuditTag, "aud";
    /// A request to one of the APIs.
    CallId, CallTag, "call";
    /// A verification of the audit log.
    VerificationId, VerificationTag, "vrf";
    /// Someone's wish to become a partner.
    ApplicationId, ApplicationTag, "app";
    /// What needs a second person.
    ApprovalId, ApprovalTag, "apr";
}

/// The name space of all derived ids; drawn once, never changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_4be2_93d7_4a55_8c0e_b1d2_77a9_04f6);

/// The payment that a partner's idempotency key stands for.
pub fn payment_id(partner: PartnerId, idempotency_key: &str) -> PaymentId {
    PaymentId::from_uuid(Uuid::new_v5(&NAMESPACE, format!("partner:{partner}\0{idempotency_key}").as_bytes()))
}

/// The id of the `conflict` that a used key with another request leaves: repeats of it are one conflict.
pub fn conflict_id(id: PaymentId, fingerprint: &Fingerprint) -> PaymentId {
    PaymentId::from_uuid(Uuid::new_v5(&id.uuid(), fingerprint.as_bytes()))
}

/// The id of the expiry of an authorised payment.
pub fn expiry_id(root: PaymentId) -> PaymentId {
    PaymentId::from_uuid(Uuid::new_v5(&root.uuid(), b"expire"))
}

/// The id of the command by which `partner` ends a mandate, by `cause`: however often it is asked for, it is one
/// command. It names the partner, so that what became of one that names a foreign mandate is not taken for the right
/// partner's.
pub fn mandate_end_id(partner: PartnerId, mandate: MandateId, cause: &str) -> PaymentId {
    PaymentId::from_uuid(Uuid::new_v5(&mandate.uuid(), format!("{partner}\0{cause}").as_bytes()))
}

/// The id of an account or mandate command that the same cause must find again.
pub fn derived_uuid(cause: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, cause.as_bytes())
}

/// The bank's own account in a currency, against which deposits are posted.
pub fn bank_account_id(currency: crate::money::Currency) -> AccountId {
    AccountId::from_uuid(derived_uuid(&format!("bank:cash:{currency}")))
}

/// The bank's own account in a currency, from which test accounts are funded.
pub fn sandbox_account_id(currency: crate::money::Currency) -> AccountId {
    AccountId::from_uuid(derived_uuid(&format!("bank:sandbox:{currency}")))
}

/// The settlement account of a test partner that nobody opened one for.
pub fn sandbox_settlement_id(partner: PartnerId, currency: crate::money::Currency) -> AccountId {
    AccountId::from_uuid(derived_uuid(&format!("sandbox:settlement:{partner}:{currency}")))
}

/// The customer who owns the test accounts.
pub fn sandbox_owner() -> UserId {
    UserId::from_uuid(derived_uuid("sandbox"))
}

/// The owner of the bank's own accounts.
pub fn bank_owner() -> Uuid {
    derived_uuid("bank")
}

const CUSTOM_VERSION: u128 = 0x8 << 76;
const RFC_VARIANT: u128 = 0b10 << 62;
const EPOCH_BITS: u32 = 12;
const SEQUENCE_BITS: u32 = 62;

/// The id of a sequenced event, as a UUIDv8: 48 bits of a digest of the partner, the partner's epoch (12 bits)
/// and the sequence (62 bits). It needs no column and no index: with the partner at hand, the id says where in
/// the partner's log the event stands ([`event_position`]).
pub fn event_id(partner: PartnerId, epoch: u16, sequence: u64) -> EventId {
    let digest = Uuid::new_v5(&NAMESPACE, format!("event:{partner}").as_bytes()).as_u128() >> 80;
    let epoch = u128::from(epoch) & ((1 << EPOCH_BITS) - 1);
    let sequence = u128::from(sequence) & ((1 << SEQUENCE_BITS) - 1);
    EventId::from_uuid(Uuid::from_u128(digest << 80 | CUSTOM_VERSION | epoch << 64 | RFC_VARIANT | sequence))
}

/// The epoch and sequence of a partner's event, or `None` when the id is not one of this partner's events.
pub fn event_position(partner: PartnerId, id: EventId) -> Option<(u16, u64)> {
    let bits = id.uuid().as_u128();
    let epoch = (bits >> 64) as u16 & ((1 << EPOCH_BITS) - 1);
    let sequence = (bits as u64) & ((1 << SEQUENCE_BITS) - 1);
    (event_id(partner, epoch, sequence) == id).then_some((epoch, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_has_the_same_id() {
        let partner = PartnerId::from_uuid(Uuid::from_u128(1));
        let other = PartnerId::from_uuid(Uuid::from_u128(2));
        assert_eq!(payment_id(partner, "a"), payment_id(partner, "a"));
        assert_ne!(payment_id(partner, "a"), payment_id(partner, "b"));
        assert_ne!(payment_id(partner, "a"), payment_id(other, "a"));
    }

    #[test]
    fn an_event_id_says_where_it_stands_in_its_partners_log() {
        let partner = PartnerId::from_uuid(Uuid::from_u128(1));
        let id = event_id(partner, 3, 4_711);
        assert_eq!(event_position(partner, id), Some((3, 4_711)));
        assert_eq!(event_position(PartnerId::from_uuid(Uuid::from_u128(2)), id), None);
        assert_eq!(id.uuid().get_version_num(), 8);
        assert!(event_id(partner, 3, 4_712) > id, "ids of one partner sort by sequence");
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let payment = payment_id(PartnerId::from_uuid(Uuid::from_u128(1)), "a").to_string();
        assert!(payment.starts_with("pay_"));
        assert!(payment.parse::<AccountId>().is_err());
    }
}
