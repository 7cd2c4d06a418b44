//! The signature base (RFC 9421, section 2.5): the text that is signed.

use super::{Error, Fault, RequestParts, error::excerpt};

/// Room for the usual lines, so that the text is built without growing.
const CAPACITY: usize = 512;

/// Builds the base for the components in their order; `params` is the value of `@signature-params`.
///
/// General in its components: whether they satisfy the profile is checked elsewhere.
pub(super) fn build<S: AsRef<str>>(
    request: &RequestParts<'_>,
    components: &[S],
    params: &str,
) -> Result<String, Error> {
    let mut base = String::with_capacity(CAPACITY + params.len() + request.path.len());
    for component in components {
        let name = component.as_ref();
        base.push('"');
        base.push_str(name);
        base.push_str("\": ");
        push_value(&mut base, request, name)?;
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(params);
    Ok(base)
}

/// Appends the value of one component (sections 2.1 and 2.2).
fn push_value(base: &mut String, request: &RequestParts<'_>, name: &str) -> Result<(), Error> {
    match name {
        "@method" => base.push_str(request.method.as_str()),
        "@authority" => {
            let start = base.len();
            push_ascii(base, name, request.authority.as_bytes())?;
            base[start..].make_ascii_lowercase();
        }
        "@path" if request.path.is_empty() => base.push('/'),
        "@path" => push_ascii(base, name, request.path.as_bytes())?,
        "@query" => {
            base.push('?');
            push_ascii(base, name, request.query.unwrap_or_default().as_bytes())?;
        }
        _ if name.starts_with('@') => {
            return Err(Fault::ComponentUnsupported { component: excerpt(name) }.into());
        }
        _ => push_field(base, request, name)?,
    }
    Ok(())
}

/// Appends a header field: each line trimmed, lines joined by a comma and a space (section 2.1).
fn push_field(base: &mut String, request: &RequestParts<'_>, name: &str) -> Result<(), Error> {
    let mut lines = request.headers.get_all(name).iter();
    let Some(first) = lines.next() else {
        return Err(Error::ComponentAbsent { component: excerpt(name) });
    };
    push_ascii(base, name, trim(first.as_bytes()))?;
    for line in lines {
        base.push_str(", ");
        push_ascii(base, name, trim(line.as_bytes()))?;
    }
    Ok(())
}

/// Appends visible ASCII, spaces and tabs; a line break would let one component pose as two.
fn push_ascii(base: &mut String, name: &str, value: &[u8]) -> Result<(), Error> {
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) => {
            base.push_str(text);
            Ok(())
        }
        _ => Err(Fault::ComponentNotAscii { component: excerpt(name) }.into()),
    }
}

/// Removes optional white space (RFC 9110, section 5.6.3) at both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
