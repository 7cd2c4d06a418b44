//! Looks whether an OpenAPI document shows what it describes: every operation with an example of what it takes and of
//! what it answers, and every example as its schema wants it.

use serde_json::{Value, json};

/// What is wrong with the examples of a document; nothing when all is well.
///
/// A shape is shown by its own `example`, or by those of all its parts. An operation that takes and answers nothing in
/// JSON has nothing to show.
pub fn faults(document: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (method, path, operation))
    });
    let mut faults = Vec::new();
    for (method, path, operation) in operations {
        for (place, shape) in shapes(operation) {
            let schema = &shape["schema"];
            let fault = match shape.get("example") {
                Some(example) => wrong(document, schema, example),
                None if is_shown(document, schema) => None,
                None => Some("no example".to_owned()),
            };
            faults.extend(fault.map(|fault| format!("{method} {path}, {place}: {fault}")));
        }
    }
    faults
}

/// What an operation takes in JSON and, when it does what it is for, answers in it.
fn shapes(operation: &Value) -> Vec<(String, &Value)> {
    let answers = operation["responses"].as_object().into_iter().flatten();
    let answers = answers.filter(|(status, _)| status.starts_with('2'));
    let answers = answers.map(|(status, answer)| (status.clone(), &answer["content"]));
    let contents = answers.chain([("request".to_owned(), &operation["requestBody"]["content"])]);
    contents
        .flat_map(|(place, content)| {
            let content = content.as_object().into_iter().flatten();
            let json = content.filter(|(media_type, _)| media_type.ends_with("json"));
            json.map(move |(_, shape)| (place.clone(), shape))
        })
        .collect()
}

/// Whether a schema has an example, itself or in each of its parts.
fn is_shown(document: &Value, schema: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str().and_then(|it| it.strip_prefix("#/components/schemas/")) {
        return is_shown(document, &document["components"]["schemas"][name]);
    }
    let parts = |name: &str| schema[name].as_array().map(|it| it.iter().any(|part| is_shown(document, part)));
    schema.get("example").is_some()
        || schema.get("enum").is_some()
        || parts("oneOf").or_else(|| parts("allOf")).unwrap_or_default()
        || schema["items"].is_object() && is_shown(document, &schema["items"])
        || schema["properties"].as_object().is_some_and(|it| it.values().all(|part| is_shown(document, part)))
}

/// How an example differs from its schema.
fn wrong(document: &Value, schema: &Value, example: &Value) -> Option<String> {
    let mut schema = schema.clone();
    // References lead into the document, so what they lead to has to be in this one.
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("components".to_owned(), json!({ "schemas": document["components"]["schemas"] }));
    }
    let validator = match jsonschema::draft202012::new(&schema) {
        Ok(validator) => validator,
        Err(error) => return Some(format!("no schema: {error}")),
    };
    let faults: Vec<_> = validator
        .iter_errors(example)
        .map(|error| format!("example{}: {error}", error.instance_path()))
        .collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(content: &Value, place: &str) -> Value {
        let mut operation =
            json!({ "responses": { "200": {}, "400": { "content": { "application/problem+json": {} } } } });
        match place {
            "request" => operation["requestBody"] = json!({ "content": { "application/json": content } }),
            _ => operation["responses"][place] = json!({ "content": { "application/json": content } }),
        }
        json!({
            "paths": { "/a": { "post": operation } },
            "components": { "schemas": { "Name": { "type": "string", "minLength": 2 } } }
        })
    }

    #[test]
    fn what_is_not_shown_or_wrongly_is_found() {
        let name = json!({ "$ref": "#/components/schemas/Name" });
        let thing = json!({ "type": "object", "properties": { "name": name }, "required": ["name"] });
        let shown =
            json!({ "type": "object", "properties": { "name": { "type": "string", "example": "Anna" } } });
        for place in ["request", "200", "201"] {
            for (content, fault) in [
                (json!({ "schema": thing, "example": { "name": "Anna" } }), None),
                (json!({ "schema": shown }), None),
                (json!({ "schema": thing }), Some("no example")),
                (json!({ "schema": thing, "example": { "name": "A" } }), Some("/name")),
                (json!({ "schema": thing, "example": {} }), Some("required")),
                (
                    json!({ "schema": { "$ref": "#/components/schemas/Nothing" }, "example": {} }),
                    Some("no schema"),
                ),
            ] {
                let faults = faults(&document(&content, place));
                assert_eq!(faults.len(), usize::from(fault.is_some()), "{faults:?}");
                let words = [place, fault.unwrap_or_default()];
                assert!(faults.iter().all(|it| words.iter().all(|word| it.contains(word))), "{faults:?}");
            }
        }
    }
}
