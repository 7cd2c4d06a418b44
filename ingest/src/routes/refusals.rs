//! How operations can be refused, for the OpenAPI document: the same for all that read, and for all that write.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

/// Of a signed read.
pub struct OfReads;

/// Of a signed write.
pub struct OfWrites;

const READS: [(&str, &str); 7] = [
    ("400", "The request has to be changed; `errors` names what"),
    ("401", "The signature is not accepted"),
    ("403", "The key lacks the scope"),
    ("404", "There is no such thing of yours"),
    ("406", "The answer cannot be given in the wanted form"),
    ("429", "Too many requests; see Retry-After"),
    ("503", "Cannot be read at the moment; see Retry-After"),
];

const WRITES: [(&str, &str); 10] = [
    ("400", "The request has to be changed; `errors` names what"),
    ("401", "The signature is not accepted"),
    ("403", "The key lacks the scope"),
    ("404", "There is no such thing of yours"),
    ("408", "The body did not arrive in time"),
    ("413", "The body is larger than 64 KiB"),
    ("415", "The body is not application/json"),
    ("422", "The Idempotency-Key was used for another request"),
    ("429", "Too many requests; see Retry-After"),
    (
        "503",
        "Nothing was changed (`unavailable`), or that is unknown (`outcome_unknown`): repeat with the same key",
    ),
];

fn problems(list: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    list.iter()
        .map(|(status, description)| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response = ResponseBuilder::new()
                .description(*description)
                .content("application/problem+json", content)
                .build();
            ((*status).to_owned(), RefOr::T(response))
        })
        .collect()
}

impl IntoResponses for OfReads {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&READS)
    }
}

impl IntoResponses for OfWrites {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&WRITES)
    }
}
