//! Which indexes serve a filter.

use domain::topic::Source as Topic;
use sqlx::MySqlPool;
use uuid::Uuid;

use super::filter::{Actor, Filter, Target};
use super::{Source, store};

/// An index, read from its newest row to its oldest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stream {
    /// The audit log by id.
    Log,
    /// What one user did.
    LogOfActor(Uuid),
    /// What was done to something.
    LogOfTarget(String),
    /// Calls by their place in the topic.
    Calls,
    /// Calls of a partner.
    CallsOfPartner(Uuid),
    /// Calls of a user or an API key.
    CallsOfActor(Uuid),
    /// The call of one request.
    CallOfRequest(Uuid),
    /// Payments of one partition of a command topic.
    Payments(u8, u16),
    /// Payments of a partner.
    PaymentsOfPartner(Uuid),
    /// A payment and what belongs to it.
    PaymentsOfRoot(Uuid),
    /// Changes of one partition of a command topic.
    Changes(u8, u16),
    /// Changes of an account or a mandate.
    ChangesOfTarget(Uuid),
}

/// What has to be looked up to choose.
struct Facts {
    partitions: Vec<(u8, u16)>,
    /// The partner of the key that is asked for.
    partner: Option<Uuid>,
    /// What the call of the request says: the API, the partner, the payment.
    call: Option<store::Called>,
}

/// The streams that have everything the filter lets through.
pub(super) async fn plan(pool: &MySqlPool, filter: &Filter) -> Result<Vec<Stream>, sqlx::Error> {
    let facts = Facts {
        partitions: store::partitions(pool).await?,
        partner: match filter.actor {
            Some(Actor::Key(key)) => store::partner_of(pool, key.uuid()).await?,
            Some(Actor::Partner(partner)) => Some(partner.uuid()),
            Some(Actor::User(_)) | None => None,
        },
        call: match filter.request_id {
            Some(id) => store::called(pool, id).await?,
            None => None,
        },
    };
    Ok(choose(filter, &facts))
}

fn choose(filter: &Filter, facts: &Facts) -> Vec<Stream> {
    let wants = |source| filter.source.is_none_or(|it| it == source);
    let mut streams = Vec::new();
    if wants(Source::People) && !matches!(filter.actor, Some(Actor::Key(_) | Actor::Partner(_))) {
        streams.push(match (&filter.target, filter.actor) {
            (Some(target), _) => Stream::LogOfTarget(target.text()),
            (None, Some(Actor::User(user))) => Stream::LogOfActor(user.uuid()),
            (None, _) => Stream::Log,
        });
    }
    if wants(Source::ApiCall) && matches!(filter.target, None | Some(Target::Payment(_))) {
        let stream = match (filter.request_id, filter.actor, &filter.target) {
            (Some(id), _, _) => Some(Stream::CallOfRequest(id)),
            // Which payment a call asked for stands in no index.
            (None, _, Some(_)) => None,
            (None, Some(Actor::User(user)), None) => Some(Stream::CallsOfActor(user.uuid())),
            (None, Some(Actor::Key(key)), None) => Some(Stream::CallsOfActor(key.uuid())),
            (None, Some(Actor::Partner(partner)), None) => Some(Stream::CallsOfPartner(partner.uuid())),
            (None, None, None) => Some(Stream::Calls),
        };
        streams.extend(stream);
    }
    commands(filter, facts, &mut streams);
    streams
}

/// Payments and changes.
fn commands(filter: &Filter, facts: &Facts, streams: &mut Vec<Stream>) {
    let of_partner = |topic: Topic| topic == Topic::Partner;
    let topics = |source: Option<Source>| match source {
        None => vec![Topic::Partner, Topic::Bank],
        Some(Source::PartnerCommand) => vec![Topic::Partner],
        Some(Source::BankCommand) => vec![Topic::Bank],
        Some(Source::People | Source::ApiCall) => Vec::new(),
    };
    let mut topics = topics(filter.source);
    match filter.actor {
        Some(Actor::User(_)) => topics.retain(|topic| !of_partner(*topic)),
        Some(Actor::Key(_)) => topics.retain(|topic| of_partner(*topic)),
        Some(Actor::Partner(_)) | None => {}
    }
    if let Some(call) = &facts.call {
        topics.retain(|topic| of_partner(*topic) == call.of_partners);
    }
    match &filter.target {
        Some(Target::Payment(id)) if !topics.is_empty() => {
            streams.push(Stream::PaymentsOfRoot(id.uuid()));
            streams.push(Stream::ChangesOfTarget(id.uuid()));
            return;
        }
        Some(Target::OfLedger(id, _)) if !topics.is_empty() => {
            return streams.push(Stream::ChangesOfTarget(*id));
        }
        Some(_) => return,
        None => {}
    }
    let call = facts.call.as_ref().filter(|call| call.of_partners);
    let partner = facts.partner.or(call.and_then(|call| call.partner));
    if let (Some(partner), true) = (partner, topics.contains(&Topic::Partner)) {
        // Its payments are found by the partner, whatever topic they came by; a request of a partner asks for one at most.
        streams.push(match call.and_then(|call| call.target) {
            Some(payment) => Stream::PaymentsOfRoot(payment),
            None => Stream::PaymentsOfPartner(partner),
        });
    }
    for (source, partition) in &facts.partitions {
        if !topics.iter().any(|topic| topic.code() == *source) {
            continue;
        }
        if partner.is_none() {
            streams.push(Stream::Payments(*source, *partition));
        }
        streams.push(Stream::Changes(*source, *partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::{AccountId, KeyId, PartnerId, PaymentId, UserId};

    fn facts() -> Facts {
        Facts { partitions: vec![(1, 0), (1, 1), (2, 0)], partner: None, call: None }
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn every_filter_is_served_by_what_it_names_and_by_nothing_that_has_to_be_scanned() {
        let all = choose(&Filter::default(), &facts());
        assert_eq!(all.len(), 2 + 2 * 3, "{all:?}");
        let user = Filter { actor: Some(Actor::User(UserId::from_uuid(id(1)))), ..Filter::default() };
        assert_eq!(
            choose(&user, &facts()),
            [
                Stream::LogOfActor(id(1)),
                Stream::CallsOfActor(id(1)),
                Stream::Payments(2, 0),
                Stream::Changes(2, 0)
            ]
        );
        let key = Filter { actor: Some(Actor::Key(KeyId::from_uuid(id(2)))), ..Filter::default() };
        assert_eq!(
            choose(&key, &Facts { partner: Some(id(3)), ..facts() }),
            [
                Stream::CallsOfActor(id(2)),
                Stream::PaymentsOfPartner(id(3)),
                Stream::Changes(1, 0),
                Stream::Changes(1, 1)
            ]
        );
        let partner =
            Filter { actor: Some(Actor::Partner(PartnerId::from_uuid(id(3)))), ..Filter::default() };
        let found = choose(&partner, &Facts { partner: Some(id(3)), ..facts() });
        assert!(!found.iter().any(|it| matches!(it, Stream::Payments(..) | Stream::Log | Stream::Calls)));
        let payment =
            Filter { target: Some(Target::Payment(PaymentId::from_uuid(id(4)))), ..Filter::default() };
        let found = choose(&payment, &facts());
        assert_eq!(found[1..], [Stream::PaymentsOfRoot(id(4)), Stream::ChangesOfTarget(id(4))]);
        let account = AccountId::from_uuid(id(5)).to_string();
        let target = Some(Target::OfLedger(id(5), account.clone()));
        let found = choose(&Filter { target: target.clone(), ..Filter::default() }, &facts());
        assert_eq!(found, [Stream::LogOfTarget(account), Stream::ChangesOfTarget(id(5))]);
        let calls = Filter { source: Some(Source::ApiCall), target, ..Filter::default() };
        assert_eq!(choose(&calls, &facts()), []);
        let call = store::Called { of_partners: true, partner: Some(id(3)), target: Some(id(4)) };
        let request = Filter { request_id: Some(id(6)), ..Filter::default() };
        assert_eq!(
            choose(&request, &Facts { call: Some(call), ..facts() }),
            [
                Stream::Log,
                Stream::CallOfRequest(id(6)),
                Stream::PaymentsOfRoot(id(4)),
                Stream::Changes(1, 0),
                Stream::Changes(1, 1)
            ]
        );
    }
}
