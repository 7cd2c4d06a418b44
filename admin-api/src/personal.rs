//! Personal data: who may be found by what, how it is sealed, and what is shown of it.
//!
//! Each user has a data key of their own, sealed under the key-encryption key of personal data; every field is
//! sealed under the data key and bound to its table, column and row. Without the data key a user is erased, in every
//! backup too. A user is found by address through an HMAC of it, under a key that only this service has.
//!
//! Nothing here touches the database, and nothing here is ever written to a log: no type with plain personal data
//! has a `Debug` that shows it.

use std::fmt;
use std::net::IpAddr;

use domain::cursor::Cursors;
use domain::ids::UserId;
use domain::seal::{KeyEncryptionKey, KeyEncryptionKeys, Place, SealError};
use domain::secret::HmacKey;
use lettre::Address;
use zeroize::Zeroizing;

use crate::random;

/// Bytes of an e-mail address (RFC 5321, section 4.5.3.1.3, without the brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
const USERS: &str = "users";
const DATA_KEY: &str = "data_key_sealed";

/// A sealed field of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The e-mail address.
    Email,
    /// The name.
    Name,
    /// The telephone number.
    Phone,
    /// The postal address.
    Address,
    /// The secret of the second factor.
    Totp,
}

impl Field {
    /// Its column of `users`.
    pub const fn column(self) -> &'static str {
        match self {
            Self::Email => "email_sealed",
            Self::Name => "name_sealed",
            Self::Phone => "phone_sealed",
            Self::Address => "address_sealed",
            Self::Totp => "totp_sealed",
        }
    }
}

/// An e-mail address that a mail can be sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    address: Address,
}

impl Email {
    /// Reads an address, or says why not. No quoted local parts, comments or address literals: nobody has them, and
    /// what two programs read differently is how mails get to the wrong person.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.len() > EMAIL_BYTES_MAX {
            return Err("an e-mail address has at most 254 bytes");
        }
        if text.contains(|it: char| it.is_control() || it.is_whitespace() || "\"\\()<>[],;:".contains(it)) {
            return Err("an e-mail address holds no spaces, quotes, brackets or other special characters");
        }
        let address: Address =
            text.parse().map_err(|_| "this is no e-mail address such as anna@example.com")?;
        if !address.domain().contains('.') {
            return Err("the part behind the @ is no domain such as example.com");
        }
        Ok(Self { address })
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        self.address.as_ref()
    }

    /// For sending.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// As it is looked up: nobody remembers which letters they typed large.
    fn canonical(&self) -> String {
        self.as_str().to_lowercase()
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// What finds a user by address, or a session by network address, and tells nothing of it.
pub type Index = [u8; 32];

/// The keys of personal data.
pub struct Keys {
    keys: KeyEncryptionKeys,
    index: HmacKey,
}

impl Keys {
    /// The key-encryption keys, and the key of look-ups.
    pub const fn new(keys: KeyEncryptionKeys, index: HmacKey) -> Self {
        Self { keys, index }
    }

    /// Finds a user by address.
    pub fn email_index(&self, email: &Email) -> Index {
        self.index.mac(&[b"e-mail\0", email.canonical().as_bytes()])
    }

    /// Recognises a client's network: a machine by its IPv4 address, a household by its IPv6 prefix.
    pub fn address_index(&self, address: IpAddr) -> Index {
        match network(address) {
            IpAddr::V4(address) => self.index.mac(&[b"address\0", &address.octets()]),
            IpAddr::V6(address) => self.index.mac(&[b"address\0", &address.octets()]),
        }
    }

    /// Makes and reads the cursors of a list.
    pub fn cursors(
        &self,
        list: &'static str,
        of: &dyn fmt::Display,
        filters: &dyn fmt::Debug,
    ) -> Cursors<'_> {
        Cursors::new(&self.index, list, of, filters)
    }

    /// A new user's data key, and how it is stored.
    pub fn new_person(&self, user: UserId) -> (Person, Vec<u8>) {
        let data_key = Zeroizing::new(random::bytes::<32>());
        let sealed = self.seal_data_key(user, &data_key[..]);
        (Person::new(user, *data_key), sealed)
    }

    /// Opens a user's data key.
    pub fn person(&self, user: UserId, data_key_sealed: &[u8]) -> Result<Person, SealError> {
        let opened = self.keys.open(data_key_sealed, &place(user.uuid().as_bytes(), DATA_KEY))?;
        let data_key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| SealError::Format)?;
        Ok(Person::new(user, data_key))
    }

    /// A data key sealed anew under the current key-encryption key, or `None` when it is already.
    pub fn reseal(&self, user: UserId, data_key_sealed: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
        if !self.keys.is_outdated(data_key_sealed) {
            return Ok(None);
        }
        let opened = self.keys.open(data_key_sealed, &place(user.uuid().as_bytes(), DATA_KEY))?;
        Ok(Some(self.seal_data_key(user, &opened)))
    }

    fn seal_data_key(&self, user: UserId, data_key: &[u8]) -> Vec<u8> {
        self.keys.seal(data_key, &place(user.uuid().as_bytes(), DATA_KEY), random::bytes())
    }
}

/// What a throttle counts together: nobody owns a single IPv6 address, everybody a /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(prefix.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn place<'a>(row: &'a [u8], column: &'a str) -> Place<'a> {
    Place { table: USERS, column, row }
}

/// Opens and seals the fields of one user.
pub struct Person {
    user: UserId,
    keys: KeyEncryptionKeys,
}

impl Person {
    fn new(user: UserId, data_key: [u8; 32]) -> Self {
        Self { user, keys: KeyEncryptionKeys::new(KeyEncryptionKey::new(data_key)) }
    }

    /// Seals a field.
    pub fn seal(&self, field: Field, plaintext: &[u8]) -> Vec<u8> {
        self.keys.seal(plaintext, &place(self.user.uuid().as_bytes(), field.column()), random::bytes())
    }

    /// Opens a field.
    pub fn open(&self, field: Field, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.keys.open(sealed, &place(self.user.uuid().as_bytes(), field.column()))
    }

    /// Opens a field of text.
    pub fn open_text(&self, field: Field, sealed: &[u8]) -> Result<String, SealError> {
        let bytes = self.open(field, sealed)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| SealError::Format)
    }
}

/// An address as staff see it: enough to recognise one that they were told, too little to write to.
pub fn mask_email(email: &str) -> String {
    let (local, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    let first = local.chars().next().unwrap_or('•');
    format!("{first}•••@{domain}")
}

/// A name as staff see it: the first letter of each word.
pub fn mask_name(name: &str) -> String {
    let words: Vec<_> =
        name.split_whitespace().filter_map(|word| word.chars().next()).map(|it| format!("{it}•••")).collect();
    words.join(" ")
}

/// A telephone number as staff see it: its last two digits.
pub fn mask_phone(phone: &str) -> String {
    let digits: Vec<char> = phone.chars().filter(char::is_ascii_digit).collect();
    let last: String = digits.iter().skip(digits.len().saturating_sub(2)).collect();
    format!("•••{last}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn keys(kek: u8) -> Keys {
        let keys = KeyEncryptionKeys::new(KeyEncryptionKey::new([kek; 32]));
        Keys::new(keys, HmacKey::new(&[7; 32]).unwrap())
    }

    #[test]
    fn addresses_in_odd_forms() {
        for good in ["a@b.co", " Anna.Bell+bank@Example.COM ", "o'neil@example.com", "ürün@example.com"] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "@",
            "a@",
            "@b.co",
            "a b@c.de",
            "a@b",
            "\"a\"@b.co",
            "a@[127.0.0.1]",
            "a@b.co\r\nBcc: x@y.z",
            "a@b.co,c@d.ef",
            "a@b@c.de",
            "<a@b.co>",
            "a(comment)@b.co",
            "a@b..co",
            "a\0@b.co",
            &long,
        ] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_found_however_it_is_written_and_only_with_the_key() {
        let index = |text: &str| keys(1).email_index(&Email::parse(text).unwrap());
        assert_eq!(index("Anna@Example.com"), index(" anna@example.COM"));
        assert_ne!(index("anna@example.com"), index("anna@example.org"));
        let other = Keys::new(
            KeyEncryptionKeys::new(KeyEncryptionKey::new([1; 32])),
            HmacKey::new(&[8; 32]).unwrap(),
        );
        assert_ne!(other.email_index(&Email::parse("anna@example.com").unwrap()), index("anna@example.com"));
        assert_eq!(format!("{:?}", Email::parse("anna@example.com").unwrap()), "Email(…)");
    }

    #[test]
    fn a_field_opens_in_its_place_with_its_persons_key_alone() {
        let keys = keys(1);
        let (anna, bob) = (UserId::from_uuid(Uuid::now_v7()), UserId::from_uuid(Uuid::now_v7()));
        let (person, data_key) = keys.new_person(anna);
        let sealed = person.seal(Field::Name, "Anna".as_bytes());
        assert_eq!(keys.person(anna, &data_key).unwrap().open_text(Field::Name, &sealed).unwrap(), "Anna");
        assert!(person.open_text(Field::Phone, &sealed).is_err());
        assert!(keys.person(bob, &data_key).is_err(), "a data key moved to another row");
        assert!(keys.new_person(anna).0.open(Field::Name, &sealed).is_err());
    }

    #[test]
    fn a_new_key_encryption_key_seals_data_keys_anew() {
        let (old, user) = (keys(1), UserId::from_uuid(Uuid::now_v7()));
        let (person, data_key) = old.new_person(user);
        let sealed = person.seal(Field::Name, b"Anna");
        let both =
            KeyEncryptionKeys::new(KeyEncryptionKey::new([2; 32])).with_older(KeyEncryptionKey::new([1; 32]));
        let both = Keys::new(both, HmacKey::new(&[7; 32]).unwrap());
        let resealed = both.reseal(user, &data_key).unwrap().unwrap();
        assert_eq!(both.reseal(user, &resealed).unwrap(), None);
        let new = keys(2);
        assert!(new.person(user, &data_key).is_err());
        assert_eq!(new.person(user, &resealed).unwrap().open_text(Field::Name, &sealed).unwrap(), "Anna");
    }

    #[test]
    fn masks_show_little() {
        assert_eq!(mask_email("anna.bell@example.com"), "a•••@example.com");
        assert_eq!(mask_name("Анна  Bell"), "А••• B•••");
        assert_eq!(mask_phone("+43 660 12 345 67"), "•••67");
        assert_eq!(mask_phone("7"), "•••7");
    }

    #[test]
    fn a_household_is_one_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
    }
}
