//! The verifying side: choosing the signature, its clock and its MAC.

use std::sync::LazyLock;

use super::{
    CLOCK_WINDOW_SECONDS, Error, Fault, RequestParts, base, error::excerpt, input, input::Input, profile,
};
use crate::secret::{HmacKey, MAC_BYTES};

/// A request's signature whose shape and coverage satisfy the profile; its MAC is not checked yet.
pub struct Signature {
    key_id: String,
    created: i64,
    expires: Option<i64>,
    mac: [u8; MAC_BYTES],
    base: String,
}

impl Signature {
    /// Reads the request's signature by a key for which `is_known` holds, or some signature when there is none: it
    /// then fails in [`Signature::verify`], after the same work.
    pub fn parse(request: &RequestParts<'_>, is_known: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let missing = |header| Error::SignatureMissing { header };
        let input_value =
            input::combined(request.headers, "signature-input").ok_or(missing("Signature-Input"))?;
        let signature_value = input::combined(request.headers, "signature").ok_or(missing("Signature"))?;

        let chosen = choose(input::parse(&input_value)?, is_known)?;
        if let Some(fault) = chosen.fault {
            return Err(fault.into());
        }
        let created = chosen.created.ok_or(Fault::ParameterMissing { parameter: "created" })?;
        let key_id = chosen.key_id.ok_or(Fault::ParameterMissing { parameter: "keyid" })?;
        profile::check(request, &chosen.components)?;
        let bytes = input::signature_of(&signature_value, chosen.label)?;
        let mac = <[u8; MAC_BYTES]>::try_from(bytes.as_slice())
            .map_err(|_| Fault::MacLength { bytes: bytes.len() })?;
        let base = base::build(request, &chosen.components, &chosen.params)?;
        Ok(Self { key_id: key_id.into_owned(), created, expires: chosen.expires, mac, base })
    }

    /// The key that the sender names; unverified before [`Signature::verify`].
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// When the sender says it signed, in seconds since 1970.
    pub const fn created(&self) -> i64 {
        self.created
    }

    /// The text that was signed (RFC 9421, section 2.5), for showing to the sender. It holds no secret.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The names of the covered components in their order.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.base
            .lines()
            .filter_map(|line| line.strip_prefix('"')?.split_once('"').map(|(name, _)| name))
            .filter(|name| *name != "@signature-params")
    }

    /// `created` minus the server's clock, in seconds; `now` is in seconds since 1970.
    pub const fn clock_skew_s(&self, now: i64) -> i64 {
        self.created.saturating_sub(now)
    }

    /// Refuses a signature outside [`CLOCK_WINDOW_SECONDS`] around `now` (seconds since 1970), or past its own
    /// `expires`, which is the sender's exact limit and gets no leeway.
    pub const fn check_clock(&self, now: i64) -> Result<(), Error> {
        let skew_s = self.clock_skew_s(now);
        if skew_s < -CLOCK_WINDOW_SECONDS || skew_s > CLOCK_WINDOW_SECONDS {
            return Err(Error::SignatureExpired { skew_s });
        }
        match self.expires {
            Some(expires) if expires < now => {
                Err(Error::SignatureOutlived { ago_s: now.saturating_sub(expires) })
            }
            _ => Ok(()),
        }
    }

    /// Compares the MAC in constant time. `None` stands for an unknown key: the same work with a stand-in key,
    /// then the same answer as for a wrong MAC.
    pub fn verify(&self, key: Option<&HmacKey>) -> Result<(), Error> {
        static STAND_IN: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::of_any_length(&[0x5a; MAC_BYTES]));
        let matches = key.unwrap_or(&STAND_IN).verify(&[self.base.as_bytes()], &self.mac);
        if matches && key.is_some() { Ok(()) } else { Err(Fault::Unverified.into()) }
    }
}

/// Neither base nor MAC: they hold what the sender signed with.
impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signature")
            .field("key_id", &self.key_id)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// The one signature by a known key, else the first.
///
/// Two by known keys, or two by one key, known or not (so that the answer does not tell which keys exist), are
/// refused: a reader must not have to guess which one counts.
fn choose(inputs: Vec<Input<'_>>, is_known: impl Fn(&str) -> bool) -> Result<Input<'_>, Error> {
    let ambiguous = |first: &str, second: &str| {
        Error::from(Fault::Ambiguous { first: excerpt(first), second: excerpt(second) })
    };
    for (index, input) in inputs.iter().enumerate() {
        let same_key = |other: &&Input<'_>| other.key_id.is_some() && other.key_id == input.key_id;
        if let Some(other) = inputs[..index].iter().find(same_key) {
            return Err(ambiguous(other.label, input.label));
        }
    }
    let known = |input: &Input<'_>| input.key_id.as_deref().is_some_and(&is_known);
    let mut candidates = inputs.iter().enumerate().filter(|(_, input)| known(input));
    let index = match (candidates.next(), candidates.next()) {
        (Some((_, first)), Some((_, second))) => return Err(ambiguous(first.label, second.label)),
        (first, _) => first.map_or(0, |(index, _)| index),
    };
    inputs.into_iter().nth(index).ok_or(Error::SignatureMissing { header: "Signature-Input" })
}
