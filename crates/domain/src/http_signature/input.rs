//! Reading `Signature-Input` and `Signature` (RFC 9421, section 4) without losing what is doubled.
//!
//! RFC 9651 lets the last of two equal keys win; a signature must not depend on which of two a reader takes, so
//! the visitors below notice the second one. Faults are kept with their label: only those of the signature that is
//! chosen matter, since a proxy's signature may do what the profile forbids.

use std::{borrow::Cow, convert::Infallible};

use http::HeaderMap;
use sfv::{
    BareItemFromInput, KeyRef, Parser, StringRef,
    visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor},
};

use super::{Error, Fault, error::excerpt};

/// One signature needs one label; proxies may add theirs.
pub(super) const LABELS_MAX: usize = 8;
/// The profile needs at most eight; the search for doubled ones is quadratic.
pub(super) const COMPONENTS_MAX: usize = 32;
/// The only algorithm of the profile.
const ALGORITHM: &str = "hmac-sha256";

/// One member of `Signature-Input`.
#[derive(Default)]
pub(super) struct Input<'a> {
    pub(super) label: &'a str,
    pub(super) components: Vec<Cow<'a, str>>,
    /// The value of `@signature-params`: the inner list as RFC 9651 serialises it.
    pub(super) params: String,
    pub(super) key_id: Option<Cow<'a, str>>,
    pub(super) created: Option<i64>,
    pub(super) expires: Option<i64>,
    /// The first thing the profile forbids.
    pub(super) fault: Option<Fault>,
    has_alg: bool,
    has_nonce: bool,
}

/// The field's lines as one value (RFC 9421, section 2.1), borrowed when there is one line.
pub(super) fn combined<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let mut value = Cow::Borrowed(lines.next()?.as_bytes());
    for line in lines {
        let value = value.to_mut();
        value.extend_from_slice(b", ");
        value.extend_from_slice(line.as_bytes());
    }
    Some(value)
}

/// Reads all members of a `Signature-Input` value.
pub(super) fn parse(value: &[u8]) -> Result<Vec<Input<'_>>, Error> {
    const HEADER: &str = "Signature-Input";
    let mut inputs = Inputs { members: Vec::with_capacity(1), fault: None };
    let parsed = Parser::new(value).parse_dictionary_with_visitor(&mut inputs);
    match inputs.fault {
        Some(fault) => Err(fault.into()),
        None if parsed.is_err() => Err(Fault::Malformed { header: HEADER }.into()),
        None if inputs.members.is_empty() => Err(Error::SignatureMissing { header: HEADER }),
        None => Ok(inputs.members),
    }
}

/// Reads the bytes that a `Signature` value has for the label.
pub(super) fn signature_of(value: &[u8], label: &str) -> Result<Vec<u8>, Error> {
    const HEADER: &str = "Signature";
    let mut found = Found { label, bytes: None, seen: 0 };
    if Parser::new(value).parse_dictionary_with_visitor(&mut found).is_err() {
        return Err(Fault::Malformed { header: HEADER }.into());
    }
    if found.seen > 1 {
        return Err(Fault::LabelTwice { label: excerpt(label), header: HEADER }.into());
    }
    found.bytes.ok_or_else(|| Fault::LabelWithoutSignature { label: excerpt(label) }.into())
}

struct Inputs<'a> {
    members: Vec<Input<'a>>,
    fault: Option<Fault>,
}

impl<'a> DictionaryVisitor<'a> for Inputs<'a> {
    type Error = Infallible;

    fn entry(&mut self, key: &'a KeyRef) -> Result<impl EntryVisitor<'a>, Infallible> {
        let label = key.as_str();
        if self.members.iter().any(|input| input.label == label) {
            let label = excerpt(label);
            self.fault.get_or_insert(Fault::LabelTwice { label, header: "Signature-Input" });
        } else if self.members.len() == LABELS_MAX {
            self.fault.get_or_insert(Fault::TooMany { things: "labels", max: LABELS_MAX });
        } else {
            self.members.push(Input { label, ..Input::default() });
            return Ok(self.members.last_mut().map(Member));
        }
        Ok(None)
    }
}

struct Member<'m, 'a>(&'m mut Input<'a>);

impl<'a> ItemVisitor<'a> for Member<'_, 'a> {
    type Error = Infallible;

    fn bare_item(self, _: BareItemFromInput<'a>) -> Result<impl ParameterVisitor<'a>, Infallible> {
        self.0.refuse(Fault::Malformed { header: "Signature-Input" });
        Ok(Ignored)
    }
}

impl<'a> EntryVisitor<'a> for Member<'_, 'a> {
    fn inner_list(self) -> Result<impl InnerListVisitor<'a>, Infallible> {
        self.0.components.reserve(COMPONENTS_MAX / 4);
        self.0.params.reserve(256);
        self.0.params.push('(');
        Ok(self)
    }
}

impl<'a> InnerListVisitor<'a> for Member<'_, 'a> {
    type Error = Infallible;

    fn item(&mut self) -> Result<impl ItemVisitor<'a>, Infallible> {
        Ok(Component(self.0))
    }

    fn finish(self) -> Result<impl ParameterVisitor<'a>, Infallible> {
        self.0.params.push(')');
        Ok(Parameters(self.0))
    }
}

struct Component<'m, 'a>(&'m mut Input<'a>);

impl<'a> ItemVisitor<'a> for Component<'_, 'a> {
    type Error = Infallible;

    fn bare_item(self, item: BareItemFromInput<'a>) -> Result<impl ParameterVisitor<'a>, Infallible> {
        let Self(input) = self;
        let BareItemFromInput::String(name) = item else {
            input.refuse(Fault::Malformed { header: "Signature-Input" });
            return Ok(None);
        };
        let name = borrowed(name);
        if !is_component_name(&name) {
            input.refuse(Fault::ComponentUnsupported { component: excerpt(&name) });
        } else if input.components.contains(&name) {
            input.refuse(Fault::ComponentTwice { component: excerpt(&name) });
        } else if input.components.len() == COMPONENTS_MAX {
            input.refuse(Fault::TooMany { things: "covered components", max: COMPONENTS_MAX });
        }
        if input.fault.is_some() {
            return Ok(None);
        }
        if !input.components.is_empty() {
            input.params.push(' ');
        }
        push_string(&mut input.params, &name);
        input.components.push(name);
        Ok(Some(ComponentParameters(input)))
    }
}

struct ComponentParameters<'m, 'a>(&'m mut Input<'a>);

impl<'a> ParameterVisitor<'a> for ComponentParameters<'_, 'a> {
    type Error = Infallible;

    fn parameter(&mut self, _: &'a KeyRef, _: BareItemFromInput<'a>) -> Result<(), Infallible> {
        let component = self.0.components.last().map(|name| excerpt(name)).unwrap_or_default();
        self.0.refuse(Fault::ComponentParameters { component });
        Ok(())
    }
}

struct Parameters<'m, 'a>(&'m mut Input<'a>);

impl<'a> ParameterVisitor<'a> for Parameters<'_, 'a> {
    type Error = Infallible;

    fn parameter(&mut self, key: &'a KeyRef, value: BareItemFromInput<'a>) -> Result<(), Infallible> {
        if let Err(problem) = self.0.take_parameter(key.as_str(), value) {
            self.0.refuse(Fault::ParameterRefused { parameter: excerpt(key.as_str()), problem });
        }
        Ok(())
    }
}

impl<'a> Input<'a> {
    fn refuse(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn take_parameter(&mut self, key: &str, value: BareItemFromInput<'a>) -> Result<(), &'static str> {
        let doubled = match key {
            "created" => self.created.is_some(),
            "expires" => self.expires.is_some(),
            "keyid" => self.key_id.is_some(),
            "alg" => self.has_alg,
            "nonce" => self.has_nonce,
            _ => return Err("is not accepted"),
        };
        if doubled {
            return Err("stands twice");
        }
        self.params.push(';');
        self.params.push_str(key);
        self.params.push('=');
        match (key, value) {
            ("created" | "expires", BareItemFromInput::Integer(seconds)) => {
                let seconds = i64::from(seconds);
                self.params.push_str(&seconds.to_string());
                *(if key == "created" { &mut self.created } else { &mut self.expires }) = Some(seconds);
            }
            ("created" | "expires", _) => return Err("must be a whole number of seconds"),
            ("alg", BareItemFromInput::String(name)) if name.as_str() == ALGORITHM => {
                push_string(&mut self.params, ALGORITHM);
                self.has_alg = true;
            }
            ("alg", _) => return Err("must be \"hmac-sha256\" or left out"),
            (_, BareItemFromInput::String(text)) => {
                push_string(&mut self.params, text.as_str());
                if key == "nonce" {
                    self.has_nonce = true;
                } else {
                    self.key_id = Some(borrowed(text));
                }
            }
            (_, _) => return Err("must be a string"),
        }
        Ok(())
    }
}

struct Found<'l> {
    label: &'l str,
    bytes: Option<Vec<u8>>,
    seen: usize,
}

impl<'a> DictionaryVisitor<'a> for Found<'_> {
    type Error = Infallible;

    fn entry(&mut self, key: &'a KeyRef) -> Result<impl EntryVisitor<'a>, Infallible> {
        if key.as_str() != self.label {
            return Ok(None);
        }
        self.seen += 1;
        Ok(Some(Bytes(&mut self.bytes)))
    }
}

struct Bytes<'m>(&'m mut Option<Vec<u8>>);

impl<'a> ItemVisitor<'a> for Bytes<'_> {
    type Error = Infallible;

    fn bare_item(self, item: BareItemFromInput<'a>) -> Result<impl ParameterVisitor<'a>, Infallible> {
        if let BareItemFromInput::ByteSequence(bytes) = item {
            *self.0 = Some(bytes);
        }
        Ok(Ignored)
    }
}

impl<'a> EntryVisitor<'a> for Bytes<'_> {
    fn inner_list(self) -> Result<impl InnerListVisitor<'a>, Infallible> {
        Ok(Ignored)
    }
}

fn borrowed(text: Cow<'_, StringRef>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_str()),
        Cow::Owned(text) => Cow::Owned(text.into()),
    }
}

/// A lower-case field name, or a derived component's name with its `@`.
fn is_component_name(name: &str) -> bool {
    let field = name.strip_prefix('@').unwrap_or(name);
    !field.is_empty()
        && field.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
        })
}

/// Serialises a string (RFC 9651, section 4.1.6); its characters were checked when it was parsed.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}
