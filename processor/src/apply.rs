//! Applies batches: each in one transaction with the positions it came from.
//!
//! Whatever fails, the position in MySQL tells what is applied: a transaction is repeated until it commits or is
//! found committed, a record whose value does not fit is found by bisecting and set aside, and anything else stops
//! the partition it came from. Nothing is ever skipped.
//!
//! When a position is not where this process left it (it just took the partition over, another process was
//! faster, or a COMMIT was answered by a broken connection), what the partition has left unannounced is announced
//! from MySQL.
//!
//! Nothing is decided at a time that is far ahead of MySQL's clock: `waiting` says what waits for that.

mod waiting;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use domain::time::Timestamp;
use jiff::tz::TimeZone;
use rand::Rng as _;
use runtime::health::{Component, Health};
use tokio_util::sync::CancellationToken;

use waiting::Waiting;

use crate::announce::{Announcer, Batch};
use crate::clock;
use crate::decide::{DeadLetterReason, Effects, View, decide};
use crate::item::{Content, Item};
use crate::metrics;
use crate::store::dead_letters::Named;
use crate::store::error::StoreError;
use crate::store::facts::Facts;
use crate::store::load::{self, Loaded};
use crate::store::positions::{PartitionKey, StoredPosition};
use crate::store::references::References;
use crate::store::session::Session;
use crate::store::write::{self, NewPosition};

/// The most records of one batch that may be set aside. More is no bad record but a bad environment.
const DEAD_LETTERS_MAX: usize = 3;
/// The most bytes of records in one transaction. A record is written into its row and its event, in hexadecimal, so the
/// text is up to four times as long; MySQL takes 64 MiB. Fewer cost more transactions for large records.
const BATCH_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Looks at what a batch refers to, besides one for each of its commands: what a look did not see in time may be made
/// by another transaction just then.
const LOOKS_MORE: usize = 3;
/// Waits between two tries grow from the first to the second of these.
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];
/// How often a transaction is tried that MySQL answers and refuses. Losing a connection does not count: MySQL may be
/// away for as long as it likes.
const REFUSALS_MAX: u32 = 50;

/// Why a partition stands still, in words for whoever is called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The process is to end; nothing is wrong.
    #[error("shutting down")]
    Shutdown,
    /// A human must look.
    #[error("{0}")]
    Halt(String),
    /// A record of this partition carries a time that has not come.
    #[error("{1}")]
    Wait(PartitionKey, String),
}

/// Whether MySQL answers, whether all partitions move, and whether all clocks are right.
pub struct Components {
    mysql: Component,
    ledger: Component,
    clock: Component,
}

impl Components {
    /// The applier's parts of a service.
    pub fn of(health: &Health) -> Self {
        let [mysql, ledger, clock] = ["mysql", "ledger", "clock"].map(|name| health.component(name));
        Self { mysql, ledger, clock }
    }
}

/// Applies batches on one connection.
pub struct Applier {
    session: Session,
    facts: Facts,
    announcer: Announcer,
    /// Where this process believes each partition stands; absent until its first transaction.
    expected: HashMap<PartitionKey, i64>,
    /// Partitions that stand still, and why.
    halted: BTreeMap<PartitionKey, String>,
    waiting: Waiting,
    /// Whose calendar days caps count.
    zone: TimeZone,
    mysql: Component,
    ledger: Component,
    shutdown: CancellationToken,
}

/// What came of a batch.
#[derive(Default)]
struct Done {
    partitions: BTreeMap<PartitionKey, i64>,
    effects: Effects,
}

impl Applier {
    /// An applier that has applied nothing yet. `accepted_ahead_max_s` is how far ahead of MySQL's clock Kafka may have
    /// stamped a record.
    pub fn new(
        session: Session,
        announcer: Announcer,
        zone: TimeZone,
        accepted_ahead_max_s: u32,
        components: Components,
        shutdown: CancellationToken,
    ) -> Self {
        let Components { mysql, ledger, clock } = components;
        ledger.up();
        Self {
            session,
            facts: Facts::default(),
            announcer,
            expected: HashMap::new(),
            halted: BTreeMap::new(),
            waiting: Waiting::new(clock, accepted_ahead_max_s),
            zone,
            mysql,
            ledger,
            shutdown,
        }
    }

    /// Applies what `items` hold of partitions that are not halted. Ends early only for a shutdown.
    pub async fn apply(&mut self, mut items: Vec<Item>) -> Result<(), Stop> {
        if items.is_empty() {
            self.announce(Done::default()).await;
            return Ok(());
        }
        items.retain(|item| !self.stands(PartitionKey::of(item.position)));
        items.sort_by_key(Item::fold_order);
        // Ends, since each turn leaves a partition out.
        loop {
            match self.bisect(&mut items).await {
                Err(Stop::Halt(why)) => return self.apply_each_partition(items, why).await,
                Err(Stop::Wait(key, why)) => {
                    self.waiting.begin(key, why);
                    items.retain(|item| PartitionKey::of(item.position) != key);
                }
                other => return other,
            }
        }
    }

    /// Whether nothing is taken from a partition.
    fn stands(&self, key: PartitionKey) -> bool {
        self.halted.contains_key(&key) || self.waiting.drops(key)
    }

    /// The partition is this process's from here on: what a former owner has left unannounced goes out, although no
    /// command may come for long.
    pub fn take_over(&mut self, position: &StoredPosition) {
        self.announcer.catch_up(position);
        self.expected.insert(position.key, position.next_offset);
        self.waiting.begun(position.key);
    }

    /// A partition that waited is somebody else's now.
    pub fn leave(&mut self, key: PartitionKey) {
        self.waiting.end(std::iter::once(key));
    }

    /// Partitions that stand still until the process is restarted.
    pub fn halted(&self) -> impl Iterator<Item = PartitionKey> {
        self.halted.keys().copied()
    }

    /// Partitions that wait for a time to come and are to be begun again.
    pub fn waiting(&self) -> impl Iterator<Item = PartitionKey> {
        self.waiting.partitions()
    }

    /// What a partition that cannot be consumed reports.
    pub fn halt(&mut self, partition: PartitionKey, why: String) {
        tracing::error!(
            topic = partition.source.topic().name,
            partition = partition.partition,
            why,
            "partition halted"
        );
        self.halted.insert(partition, why);
        metrics::halted(self.halted.len());
        let words = self.halted.iter().map(|(key, why)| {
            format!("{} partition {} is halted: {why}", key.source.topic().name, key.partition)
        });
        self.ledger.down(words.collect::<Vec<_>>().join("; "));
    }

    /// Where this process believes each partition stands.
    pub fn positions(&self) -> impl Iterator<Item = (PartitionKey, i64)> {
        self.expected.iter().map(|(key, offset)| (*key, *offset))
    }

    /// Keeps the connection while nothing happens, and stores how far events are announced.
    pub async fn idle(&mut self) {
        let kept = match self.announcer.take_announced() {
            announced if announced.is_empty() => self.session.keep_alive().await,
            announced => {
                let stored = crate::store::positions::store_announced(&mut self.session, &announced).await;
                if stored.is_err() {
                    self.announcer.untake_announced(&announced);
                }
                stored
            }
        };
        self.report(&kept);
    }

    /// Whether what is applied is announced, too.
    pub fn announces(&self) -> bool {
        self.announcer.is_alive()
    }

    /// Waits until the events of all applied batches are acknowledged, and stores that; `false` when announcing has
    /// panicked.
    pub async fn finish(mut self) -> bool {
        let drained = self.announcer.drain().await;
        self.idle().await;
        drained
    }

    /// A batch over several partitions failed: whose fault it is shows when each is applied alone.
    async fn apply_each_partition(&mut self, items: Vec<Item>, why: String) -> Result<(), Stop> {
        let mut partitions: BTreeMap<PartitionKey, Vec<Item>> = BTreeMap::new();
        for item in items {
            partitions.entry(PartitionKey::of(item.position)).or_default().push(item);
        }
        if let [key] = partitions.keys().collect::<Vec<_>>().as_slice() {
            self.halt(**key, why);
            return Ok(());
        }
        for (key, mut items) in partitions {
            match self.bisect(&mut items).await {
                Err(Stop::Halt(why)) => self.halt(key, why),
                Err(Stop::Wait(key, why)) => self.waiting.begin(key, why),
                other => other?,
            }
        }
        Ok(())
    }

    /// Applies `items` in as few transactions as they allow: one, unless a value does not fit. Then ever shorter
    /// prefixes are applied until the record that does not fit stands alone and is set aside.
    async fn bisect(&mut self, items: &mut [Item]) -> Result<(), Stop> {
        let undecodable = items.iter().filter(|item| matches!(item.content, Content::Undecodable(_))).count();
        let mut set_aside = undecodable;
        check_set_aside(set_aside, "cannot be read")?;
        let (mut start, mut length) = (0, fitting(items));
        while start < items.len() {
            match self.transact(&items[start..start + length]).await? {
                Ok(()) => {
                    start += length;
                    length = fitting(&items[start..]);
                }
                Err(detail) if length == 1 => {
                    set_aside += 1;
                    check_set_aside(set_aside, &detail)?;
                    items[start].data_error = Some(detail);
                }
                Err(_) => length = length.div_ceil(2),
            }
        }
        Ok(())
    }

    /// One transaction, again and again until it is committed, or a value does not fit (the inner error).
    async fn transact(&mut self, items: &[Item]) -> Result<Result<(), String>, Stop> {
        let mut backoff = BACKOFF[0];
        let mut refusals = 0;
        loop {
            let tried = self.attempt(items).await;
            self.report(&tried);
            let error = match tried {
                Ok(done) => {
                    self.announce(done).await;
                    return Ok(Ok(()));
                }
                Err(error) => error,
            };
            self.session.reset();
            metrics::retry(&error);
            match error {
                StoreError::Data(detail) => return Ok(Err(detail)),
                StoreError::Fatal(why) => return Err(Stop::Halt(why)),
                StoreError::Early(key, why) => return Err(Stop::Wait(key, why)),
                // All partitions are decided by this clock.
                StoreError::Clock(why) => self.waiting.own_clock(Some(why)),
                StoreError::Transient(error) => {
                    tracing::warn!(error = %error, batch.size = items.len(), "batch is tried again");
                    refusals += u32::from(matches!(error, sqlx::Error::Database(_)));
                    if refusals > REFUSALS_MAX {
                        return Err(Stop::Halt(format!("refused {refusals} times, last: {error}")));
                    }
                }
            }
            let wait = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return Err(Stop::Shutdown),
            }
            backoff = (backoff * 2).min(BACKOFF[1]);
        }
    }

    async fn attempt(&mut self, items: &[Item]) -> Result<Done, StoreError> {
        let started = Instant::now();
        let Loaded { positions, mut view, not_before, clock: database } = self.load(items).await?;
        let items = self.unapplied(items, &positions)?;
        if items.is_empty() {
            // Everything was applied before; the locks are given back.
            self.rollback().await?;
            return Ok(Done::default());
        }
        let letters: Vec<_> = view.dead_letters.values().map(|slot| slot.row.item.clone()).collect();
        load::load_conflicts(&mut self.session, &mut view, items.iter().chain(&letters)).await?;
        let now = clock::now();
        self.waiting.check(now, &items, database.latest())?;
        self.waiting.own_clock(None);
        let decided_at = now.max(not_before);
        let (view, effects) = decide_checked(&items, view, decided_at)?;
        let last: BTreeMap<PartitionKey, &Item> =
            items.iter().map(|item| (PartitionKey::of(item.position), item)).collect();
        let new_positions: Vec<_> = last
            .iter()
            .map(|(key, last)| NewPosition {
                key: *key,
                last,
                announced_offset: self.announcer.announced(*key),
            })
            .collect();
        let writes = write::write(&items, &view, &effects, &new_positions, decided_at);
        write::commit(&mut self.session, &writes).await?;
        let oldest = items.iter().map(|item| item.accepted_at).min().unwrap_or(decided_at);
        metrics::committed(items.len(), &view, &effects, oldest, clock::now(), started.elapsed());
        log_dead_letters(&items, &effects, decided_at);
        let partitions = last.into_iter().map(|(key, item)| (key, item.position.offset + 1)).collect();
        Ok(Done { partitions, effects })
    }

    /// Locks and reads; begins again when something turned up between the two looks at it.
    async fn load(&mut self, items: &[Item]) -> Result<Loaded, StoreError> {
        let named = Named::of(items);
        // Each look sees what the last one missed, and a batch names only so much.
        for _ in 0..LOOKS_MORE + items.len() {
            let (open, _) = named.read(&mut self.session, &self.zone).await?;
            let letters: Vec<_> = open.values().map(|slot| slot.row.item.clone()).collect();
            let references = References::of(items, &letters, &mut self.facts, &mut self.session).await?;
            let mut loaded = load::load(&mut self.session, &references, &mut self.facts, &self.zone).await?;
            loaded.view.keep_letters(&open);
            if references.cover(&loaded.view, items.iter().chain(&letters)) {
                return Ok(loaded);
            }
            self.rollback().await?;
        }
        Err(StoreError::Fatal("what the batch refers to is still unknown after many looks".to_owned()))
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        let mut sql = runtime::sql::Sql::new();
        sql.text("ROLLBACK");
        self.session.send(&sql).await.map(drop)
    }

    /// The items that the locked positions have not passed yet, which must follow them without a gap.
    fn unapplied<'a>(
        &mut self,
        items: &'a [Item],
        positions: &[StoredPosition],
    ) -> Result<Cow<'a, [Item]>, StoreError> {
        let mut next: HashMap<PartitionKey, i64> =
            positions.iter().map(|position| (position.key, position.next_offset)).collect();
        for position in positions {
            if self.expected.get(&position.key) != Some(&position.next_offset) {
                self.take_over(position);
            }
        }
        let mut is_unapplied = Vec::with_capacity(items.len());
        for item in items {
            let key = PartitionKey::of(item.position);
            let Some(next) = next.get_mut(&key) else {
                return Err(StoreError::Fatal(format!(
                    "positions has no row for {} partition {}; it must be restored, never made anew",
                    key.source.topic().name,
                    key.partition
                )));
            };
            match item.position.offset.cmp(next) {
                std::cmp::Ordering::Less => is_unapplied.push(false),
                std::cmp::Ordering::Equal => {
                    *next += 1;
                    is_unapplied.push(true);
                }
                std::cmp::Ordering::Greater => {
                    return Err(StoreError::Fatal(format!(
                        "{} partition {} goes on at offset {} where {next} is due: records are missing",
                        key.source.topic().name,
                        key.partition,
                        item.position.offset
                    )));
                }
            }
        }
        if is_unapplied.iter().all(|unapplied| *unapplied) {
            return Ok(Cow::Borrowed(items));
        }
        let unapplied = items.iter().zip(is_unapplied).filter(|(_, unapplied)| *unapplied);
        Ok(Cow::Owned(unapplied.map(|(item, _)| item.clone()).collect()))
    }

    /// Hands the events of a committed batch to the announcer, which may make this wait; not for ever, since the
    /// announcer gives up at a shutdown that finds Kafka away.
    async fn announce(&mut self, done: Done) {
        self.expected.extend(&done.partitions);
        self.waiting.end(done.partitions.keys().copied());
        self.announcer.announce(Batch { events: done.effects.events, partitions: done.partitions }).await;
    }

    fn report<T>(&self, result: &Result<T, StoreError>) {
        match result {
            Err(StoreError::Transient(error)) if !matches!(error, sqlx::Error::Database(_)) => {
                self.mysql.down(format!("MySQL is away: {error}"));
            }
            _ => self.mysql.up(),
        }
    }
}

/// Decides, and takes a broken invariant of our own for what it is: nothing of the batch is applied.
fn decide_checked(items: &[Item], view: View, decided_at: Timestamp) -> Result<(View, Effects), StoreError> {
    // Nothing outlives a panic here: the view is this transaction's own.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decide(items, view, decided_at))).map_err(|_| {
        StoreError::Fatal("an invariant of the decision is broken; the log has the panic".to_owned())
    })
}

/// How many of the first of `items` fit one transaction: at least one.
fn fitting(items: &[Item]) -> usize {
    let mut bytes = 0;
    let fits = |item: &&Item| {
        bytes += item.value.len();
        bytes <= BATCH_BYTES_MAX
    };
    items.iter().take_while(fits).count().max(items.len().min(1))
}

fn check_set_aside(count: usize, detail: &str) -> Result<(), Stop> {
    if count <= DEAD_LETTERS_MAX {
        return Ok(());
    }
    Err(Stop::Halt(format!(
        "more than {DEAD_LETTERS_MAX} records of one batch cannot be applied, one: {detail}"
    )))
}

fn log_dead_letters(items: &[Item], effects: &Effects, decided_at: Timestamp) {
    for letter in &effects.dead_letters {
        let item = &items[letter.item];
        // Later commands on the same root are a consequence, not news.
        if letter.reason == DeadLetterReason::BehindDeadLetter {
            continue;
        }
        tracing::error!(
            topic = item.position.source.topic().name,
            partition = item.position.partition,
            offset = item.position.offset,
            reason = letter.reason.as_str(),
            decided_at = %decided_at,
            "command set aside as a dead letter"
        );
    }
}
