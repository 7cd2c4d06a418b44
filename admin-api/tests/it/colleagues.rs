//! Staff who decide together, and what tests compare of the answers that they get.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Bank, Somebody};

/// Two admins, an operator and an auditor.
pub(crate) struct Staff {
    pub(crate) ada: Somebody,
    pub(crate) bea: Somebody,
    pub(crate) otto: Somebody,
    pub(crate) audrey: Somebody,
}

impl Staff {
    pub(crate) async fn of(bank: &Bank) -> Self {
        Self {
            ada: bank.staff("ada@example.com", 4).await,
            bea: bank.staff("bea@example.com", 4).await,
            otto: bank.staff("otto@example.com", 2).await,
            audrey: bank.staff("audrey@example.com", 3).await,
        }
    }
}

pub(crate) fn why(reason: &str) -> Value {
    json!({ "reason": reason })
}

/// Agrees to what an answer says that somebody asked for.
pub(crate) async fn agree(by: &Somebody, asked: &Answer) -> Answer {
    let approval = asked.json();
    let path = format!("/v1/approvals/{}/approve", approval["id"].as_str().unwrap());
    by.client.post(&path, json!({"digest": approval["digest"], "reason": "looked at it"})).await
}

/// `json` with these members replaced, wherever they stand.
pub(crate) fn neutral(mut json: Value, names: &[&str]) -> Value {
    match &mut json {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                let hidden = names.contains(&name.as_str()) && !value.is_null() && !value.is_object();
                *value = if hidden { json!("…") } else { neutral(value.take(), names) };
            }
        }
        Value::Array(items) => {
            for item in items.iter_mut() {
                *item = neutral(item.take(), names);
            }
        }
        _ => {}
    }
    json
}

pub(crate) fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap_or_else(|| panic!("no {name} in {json}")).to_owned()
}

pub(crate) fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

pub(crate) async fn actions(bank: &Bank, action: &str) -> i64 {
    bank.count(&format!("audit_log WHERE action = '{action}' AND outcome = 1")).await
}
