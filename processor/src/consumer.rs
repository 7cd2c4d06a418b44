//! Reads the command topics on a thread of its own and hands the records to the applier, in order per partition.
//!
//! It begins where MySQL says, never where the consumer group says: the group only shares the partitions out, and
//! its offsets feed lag tools. Before a partition is consumed, its position must fit the topic, and the record just
//! before the position must be the one that was applied; otherwise the partition is reported and left alone.
//!
//! Nothing here waits for the applier on revocation: a record applied late by a former owner is fenced off by the
//! position in MySQL.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::time::Timestamp;
use domain::topic::{BANK_COMMANDS, PARTNER_COMMANDS, Position, Source};
use jiff::tz::TimeZone;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use runtime::config::{ConfigError, KafkaConfig};
use runtime::health::Component;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::item::Item;
use crate::metrics;
use crate::store::error::StoreError;
use crate::store::positions::{self, PartitionKey, StoredPosition};
use crate::store::session::Session;
use crate::store::write::record_hash;

/// The consumer group that shares the partitions out.
const GROUP: &str = "processor";
/// How long one poll waits for a record; it bounds how late a shutdown is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long Kafka may take to answer a question.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(5);
/// How often offsets are committed for lag tools, and Kafka's health is looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);
/// How long the applier may be behind before fetching is paused. Pausing throws away what was fetched ahead.
const BLOCKED_MAX: Duration = Duration::from_secs(60);
/// How often a partition that waits for a time to come is begun again.
const WAITING_RETRY: Duration = Duration::from_secs(5);
/// How long to wait before positions are read again while MySQL is away.
const POSITIONS_RETRY: Duration = Duration::from_millis(500);

/// What the consumer hands to the applier.
pub enum Input {
    /// A record.
    Item(Box<Item>),
    /// A partition is consumed from this position on.
    Assigned(StoredPosition),
    /// A partition cannot be consumed.
    Halt(PartitionKey, String),
    /// A partition that waited is consumed by somebody else.
    Left(PartitionKey),
}

/// How far partitions are applied, for lag tools.
pub type Progress = Arc<Mutex<HashMap<PartitionKey, i64>>>;

/// The partitions that this process consumes.
pub type Owned = Arc<Mutex<BTreeSet<PartitionKey>>>;

/// Partitions that are consumed and of which nothing is applied.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Until the process is restarted.
    pub halted: BTreeSet<PartitionKey>,
    /// Until a time has come.
    pub waiting: BTreeSet<PartitionKey>,
}

/// What the consumer thread shares with others.
#[derive(Clone, Default)]
pub struct Shared {
    /// Written by the applier.
    pub progress: Progress,
    /// Written by the consumer.
    pub owned: Owned,
    /// Written by the applier.
    pub standing: Arc<Mutex<Standing>>,
}

impl Shared {
    /// The partitions of partner commands whose commands are applied.
    pub fn applied(&self) -> BTreeSet<PartitionKey> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = |key: &&PartitionKey| standing.halted.contains(key) || standing.waiting.contains(key);
        let moving = owned.iter().filter(|key| key.source == Source::Partner && !stands(key));
        moving.copied().collect()
    }
}

/// What the consumer thread works with.
pub struct Consumer {
    consumer: BaseConsumer<Context>,
    kafka: KafkaConfig,
    session: Session,
    input: mpsc::Sender<Input>,
    shared: Shared,
    zone: TimeZone,
    health: Component,
    runtime: Handle,
    shutdown: CancellationToken,
    /// The record just before each position, which must be the one that was applied.
    applied: HashMap<PartitionKey, (i64, [u8; 32])>,
    /// Records that arrived while the applier was too far behind.
    held: VecDeque<Input>,
    last_housekeeping: Instant,
    last_positions_try: Option<Instant>,
    last_waiting_try: Instant,
}

/// Carries rebalances from the client's callback to the thread.
struct Context {
    /// Partitions that were assigned and are not consumed yet.
    assigned: Mutex<Option<Vec<PartitionKey>>>,
    /// Partitions that are consumed.
    owned: Owned,
    prefix: KafkaConfig,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        runtime::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        runtime::kafka::error(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            *assigned = Some(list.elements().iter().filter_map(|element| self.key(element)).collect());
            return;
        }
        *assigned = None;
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).clear();
        metrics::owned(0);
        if let Err(error) = consumer.unassign() {
            tracing::warn!(error = %error, "partitions could not be given back");
        }
    }
}

impl Context {
    fn key(
        &self,
        element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>,
    ) -> Option<PartitionKey> {
        let source =
            Source::ALL.iter().find(|source| self.prefix.topic(source.topic().name) == element.topic())?;
        Some(PartitionKey { source: *source, partition: element.partition() })
    }
}

impl Consumer {
    /// A consumer that has subscribed and not polled yet.
    pub fn new(
        kafka: &KafkaConfig,
        session: Session,
        input: mpsc::Sender<Input>,
        shared: Shared,
        zone: TimeZone,
        health: Component,
        shutdown: CancellationToken,
    ) -> Result<Self, ConfigError> {
        let owned = shared.owned.clone();
        let context = Context { assigned: Mutex::new(None), owned, prefix: kafka.clone() };
        let consumer: BaseConsumer<Context> = kafka.consumer(GROUP).create_with_context(context)?;
        consumer.subscribe(&[&kafka.topic(PARTNER_COMMANDS.name), &kafka.topic(BANK_COMMANDS.name)])?;
        Ok(Self {
            consumer,
            kafka: kafka.clone(),
            session,
            input,
            shared,
            zone,
            health,
            runtime: Handle::current(),
            shutdown,
            applied: HashMap::new(),
            held: VecDeque::new(),
            last_housekeeping: Instant::now(),
            last_positions_try: None,
            last_waiting_try: Instant::now(),
        })
    }

    /// Consumes until the shutdown. Runs on a thread of its own.
    pub fn run(mut self) {
        while !self.shutdown.is_cancelled() && !self.input.is_closed() {
            metrics::polled(clock::now());
            if let Some(polled) = self.poll() {
                match polled {
                    Ok(input) => self.hand_over(input),
                    Err(error) => tracing::warn!(error = %error, "poll failed"),
                }
            }
            self.begin_assigned();
            self.begin_waiting();
            if self.last_housekeeping.elapsed() >= HOUSEKEEPING_INTERVAL {
                self.housekeeping();
            }
        }
        self.commit_progress(CommitMode::Sync);
    }

    /// The next record, if one comes in time; also serves rebalances.
    fn poll(&mut self) -> Option<KafkaResult<Input>> {
        let (position, item) = {
            let message = match self.consumer.poll(POLL_TIMEOUT)? {
                Ok(message) => message,
                Err(error) => return Some(Err(error)),
            };
            let source =
                Source::ALL.iter().find(|source| self.kafka.topic(source.topic().name) == message.topic())?;
            let position =
                Position { source: *source, partition: message.partition(), offset: message.offset() };
            let timestamp = Timestamp::from_millis(message.timestamp().to_millis().unwrap_or_default());
            (position, read(&message, position, timestamp, &self.zone))
        };
        self.check_applied(position, item).map(Ok)
    }

    /// Drops the record just before the position once it proved to be the applied one.
    fn check_applied(&mut self, position: Position, item: Item) -> Option<Input> {
        let key = PartitionKey::of(position);
        match self.applied.get(&key) {
            Some((offset, hash)) if *offset == position.offset => {
                let same = record_hash(&item.value) == *hash;
                self.applied.remove(&key);
                (!same).then(|| {
                    let why = format!(
                        "the record at offset {} is not the one that was applied: the topic was made anew, or MySQL \
                         was restored from another bank",
                        position.offset
                    );
                    self.leave_alone(key);
                    Input::Halt(key, why)
                })
            }
            _ => Some(Input::Item(Box::new(item))),
        }
    }

    fn leave_alone(&self, key: PartitionKey) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.kafka.topic(key.source.topic().name), key.partition);
        if let Err(error) = self.consumer.pause(&list) {
            tracing::warn!(error = %error, "halted partition could not be paused");
        }
    }

    /// Starts consuming what was assigned, once MySQL says from where.
    fn begin_assigned(&mut self) {
        let assigned =
            self.consumer.context().assigned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(partitions) = assigned else { return };
        if self.last_positions_try.is_some_and(|last| last.elapsed() < POSITIONS_RETRY) {
            return;
        }
        self.last_positions_try = Some(Instant::now());
        match self.start_offsets(&partitions) {
            Ok((list, positions)) => match self.consumer.assign(&list) {
                Ok(()) => {
                    tracing::info!(partitions = list.count(), "partitions assigned");
                    metrics::owned(list.count());
                    self.health.up();
                    self.last_positions_try = None;
                    // A rebalance cannot have come between: callbacks run in this thread's poll.
                    *self.consumer.context().assigned.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    // Those that were just reported as halted are not consumed.
                    *self.consumer.context().owned.lock().unwrap_or_else(PoisonError::into_inner) = list
                        .elements()
                        .iter()
                        .filter_map(|element| self.consumer.context().key(element))
                        .collect();
                    for position in positions {
                        self.hand_over(Input::Assigned(position));
                    }
                }
                Err(error) => self.health.down(format!("partitions cannot be consumed: {error}")),
            },
            Err(why) => self.health.down(format!("positions cannot be checked: {why}")),
        }
    }

    /// Begins partitions again, at their positions, whose records were dropped since they carry a time that had not
    /// come.
    fn begin_waiting(&mut self) {
        if self.last_waiting_try.elapsed() < WAITING_RETRY {
            return;
        }
        self.last_waiting_try = Instant::now();
        let waiting = self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner).waiting.clone();
        for key in waiting {
            let owned = self.shared.owned.lock().unwrap_or_else(PoisonError::into_inner).contains(&key);
            if !owned {
                self.hand_over(Input::Left(key));
            } else if let Err(why) = self.begin_again(key) {
                tracing::warn!(
                    topic = key.source.topic().name,
                    partition = key.partition,
                    why,
                    "still waiting"
                );
            }
        }
    }

    fn begin_again(&mut self, key: PartitionKey) -> Result<(), String> {
        let (list, positions) = self.start_offsets(&[key])?;
        for element in list.elements() {
            // What was fetched ahead is thrown away.
            let sought =
                self.consumer.seek(element.topic(), element.partition(), element.offset(), KAFKA_TIMEOUT);
            sought.map_err(|error| error.to_string())?;
            for position in &positions {
                self.hand_over(Input::Assigned(position.clone()));
            }
        }
        Ok(())
    }

    /// Where each partition is to be consumed from, and its position. Partitions that do not fit are reported and
    /// left out.
    fn start_offsets(
        &mut self,
        partitions: &[PartitionKey],
    ) -> Result<(TopicPartitionList, Vec<StoredPosition>), String> {
        let mut list = TopicPartitionList::new();
        if partitions.is_empty() {
            return Ok((list, Vec::new()));
        }
        let runtime = self.runtime.clone();
        let stored = runtime.block_on(positions::read(&mut self.session, partitions)).map_err(|error| {
            self.session.reset();
            describe(&error)
        })?;
        self.applied.retain(|key, _| !partitions.contains(key));
        for key in partitions {
            let topic = self.kafka.topic(key.source.topic().name);
            let (low, high) = self
                .consumer
                .fetch_watermarks(&topic, key.partition, KAFKA_TIMEOUT)
                .map_err(|error| error.to_string())?;
            let position = stored.iter().find(|position| position.key == *key);
            match start(position, low, high) {
                Ok((from, applied)) => {
                    if let Some(hash) = applied {
                        self.applied.insert(*key, (from, hash));
                    }
                    list.add_partition_offset(&topic, key.partition, Offset::Offset(from))
                        .map_err(|error| error.to_string())?;
                }
                Err(why) => self.hand_over(Input::Halt(*key, why)),
            }
        }
        Ok((list, stored))
    }

    /// Gives `input` to the applier, waiting for room. A long wait pauses fetching, so that the group does not
    /// take this process for dead.
    fn hand_over(&mut self, input: Input) {
        self.held.push_back(input);
        let (applier, blocked_since) = (self.input.clone(), Instant::now());
        let mut paused = None;
        while let Some(input) = self.held.pop_front() {
            let room = self.runtime.block_on(async {
                tokio::select! {
                    room = applier.reserve() => room.ok(),
                    () = tokio::time::sleep(if paused.is_some() { POLL_TIMEOUT } else { BLOCKED_MAX }) => None,
                    () = self.shutdown.cancelled() => None,
                }
            });
            match room {
                Some(room) => room.send(input),
                None if self.shutdown.is_cancelled() || applier.is_closed() => return,
                None => {
                    self.held.push_front(input);
                    if paused.is_none() {
                        tracing::warn!(blocked_s = blocked_since.elapsed().as_secs(), "fetching is paused");
                        paused =
                            self.consumer.assignment().ok().filter(|all| self.consumer.pause(all).is_ok());
                    }
                    metrics::polled(clock::now());
                    if let Some(Ok(late)) = self.poll() {
                        self.held.push_back(late);
                    }
                }
            }
        }
        if let Some(paused) = paused
            && let Err(error) = self.consumer.resume(&paused)
        {
            tracing::warn!(error = %error, "fetching could not be resumed");
        }
    }

    fn housekeeping(&mut self) {
        self.last_housekeeping = Instant::now();
        self.commit_progress(CommitMode::Async);
        let topic = self.kafka.topic(PARTNER_COMMANDS.name);
        match self.consumer.fetch_metadata(Some(&topic), KAFKA_TIMEOUT) {
            Ok(_) if self.last_positions_try.is_none() => self.health.up(),
            Ok(_) => {}
            Err(error) => self.health.down(format!("Kafka is away: {error}")),
        }
    }

    /// Tells the group how far this process is; only lag tools read it.
    fn commit_progress(&self, mode: CommitMode) {
        let progress = &self.shared.progress;
        let progress = std::mem::take(&mut *progress.lock().unwrap_or_else(PoisonError::into_inner));
        if progress.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (key, offset) in progress {
            let topic = self.kafka.topic(key.source.topic().name);
            let added = list.add_partition_offset(&topic, key.partition, Offset::Offset(offset));
            debug_assert!(added.is_ok(), "a plain offset is accepted");
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            tracing::debug!(error = %error, "group offsets were not committed");
        }
    }
}

/// Where to begin: at the record just before the position, to see that it is the applied one, or at the position.
fn start(position: Option<&StoredPosition>, low: i64, high: i64) -> Result<(i64, Option<[u8; 32]>), String> {
    let Some(position) = position else {
        return Err("positions has no row for it; it must be restored, never made anew".to_owned());
    };
    let next = position.next_offset;
    if low > next {
        return Err(format!(
            "the topic begins at offset {low} and {next} is due: records were deleted unapplied"
        ));
    }
    if next > high {
        return Err(format!("the topic ends at offset {high} and {next} is due: the topic was made anew"));
    }
    match position.record_hash {
        Some(hash) if next > low => Ok((next - 1, Some(hash))),
        _ => Ok((next, None)),
    }
}

fn read(message: &BorrowedMessage<'_>, position: Position, accepted_at: Timestamp, zone: &TimeZone) -> Item {
    Item::read(position, accepted_at, accepted_at.day_in(zone), message.key(), message.payload())
}

fn describe(error: &StoreError) -> String {
    match error {
        StoreError::Transient(error) => format!("MySQL is away: {error}"),
        StoreError::Data(why)
        | StoreError::Clock(why)
        | StoreError::Early(_, why)
        | StoreError::Fatal(why) => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(next_offset: i64, record_hash: Option<[u8; 32]>) -> StoredPosition {
        let key = PartitionKey { source: Source::Partner, partition: 0 };
        StoredPosition { key, next_offset, announced_offset: 0, record_hash }
    }

    #[test]
    fn a_partition_is_consumed_only_where_its_position_fits_the_topic() {
        let hash = [7; 32];
        assert_eq!(start(Some(&position(0, None)), 0, 0), Ok((0, None)));
        assert_eq!(start(Some(&position(5, Some(hash))), 0, 9), Ok((4, Some(hash))));
        assert_eq!(start(Some(&position(5, Some(hash))), 0, 5), Ok((4, Some(hash))));
        // The record before the position has been deleted by retention, which proves nothing wrong.
        assert_eq!(start(Some(&position(5, Some(hash))), 5, 9), Ok((5, None)));
        assert!(start(Some(&position(5, Some(hash))), 6, 9).is_err(), "records were deleted unapplied");
        assert!(start(Some(&position(5, Some(hash))), 0, 4).is_err(), "the topic was made anew");
        assert!(start(None, 0, 0).is_err(), "the row is missing");
    }
}
