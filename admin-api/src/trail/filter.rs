//! What is asked for.

use std::net::IpAddr;

use domain::ids::{AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId};
use domain::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{Item, Outcome, Source};
use crate::problem::{Code, Problem};

/// Longest word or id of a filter.
const TEXT_BYTES_MAX: usize = 100;
/// How far clocks and orders may differ, in seconds: rows so much beyond a time are looked at, and left out by their own.
pub(super) const SLACK_S: i64 = 60;
/// For so many seconds after a request came, what it did is looked for.
const REQUEST_S: i64 = 60;

/// The filters of a request, all of which must fit.
#[derive(Debug, Default, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Rows of a page, 1 to 200; 50 when not given. Exports have all.
    #[param(example = 50)]
    pub limit: Option<u32>,
    /// `next` of the page before, with the same filters.
    #[param(example = "W1tudWxsXV0")]
    pub cursor: Option<String>,
    /// One source alone.
    pub source: Option<Source>,
    /// What this user, API key or partner did.
    #[param(example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub actor: Option<String>,
    /// This kind of command (`payment`, `freeze_account`), word of the audit log (`user.log_in`) or call
    /// (`POST /v1/payments`).
    #[param(example = "user.log_in")]
    pub action: Option<String>,
    /// What was done to this: an id of any kind. Calls have none but the payment that was asked for.
    #[param(example = "usr_01k9q5m3v7f8h9j0kamcneprqs")]
    pub target: Option<String>,
    /// What this request did; it is looked for in the minute after the request.
    #[param(value_type = Option<String>, example = "0192d1a0-5b6c-7d8e-9f01-23456789abcd")]
    pub request_id: Option<Uuid>,
    /// What came from this network address.
    #[param(value_type = Option<String>, example = "192.0.2.1")]
    pub address: Option<IpAddr>,
    /// What ended so.
    pub outcome: Option<Outcome>,
    /// At this time or later.
    #[param(value_type = Option<String>, example = "2026-01-31T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>, example = "2026-02-01T00:00:00Z")]
    pub to: Option<Timestamp>,
}

/// Who.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A customer or a member of the staff.
    User(UserId),
    /// An API key.
    Key(KeyId),
    /// Whatever key of this partner.
    Partner(PartnerId),
}

/// What.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A payment.
    Payment(PaymentId),
    /// An account or a mandate.
    OfLedger(Uuid, String),
    /// Anything else, which only people act on.
    Other(String),
}

impl Target {
    /// As the audit log has it.
    pub fn text(&self) -> String {
        match self {
            Self::Payment(id) => id.to_string(),
            Self::OfLedger(_, text) | Self::Other(text) => text.clone(),
        }
    }
}

/// Filters, read.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// One source alone.
    pub source: Option<Source>,
    /// Who.
    pub actor: Option<Actor>,
    /// What kind.
    pub action: Option<String>,
    /// To what.
    pub target: Option<Target>,
    /// By which request.
    pub request_id: Option<Uuid>,
    /// From where.
    pub address: Option<IpAddr>,
    /// With which end.
    pub outcome: Option<Outcome>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
}

impl Query {
    /// The filters, or what is wrong with one.
    pub fn filter(&self) -> Result<Filter, Problem> {
        let word = |name: &str, text: &Option<String>| match text {
            Some(text) if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.is_ascii() => {
                Err(wrong(name, "is no word or id that there is"))
            }
            text => Ok(text.clone()),
        };
        let mut filter = Filter {
            source: self.source,
            actor: word("actor", &self.actor)?.map(|text| actor(&text)).transpose()?,
            action: word("action", &self.action)?,
            target: word("target", &self.target)?.map(|text| target(&text)).transpose()?,
            request_id: self.request_id,
            address: self.address.map(|address| address.to_canonical()),
            outcome: self.outcome,
            from: self.from,
            to: self.to,
        };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from >= to
        {
            return Err(wrong("from", "must be before `to`"));
        }
        if let Some(id) = filter.request_id {
            // Ids of requests are UUIDv7, which say when the request came.
            if id.get_version_num() != 7 {
                return Err(wrong("request_id", "is none of ours"));
            }
            let came = Timestamp::from_millis((id.as_u128() >> 80) as i64);
            let (first, last) = (came.plus_seconds(-1), came.plus_seconds(REQUEST_S));
            filter.from = Some(filter.from.map_or(first, |from| from.max(first)));
            filter.to = Some(filter.to.map_or(last, |to| to.min(last)));
        }
        Ok(filter)
    }

    /// As the audit of an export tells them.
    pub fn told(&self) -> Value {
        let mut told = json!({
            "source": self.source.map(Source::as_str), "actor": self.actor, "action": self.action,
            "target": self.target, "request_id": self.request_id, "address": self.address,
            "outcome": self.outcome.map(Outcome::as_str), "from": self.from, "to": self.to,
        });
        if let Some(told) = told.as_object_mut() {
            told.retain(|_, value| !value.is_null());
        }
        told
    }
}

fn wrong(name: &str, why: &str) -> Problem {
    Problem::new(Code::MalformedRequest, format!("`{name}` {why}"))
}

fn actor(text: &str) -> Result<Actor, Problem> {
    let user = text.parse().map(Actor::User).ok();
    let key = || text.parse().map(Actor::Key).ok();
    let partner = || text.parse().map(Actor::Partner).ok();
    let found = user.or_else(key).or_else(partner);
    found
        .ok_or_else(|| wrong("actor", "is the id of a user (usr_…), an API key (key_…) or a partner (ptr_…)"))
}

fn target(text: &str) -> Result<Target, Problem> {
    if let Ok(payment) = text.parse::<PaymentId>() {
        return Ok(Target::Payment(payment));
    }
    let account = text.parse::<AccountId>().map(|id| id.uuid()).ok();
    let of_ledger = account.or_else(|| text.parse::<MandateId>().map(|id| id.uuid()).ok());
    if let Some(id) = of_ledger {
        return Ok(Target::OfLedger(id, text.to_owned()));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    if text.len() <= 64 && text.bytes().all(plain) {
        return Ok(Target::Other(text.to_owned()));
    }
    Err(wrong("target", "is no id"))
}

impl Filter {
    /// Whether an item is what is asked for.
    pub(super) fn lets(&self, item: &Item) -> bool {
        let is_of = |actor: &Actor| match actor {
            Actor::User(id) => item.actor.as_deref() == Some(&id.to_string()),
            Actor::Key(id) => item.actor.as_deref() == Some(&id.to_string()),
            Actor::Partner(id) => item.partner.as_deref() == Some(&id.to_string()),
        };
        // What belongs to a payment is found by the payment.
        let is_on = |target: &Target| {
            matches!(target, Target::Payment(_)) && item.source != Source::People
                || item.target.as_deref() == Some(&target.text())
        };
        self.source.is_none_or(|source| source == item.source)
            && self.outcome.is_none_or(|outcome| outcome == item.outcome)
            && self.from.is_none_or(|from| item.at >= from)
            && self.to.is_none_or(|to| item.at < to)
            && self.request_id.is_none_or(|id| item.request_id == id)
            && self.address.is_none_or(|address| item.address == Some(address))
            && self.action.as_ref().is_none_or(|action| item.action == *action)
            && self.actor.as_ref().is_none_or(is_of)
            && self.target.as_ref().is_none_or(is_on)
    }
}
