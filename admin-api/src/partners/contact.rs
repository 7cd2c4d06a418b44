//! Whom to reach at a partner: sealed under the key of the partners' API keys, shown masked.
//!
//! No type here has a `Debug` that shows it.

use domain::ids::{ApplicationId, PartnerId};
use domain::seal::{KeyEncryptionKeys, Place};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::personal::{mask_email, mask_name};
use crate::problem::Problem;
use crate::random;

/// Whom to reach, as ingest writes it of who applies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// The business.
    #[schema(example = "Café Mozart")]
    pub name: String,
    /// Whom to write to.
    #[schema(example = "it@cafe-mozart.example")]
    pub contact_email: String,
    /// Whom to speak to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Ada Byron")]
    pub contact_name: Option<String>,
    /// An https URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://cafe-mozart.example")]
    pub website: Option<String>,
}

/// The same, masked where it is about a person.
#[derive(Serialize, ToSchema)]
pub struct MaskedContact {
    /// Whom to write to.
    #[schema(example = "i•••@cafe-mozart.example")]
    contact_email: String,
    /// Whom to speak to.
    #[schema(example = "A••• B•••")]
    contact_name: Option<String>,
    /// The web site.
    #[schema(example = "https://cafe-mozart.example")]
    website: Option<String>,
}

impl Contact {
    /// Opens what ingest sealed of who applied.
    pub fn open_application(
        keys: &KeyEncryptionKeys,
        id: ApplicationId,
        sealed: &[u8],
    ) -> Result<Self, Problem> {
        open(keys, "partner_applications", id.uuid(), sealed)
    }

    /// Opens a partner's.
    pub fn open(keys: &KeyEncryptionKeys, id: PartnerId, sealed: &[u8]) -> Result<Self, Problem> {
        open(keys, "partners", id.uuid(), sealed)
    }

    /// Seals it for a partner.
    pub fn seal(&self, keys: &KeyEncryptionKeys, id: PartnerId) -> Result<Vec<u8>, Problem> {
        let json = serde_json::to_vec(self).map_err(|error| Problem::internal(&error))?;
        Ok(keys.seal(&json, &place("partners", &id.uuid()), random::bytes()))
    }

    /// As staff see it.
    pub fn masked(&self) -> MaskedContact {
        MaskedContact {
            contact_email: mask_email(&self.contact_email),
            contact_name: self.contact_name.as_deref().map(mask_name),
            website: self.website.clone(),
        }
    }
}

fn place<'a>(table: &'static str, row: &'a Uuid) -> Place<'a> {
    Place { table, column: "contact_sealed", row: row.as_bytes() }
}

fn open(keys: &KeyEncryptionKeys, table: &'static str, row: Uuid, sealed: &[u8]) -> Result<Contact, Problem> {
    let opened = keys.open(sealed, &place(table, &row)).map_err(|error| Problem::internal(&error))?;
    // What serde says of JSON could quote it.
    serde_json::from_slice(&opened)
        .map_err(|_| Problem::internal(&"a sealed contact is no JSON of a contact"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::seal::KeyEncryptionKey;

    #[test]
    fn a_contact_opens_where_it_was_sealed_and_is_masked() {
        let keys = KeyEncryptionKeys::new(KeyEncryptionKey::new([1; 32]));
        let id = |number| PartnerId::from_uuid(Uuid::from_u128(number));
        let contact = Contact {
            name: "Café Mozart".to_owned(),
            contact_email: "it@cafe.example".to_owned(),
            contact_name: Some("Ada Byron".to_owned()),
            website: None,
        };
        let sealed = contact.seal(&keys, id(1)).unwrap();
        assert!(Contact::open(&keys, id(1), &sealed).is_ok_and(|opened| opened == contact));
        assert!(Contact::open(&keys, id(2), &sealed).is_err());
        let application = ApplicationId::from_uuid(Uuid::from_u128(1));
        assert!(Contact::open_application(&keys, application, &sealed).is_err());
        let masked = serde_json::to_string(&contact.masked()).unwrap();
        assert!(!masked.contains("Byron") && !masked.contains("it@"), "{masked}");
    }
}
