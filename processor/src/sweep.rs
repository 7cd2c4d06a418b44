//! Asks for the end of what has come to its time: holds that nobody captured, mandates, and requests for mandates.
//!
//! It only produces commands; whether something is really due is decided when they are applied, by the broker's time.
//! So a wrong clock here, a second sweeper or a repeated command does no harm: what finds nothing to end leaves
//! nothing. The holds of a partition are swept by the partition's owner, mandates by the owner of the first one; while a
//! partition stands still, nothing is asked of it. What was asked for and is still there is asked for ever more rarely.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use domain::command::{MandateTerms, PartnerCommand, PartnerEnvelope, SCHEMA};
use domain::fingerprint::Fingerprint;
use domain::ids::{KeyId, PartnerId, PaymentId, bank_owner, expiry_id, mandate_end_id};
use domain::time::Timestamp;
use domain::topic::{PARTNER_COMMANDS, Source};
use futures_util::future::join_all;
use lru::LruCache;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::config::{ConfigError, KafkaConfig};
use runtime::kafka::LogContext;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;
use crate::consumer::Shared;
use crate::metrics;
use crate::store::due::{self, DUE_MAX, DueHold};
use crate::store::error::StoreError;
use crate::store::positions::PartitionKey;
use crate::store::session::Session;

/// How often it looks. Sooner only costs reads; later, funds are held longer than was asked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a command may take to be applied before it is asked for again; after that twice as long each time, up to the
/// second of these. What cannot be ended for days must not fill a topic.
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(3_600)];
/// How many are remembered, about 100 bytes each. What is forgotten is asked for again with the next sweep.
const ASKED_MAX: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
/// How far back requests are looked for after a start, in seconds: a processor that stood still for longer than this
/// leaves those from before unanswered for ever, which the requests' own status shows.
const REQUESTS_WINDOW_S: i64 = 90 * 86_400;
/// Requests that end within so many seconds of each other may become visible out of order.
const REQUESTS_OVERLAP_S: i64 = 60;
/// The partition whose owner sweeps what belongs to no partition.
const MANDATES: PartitionKey = PartitionKey { source: Source::Partner, partition: 0 };

/// Looks for what is due.
pub(crate) struct Sweeper {
    session: Session,
    producer: FutureProducer<LogContext>,
    topic: String,
    shared: Shared,
    /// When each command was asked for last, and how long to wait then.
    asked: LruCache<Uuid, (Instant, Duration)>,
    /// Where the last sweep ended, when it did not come to the end.
    holds_after: HashMap<i32, DueHold>,
    mandates_after: Option<MandateTerms>,
    requests_after: Option<MandateTerms>,
    /// Requests that end before this are dealt with.
    requests_since: Timestamp,
    shutdown: CancellationToken,
}

impl Sweeper {
    /// A sweeper that has not looked yet.
    pub(crate) fn new(
        kafka: &KafkaConfig,
        session: Session,
        shared: Shared,
        shutdown: CancellationToken,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            session,
            producer: kafka.producer().create_with_context(LogContext)?,
            topic: kafka.topic(PARTNER_COMMANDS.name),
            shared,
            asked: LruCache::new(ASKED_MAX),
            holds_after: HashMap::new(),
            mandates_after: None,
            requests_after: None,
            requests_since: clock::now().plus_seconds(-REQUESTS_WINDOW_S),
            shutdown,
        })
    }

    /// Sweeps until the shutdown, which may cut a sweep off: nothing is lost by that.
    pub(crate) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let sweeping = async {
            loop {
                tokio::time::sleep(INTERVAL).await;
                if let Err(error) = self.sweep().await {
                    self.session.reset();
                    tracing::warn!(error = %error, "what is due is looked for again");
                }
            }
        };
        shutdown.run_until_cancelled(sweeping).await.unwrap_or(());
    }

    async fn sweep(&mut self) -> Result<(), StoreError> {
        let applied = self.shared.applied();
        for key in &applied {
            let after = self.holds_after.remove(&key.partition);
            let due = due::holds(&mut self.session, key.partition, clock::now(), after.as_ref()).await?;
            if let Some(last) = last_of_full(&due) {
                self.holds_after.insert(key.partition, *last);
            }
            let commands = due.into_iter().map(|hold| {
                let (id, root) = (expiry_id(hold.payment), hold.payment);
                (root.uuid(), envelope(id, root, hold.partner, PartnerCommand::Expire))
            });
            self.ask(commands.collect(), Some(key.partition)).await;
        }
        if applied.contains(&MANDATES) {
            let now = clock::now();
            let mut due = due::mandates(&mut self.session, now, self.mandates_after.as_ref()).await?;
            self.mandates_after = last_of_full(&due).map(|(_, terms)| terms.clone());
            let after = self.requests_after.take();
            let requests = due::requests(&mut self.session, self.requests_since, now, after.as_ref()).await?;
            self.requests_after = last_of_full(&requests).map(|(_, terms)| terms.clone());
            if after.is_none() {
                let oldest = requests.first().and_then(|(_, terms)| terms.answer_by);
                let settled = oldest.map_or_else(|| now.plus_seconds(-REQUESTS_OVERLAP_S), before);
                self.requests_since = self.requests_since.max(settled);
            }
            due.extend(requests);
            let commands = due.into_iter().map(|(partner, terms)| {
                let (id, key) = (mandate_end_id(partner, terms.mandate, "expire"), terms.mandate.uuid());
                (key, envelope(id, id, partner, PartnerCommand::ExpireMandate(terms)))
            });
            self.ask(commands.collect(), None).await;
        }
        Ok(())
    }

    /// Produces what was not asked for just now. What Kafka does not take is asked for with the next sweep.
    async fn ask(&mut self, commands: Vec<(Uuid, PartnerEnvelope)>, partition: Option<i32>) {
        let asked = |id: Uuid| self.asked.peek(&id).is_some_and(|(at, wait)| at.elapsed() < *wait);
        let new = commands.iter().filter(|(_, envelope)| !asked(envelope.id.uuid()));
        let (producer, topic) = (&self.producer, &self.topic);
        let sent = new.map(|(key, envelope)| async move {
            let value = envelope.encode();
            let mut record = FutureRecord::to(topic).key(key.as_bytes()).payload(&value);
            record.partition = partition;
            // The producer gives up by itself after its delivery time-out; a full queue is not waited for.
            let delivered = producer.send(record, Duration::ZERO).await;
            delivered.is_ok().then(|| envelope.id.uuid())
        });
        let delivered: Vec<_> = join_all(sent).await.into_iter().flatten().collect();
        metrics::expiries_asked(delivered.len());
        for id in delivered {
            let before = self.asked.peek(&id).map(|(_, wait)| *wait * 2);
            let wait = before.unwrap_or(ASK_AGAIN[0]).min(ASK_AGAIN[1]);
            self.asked.put(id, (Instant::now(), wait));
        }
    }
}

/// Where the next sweep goes on, when there may be more.
fn last_of_full<T>(rows: &[T]) -> Option<&T> {
    rows.last().filter(|_| rows.len() as i64 >= DUE_MAX)
}

fn before(time: Timestamp) -> Timestamp {
    time.plus_micros(-1)
}

fn envelope(id: PaymentId, root: PaymentId, partner: PartnerId, command: PartnerCommand) -> PartnerEnvelope {
    PartnerEnvelope {
        schema: SCHEMA,
        id,
        root,
        partner,
        key: KeyId::from_uuid(bank_owner()),
        idempotency_key: "expire".to_owned(),
        // The id says everything that is asked.
        fingerprint: Fingerprint::of(&[id.uuid().as_bytes()]),
        request_id: Uuid::now_v7(),
        address: None,
        command,
    }
}
