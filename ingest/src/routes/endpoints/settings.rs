//! What a partner sets of an endpoint: read from a body, checked by the rules that the notifier obeys.

use domain::endpoint_headers::{self, HEADERS_MAX, HeaderRefusal, Headers, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use domain::endpoint_url::{Loopback, check_url};
use domain::event::{API_VERSION, EventType};
use domain::notice::NoticeType;

use crate::fields::Fields;
use crate::json::{Node, push_pointer};
use crate::problem::Problem;

/// Characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 200;
/// The highest rate that can be set; more would be no limit.
const DELIVERIES_PER_SECOND_MAX: i64 = 10_000;

/// A new endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEndpoint {
    /// Where to post.
    pub url: String,
    /// Words of types, comma separated; `None` for all.
    pub event_types: Option<String>,
    /// The owner's words.
    pub description: Option<String>,
    /// Further headers.
    pub headers: Option<Headers>,
    /// At most so many deliveries in a second.
    pub deliveries_per_second: Option<u32>,
    /// The version of the bodies.
    pub api_version: String,
    /// Whether it is also signed with ed25519.
    pub ed25519: bool,
}

/// A change: `None` for what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Where to post.
    pub url: Option<String>,
    /// Words of types, comma separated; `None` for all.
    pub event_types: Option<Option<String>>,
    /// The owner's words.
    pub description: Option<Option<String>>,
    /// Further headers, all of them.
    pub headers: Option<Option<Headers>>,
    /// At most so many deliveries in a second.
    pub deliveries_per_second: Option<Option<u32>>,
    /// The version of the bodies.
    pub api_version: Option<String>,
    /// Whether it is also signed with ed25519.
    pub ed25519: Option<bool>,
}

/// Reads the body of `POST /v1/endpoints`.
pub fn new_endpoint(body: &[u8], loopback: Loopback) -> Result<NewEndpoint, Problem> {
    let mut fields = Fields::of_body(body)?;
    let url = fields.required_string("url", "\"https://shop.example/webhooks\"");
    let url = url.and_then(|text| checked_url(&mut fields, text, loopback));
    let event_types = fields.change("event_types", types).flatten();
    let description = fields.optional_text("description", DESCRIPTION_CHARS_MAX);
    let headers = fields.change("headers", headers).flatten();
    let deliveries_per_second = fields.change("deliveries_per_second", rate).flatten();
    let api_version = fields.change("api_version", version).flatten();
    let ed25519 = fields.optional_bool("ed25519").unwrap_or_default();
    let endpoint = url.map(|url| NewEndpoint {
        url,
        event_types,
        description,
        headers: headers.filter(|headers| !headers.is_empty()),
        deliveries_per_second,
        api_version: api_version.unwrap_or_else(|| API_VERSION.to_owned()),
        ed25519,
    });
    fields.finish(endpoint)
}

/// Reads the body of `PATCH /v1/endpoints/{id}`.
pub fn change(body: &[u8], loopback: Loopback) -> Result<Change, Problem> {
    let mut fields = Fields::of_body(body)?;
    let url = fields.optional_string("url");
    let change = Change {
        url: url.and_then(|text| checked_url(&mut fields, text, loopback)),
        event_types: fields.change("event_types", types),
        description: fields
            .change("description", |fields, name, node| fields.text_of(name, node, DESCRIPTION_CHARS_MAX)),
        headers: fields
            .change("headers", headers)
            .map(|headers| headers.filter(|headers| !headers.is_empty())),
        deliveries_per_second: fields.change("deliveries_per_second", rate),
        api_version: fields.change("api_version", version).flatten(),
        ed25519: fields.optional_bool("ed25519"),
    };
    fields.finish(Some(change))
}

fn checked_url(fields: &mut Fields, text: String, loopback: Loopback) -> Option<String> {
    match check_url(&text, loopback) {
        Ok(_) => Some(text),
        Err(refusal) => {
            fields.refuse("url", format!("url_{refusal}"), refusal.advice());
            None
        }
    }
}

/// Every word that can be subscribed to. A ping comes always.
fn known_types() -> impl Iterator<Item = &'static str> {
    EventType::ALL.iter().map(|event_type| event_type.as_str()).chain([NoticeType::EndpointDisabled.as_str()])
}

fn types(fields: &mut Fields, name: &'static str, node: Node) -> Option<String> {
    let items = match node {
        Node::Array(items) if items.is_empty() => {
            fields.refuse(name, "empty", "is empty; send null for all types, or delete the endpoint");
            return None;
        }
        Node::Array(items) => items,
        other => {
            fields.refuse(name, "wrong_type", format!("send a list of types or null, not {}", other.kind()));
            return None;
        }
    };
    let mut words: Vec<&'static str> = Vec::new();
    let mut fault = false;
    for (index, item) in items.into_iter().enumerate() {
        let mut pointer = fields.pointer(name);
        push_pointer(&mut pointer, &index.to_string());
        let known = match &item {
            Node::String(text) => known_types().find(|word| word == text),
            _ => None,
        };
        match known {
            Some(word) if words.contains(&word) => {}
            Some(word) => words.push(word),
            None => {
                fault = true;
                let all: Vec<_> = known_types().collect();
                fields.refuse_at(
                    pointer,
                    "unknown_value",
                    format!("unknown; the types are {}", all.join(", ")),
                );
            }
        }
    }
    (!fault).then(|| words.join(","))
}

fn headers(fields: &mut Fields, name: &'static str, node: Node) -> Option<Headers> {
    let members = match node {
        Node::Object(members) => members,
        other => {
            let detail = format!("send an object of names and values, not {}", other.kind());
            fields.refuse(name, "wrong_type", detail);
            return None;
        }
    };
    if members.len() > HEADERS_MAX {
        let detail = format!("has {} header fields; at most {HEADERS_MAX} are added", members.len());
        fields.refuse(name, refusal_code(HeaderRefusal::TooMany), detail);
        return None;
    }
    let mut headers = Headers::new();
    let mut fault = false;
    for (key, node) in members {
        let mut pointer = fields.pointer(name);
        push_pointer(&mut pointer, &key);
        let Node::String(value) = node else {
            fields.refuse_at(pointer, "wrong_type", format!("send a string, not {}", node.kind()));
            fault = true;
            continue;
        };
        // Names are the same in any case (RFC 9110, section 5.1).
        let one = Headers::from([(key.to_ascii_lowercase(), value)]);
        if let Err((_, refusal)) = endpoint_headers::check(&one) {
            fields.refuse_at(pointer, refusal_code(refusal), advice(refusal));
            fault = true;
            continue;
        }
        for (key, value) in one {
            if headers.insert(key, value).is_some() {
                fields.refuse_at(pointer.clone(), "doubled", "stands twice; names are the same in any case");
                fault = true;
            }
        }
    }
    (!fault).then_some(headers)
}

fn refusal_code(refusal: HeaderRefusal) -> String {
    format!("header_{refusal}")
}

fn advice(refusal: HeaderRefusal) -> String {
    match refusal {
        HeaderRefusal::TooMany => format!("at most {HEADERS_MAX} header fields are added"),
        HeaderRefusal::Name => {
            format!("a name has 1 to {NAME_BYTES_MAX} ASCII letters, digits and hyphens")
        }
        HeaderRefusal::Reserved => {
            "allowed are authorization and names that begin with x-, less those of proxies; the others are ours".to_owned()
        }
        HeaderRefusal::Value => {
            format!("a value has 1 to {VALUE_BYTES_MAX} visible ASCII characters with single spaces between")
        }
    }
}

fn rate(fields: &mut Fields, name: &'static str, node: Node) -> Option<u32> {
    let value = fields.integer_of(name, node, 1..=DELIVERIES_PER_SECOND_MAX)?;
    u32::try_from(value).ok()
}

fn version(fields: &mut Fields, name: &'static str, node: Node) -> Option<String> {
    let text = fields.string_of(name, node)?;
    if text == API_VERSION {
        return Some(text);
    }
    fields.refuse(name, "unknown_value", format!("unknown; the one version is \"{API_VERSION}\""));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    fn body(fields: &str) -> String {
        format!(r#"{{"url":"https://shop.example/hooks"{fields}}}"#)
    }

    fn faults(problem: &Problem) -> Vec<(String, String)> {
        problem.errors.iter().map(|error| (error.pointer.clone(), error.code.to_string())).collect()
    }

    #[test]
    fn a_full_endpoint_is_read() {
        let fields = r#","event_types":["payment.posted","endpoint.disabled","payment.posted"],"description":"till",
            "headers":{"X-Shop":"7","authorization":"Bearer x"},"deliveries_per_second":5,"api_version":"2026-11-01",
            "ed25519":true"#;
        let endpoint = new_endpoint(body(fields).as_bytes(), Loopback::Refused).unwrap();
        assert_eq!(endpoint.event_types.as_deref(), Some("payment.posted,endpoint.disabled"));
        assert_eq!(endpoint.headers.unwrap()["x-shop"], "7");
        assert_eq!((endpoint.deliveries_per_second, endpoint.ed25519), (Some(5), true));
        let nulls = r#","event_types":null,"description":null,"headers":null,"deliveries_per_second":null,"api_version":null,"ed25519":null"#;
        let bare = new_endpoint(body("").as_bytes(), Loopback::Refused).unwrap();
        assert_eq!(new_endpoint(body(nulls).as_bytes(), Loopback::Refused).unwrap(), bare);
        assert_eq!((bare.event_types, bare.headers, bare.api_version.as_str()), (None, None, API_VERSION));
    }

    #[test]
    fn a_change_says_what_stays() {
        let change = change(br#"{"description":null,"deliveries_per_second":3}"#, Loopback::Refused).unwrap();
        let expected =
            Change { description: Some(None), deliveries_per_second: Some(Some(3)), ..Change::default() };
        assert_eq!(change, expected);
    }

    #[test]
    fn each_rule_of_urls_is_named() {
        let cases = [
            ("", "malformed"),
            ("shop.example", "malformed"),
            ("https://", "malformed"),
            ("https://shop.example/a b", "malformed"),
            ("http://shop.example/", "scheme"),
            ("ftp://shop.example/", "scheme"),
            ("https://user:pass@shop.example/", "credentials"),
            ("https://shop.example:22/", "port"),
            ("https://shop.example:3306/", "port"),
            ("https://127.0.0.1/", "address"),
            ("https://2130706433/", "address"),
            ("https://0x7f.1/", "address"),
            ("https://0177.0.0.1/", "address"),
            ("https://[::1]/", "address"),
            ("https://[::ffff:10.0.0.1]/", "address"),
            ("https://[64:ff9b::a00:1]/", "address"),
            ("https://[2002:a00:1::]/", "address"),
            ("https://[2001:0:1::1]/", "address"),
            ("https://169.254.169.254/latest/meta-data", "address"),
            ("https://localhost./", "name"),
            ("https://foo.localhost/", "name"),
            ("https://router/", "name"),
            ("https://db.internal/", "name"),
        ];
        for (url, rule) in cases {
            let body = serde_json::json!({ "url": url }).to_string();
            let problem = new_endpoint(body.as_bytes(), Loopback::Refused).expect_err(url);
            assert_eq!(problem.code, Code::InvalidField);
            assert_eq!(faults(&problem), [("/url".to_owned(), format!("url_{rule}"))], "{url}");
        }
        let long =
            serde_json::json!({ "url": format!("https://a.example/{}", "x".repeat(2_048)) }).to_string();
        let problem = new_endpoint(long.as_bytes(), Loopback::Refused).unwrap_err();
        assert_eq!(problem.errors[0].code, "url_too_long");
        let local = br#"{"url":"http://127.0.0.1:9/x"}"#;
        assert!(new_endpoint(local, Loopback::Allowed).is_ok());
    }

    #[test]
    fn each_fault_names_its_field() {
        let many: Vec<_> = (0..11).map(|index| format!(r#""x-{index}":"v""#)).collect();
        let cases = [
            (r#","event_types":["payment.posted","payment.lost"]"#, "/event_types/1", "unknown_value"),
            (r#","event_types":["ping"]"#, "/event_types/0", "unknown_value"),
            (r#","event_types":[5]"#, "/event_types/0", "unknown_value"),
            (r#","event_types":[]"#, "/event_types", "empty"),
            (r#","event_types":"payment.posted""#, "/event_types", "wrong_type"),
            (r#","headers":[]"#, "/headers", "wrong_type"),
            (r#","headers":{"x-a":1}"#, "/headers/x-a", "wrong_type"),
            (r#","headers":{"Host":"a"}"#, "/headers/Host", "header_reserved"),
            (r#","headers":{"webhook-signature":"v1,a"}"#, "/headers/webhook-signature", "header_reserved"),
            (r#","headers":{"Content-Length":"5"}"#, "/headers/Content-Length", "header_reserved"),
            (r#","headers":{"x-a":"b\r\nhost: c"}"#, "/headers/x-a", "header_value"),
            (r#","headers":{"x-a\r\nb":"c"}"#, "/headers/x-a\r\nb", "header_name"),
            (r#","headers":{"x-a":"b","X-A":"c"}"#, "/headers/X-A", "doubled"),
            (r#","deliveries_per_second":0"#, "/deliveries_per_second", "out_of_range"),
            (r#","deliveries_per_second":1.5"#, "/deliveries_per_second", "wrong_type"),
            (r#","api_version":"2020-01-01""#, "/api_version", "unknown_value"),
            (r#","ed25519":"yes""#, "/ed25519", "wrong_type"),
            (r#","description":"a\u0000b""#, "/description", "control_character"),
            (r#","event_type":[]"#, "/event_type", "unknown_field"),
            (&format!(r#","headers":{{{}}}"#, many.join(",")), "/headers", "header_too_many"),
        ];
        for (fields, pointer, code) in cases {
            let problem = new_endpoint(body(fields).as_bytes(), Loopback::Refused).expect_err(fields);
            assert_eq!(faults(&problem), [(pointer.to_owned(), code.to_owned())], "{fields}");
        }
        let problem = new_endpoint(b"{}", Loopback::Refused).unwrap_err();
        assert_eq!(faults(&problem), [("/url".to_owned(), "missing".to_owned())]);
    }
}
