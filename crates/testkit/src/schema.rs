//! Compares the bodies of webhooks with their JSON Schemas, more strictly than a receiver should: what a schema does
//! not describe is an error here.

use std::collections::HashMap;
use std::sync::LazyLock;

use domain::event::API_VERSION;
use domain::schema;
use jsonschema::Validator;
use serde_json::{Value, json};

static VALIDATORS: LazyLock<HashMap<&'static str, Validator>> = LazyLock::new(|| {
    let validators = schema::types().map(|word| {
        let text = schema::find(API_VERSION, word).expect("every type has a schema");
        let mut schema: Value = serde_json::from_str(text).expect("a schema is JSON");
        close(&mut schema);
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        (word, options.build(&schema).expect("a schema is valid"))
    });
    validators.collect()
});

/// Nothing but what is described: in the body, in `data`, and in the one thing that `data` holds.
fn close(schema: &mut Value) {
    schema["unevaluatedProperties"] = json!(false);
    let data = &mut schema["properties"]["data"];
    data["unevaluatedProperties"] = json!(false);
    for thing in data["properties"].as_object_mut().into_iter().flat_map(|things| things.values_mut()) {
        thing["unevaluatedProperties"] = json!(false);
    }
}

/// Whether this is a body that a webhook may have; the error says what is wrong with it.
pub fn check(body: &[u8]) -> Result<(), String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    let word = body["type"].as_str().ok_or("it has no type")?;
    let validator = VALIDATORS.get(word).ok_or_else(|| format!("there is no type `{word}`"))?;
    let problems: Vec<_> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if problems.is_empty() { Ok(()) } else { Err(format!("{word}: {}", problems.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples, which the domain's tests compare with what is sent.
    fn examples() -> impl Iterator<Item = Value> {
        schema::types().map(|word| {
            let schema = schema::find(API_VERSION, word).unwrap();
            let mut schema: Value = serde_json::from_str(schema).unwrap();
            schema["examples"][0].take()
        })
    }

    #[test]
    fn what_is_described_passes_and_more_does_not() {
        for example in examples() {
            let word = example["type"].as_str().unwrap().to_owned();
            check(example.to_string().as_bytes()).unwrap();
            let thing = example["data"].as_object().unwrap().keys().next().unwrap().clone();
            for pointer in [String::new(), "/data".to_owned(), format!("/data/{thing}")] {
                let mut more = example.clone();
                more.pointer_mut(&pointer).unwrap()["secret"] = json!("x");
                assert!(check(more.to_string().as_bytes()).is_err(), "{word} with more in `{pointer}`");
            }
        }
        assert!(check(b"{}").is_err() && check(b"nothing").is_err());
        assert!(check(br#"{"type":"payment.paid"}"#).unwrap_err().contains("payment.paid"));
    }
}
