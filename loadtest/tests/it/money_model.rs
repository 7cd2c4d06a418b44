//! A running bank against the naive one (`testkit::naive_bank`): random commands of every kind through the public API of
//! two ingests and over Kafka to two processors; afterwards every balance, hold, cap, status, reason, version and event
//! must be what the naive bank comes to that takes the records on Kafka one after the other.
//!
//! **In which order?** Kafka orders the records of a partition only, and what two partitions do to the same account has
//! no order but the one in which MySQL's locks let them through. Each transaction decides its batch at one instant, taken
//! after it holds its locks (`decided_at`); of two transactions that share a row, the one that locks it later has the
//! later instant, by the one clock of this machine. So records are put in the order of `decided_at`, and within one
//! instant bank commands first, then by partition and offset, as the processor folds them. Records that left nothing
//! have no `decided_at`; they go before the record behind them on their partition, where the naive bank must find that
//! they leave nothing as well. A wrong order could not hide: versions of entries and sequences of events are compared.
//!
//! One thing has no such order: a root, mandate or account that is being made by another transaction can neither be seen
//! nor locked. A reversal, or a follow-up on a follow-up, that came in that moment is rejected as
//! `payment_unknown` and may be told after its root. There, and only there (the command was rejected, and what it names
//! was made less than 5 s before), the naive bank is asked with it hidden, if otherwise it says something else.
//!
//! `WIRED_MODEL_COMMANDS` and `WIRED_MODEL_SEED` make a longer or an earlier run. A seed replays the same commands; how
//! they interleave differs, and the naive bank follows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use client::{Client, Error, PartRequest, PaymentRequest, TransferRequest};
use domain::command::{BankCommand, FollowUp, PartnerCommand, PartnerEnvelope};
use domain::ids::{AccountId, MandateId, PaymentId, bank_account_id};
use domain::money::Amount;
use domain::payment::Reason;
use domain::time::{Day, Timestamp};
use domain::topic::Source;
use futures_util::StreamExt as _;
use loadtest::faults::{audit, driver_partners, store};
use loadtest::system::{Options, Servers, Service, System};
use testkit::fixtures::{PartnerRow, insert_partner};
use testkit::naive_bank::{self, City, Command, NaiveBank, Outcome, When};

use uuid::Uuid;

use crate::money_ledger::{Ledger, PATIENCE, Place, Record, Writer, records, verify};

/// `WIRED_MODEL_COMMANDS`: random commands in a run.
const COMMANDS: u64 = 2_000;
/// Random commands before the city begins anew.
const GENERATION: u64 = 400;
const PROCESSORS: usize = 2;
/// Commands on their way at once.
const AT_ONCE: usize = 60;
const DAY_S: i64 = 86_400;
/// No transaction of the processor takes as long.
const AT_THE_SAME_TIME_US: i64 = 5_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bank_agrees_with_a_naive_bank() {
    let _turn = crate::turn().await;
    let seed = crate::number("WIRED_MODEL_SEED").unwrap_or_else(rand::random);
    let commands = crate::number("WIRED_MODEL_COMMANDS").unwrap_or(COMMANDS);
    println!("WIRED_MODEL_SEED={seed} WIRED_MODEL_COMMANDS={commands}");
    let options = Options {
        ingests: 2,
        processors: PROCESSORS,
        notifiers: 0,
        partners: 2,
        customers: 1,
        ..Options::new("model")
    }
    .with_env(Service::Processor, "WIRED_BANK_TIME_ZONE", "UTC");
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let suspended = PartnerRow { active: false, ..PartnerRow::default() };
    let test = PartnerRow { livemode: false, ..PartnerRow::default() };
    let suspended = insert_partner(system.pool(), suspended).await;
    let test = insert_partner(system.pool(), test).await;
    let city = city(seed, &system, [suspended, test]);
    let traffic = Traffic::new(&system);
    let mut sent = 0;
    for generation in 0..commands.div_ceil(GENERATION) {
        // The beginning opens accounts first, and only then puts money in and grants mandates on them.
        let generation = generation as u32;
        let is_grant = |command: &Command| command.word() == "grant_mandate";
        let (grants, accounts): (Vec<_>, Vec<_>) = city.beginning(generation).into_iter().partition(is_grant);
        traffic.writer.write_all(&accounts).await;
        audit::applied(&system, PATIENCE).await.unwrap();
        traffic.writer.write_all(&grants).await;
        audit::applied(&system, PATIENCE).await.unwrap();
        audit::applied(&system, PATIENCE).await.unwrap();
        let numbers = sent..commands.min(sent + GENERATION);
        sent = numbers.end;
        let random = numbers.map(|number| city.command(generation, seed.wrapping_add(number << 20)));
        let random: Vec<_> = random.collect();
        let send = futures_util::stream::iter(random.iter().enumerate());
        send.for_each_concurrent(AT_ONCE, |(index, command)| traffic.send(index, command)).await;
    }
    audit::applied(&system, PATIENCE).await.unwrap();
    // The sweepers end holds and mandates at any moment: nobody writes while the ledger is read, and a record that came
    // too late to be applied is left out.
    for index in 0..PROCESSORS {
        system.terminate(Service::Processor, index).await.unwrap();
    }
    let ledger = Ledger::read_now(system.pool()).await;
    let applied = store::positions(system.pool()).await.unwrap();
    let applied = applied.into_iter().map(|(partition, (next, _))| (partition, next)).collect();
    let mut naive = NaiveBank::default();
    let partners = system.partners().iter().map(|partner| (partner.id, true, true));
    for (id, active, livemode) in partners.chain([(suspended, false, true), (test, true, false)]) {
        naive.partners.insert(id, naive_bank::Partner { active, livemode });
    }
    let records = in_order(&ledger, records(&system, applied).await);
    let mut born: HashMap<Uuid, i64> = HashMap::new();
    let mut differences = Vec::new();
    for record in &records {
        let day = Day((record.accepted_at.seconds() / DAY_S) as i32);
        let outcome = apply_as_seen(&mut naive, record, &ledger, &born, day);
        let mandates = naive.mandates.keys().map(MandateId::uuid);
        for id in mandates.chain(naive.accounts.keys().map(AccountId::uuid)) {
            born.entry(id).or_insert_with(|| decided_at(&ledger, record));
        }
        let left = ledger.decided.contains_key(&record.place);
        if left != (outcome != Outcome::Nothing) {
            differences.push(format!("{record:?} left something: {left}, the naive bank has {outcome:?}"));
        }
    }
    differences.extend(compared(&ledger, &naive));
    assert!(
        differences.is_empty(),
        "with WIRED_MODEL_SEED={seed} WIRED_MODEL_COMMANDS={commands}: {} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
    let mut kinds = BTreeMap::new();
    for payment in ledger.payments.values() {
        let outcome = payment.reason.map_or(payment.status.as_str(), Reason::as_str);
        *kinds.entry(format!("{} {outcome}", payment.kind)).or_insert(0) += 1;
    }
    println!("{} records, {} by the API: {kinds:#?}", records.len(), traffic.by_api());
    let posted = kinds.iter().filter(|(outcome, _)| outcome.ends_with(" posted")).count();
    assert!(commands < COMMANDS || posted >= 5, "a stream in which nothing posts shows nothing: {kinds:?}");
    verify(&system).await;
    system.finish().await.unwrap();
}

fn city(seed: u64, system: &System, others: [domain::ids::PartnerId; 2]) -> City {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let partners = system.partners().iter().map(|partner| partner.id).chain(others);
    City {
        salt: seed,
        partners: partners.collect(),
        keys: (GENERATION / 4) as u32,
        ends: [4, 10, 20, 3_600].map(|seconds| Timestamp::from_micros(now).plus_seconds(seconds)).to_vec(),
        holds_s: vec![1, 3, 60, 3_600],
    }
}

/// Sends each command by the API where the API has it, and otherwise, or now and then all the same, to Kafka itself.
struct Traffic {
    writer: Writer,
    /// Clients of each partner, one for each ingest.
    banks: Vec<(domain::ids::PartnerId, Vec<Client>)>,
    by_api: std::sync::atomic::AtomicU64,
}

impl Traffic {
    fn new(system: &System) -> Self {
        assert_eq!(driver_partners(system).len(), system.partners().len());
        let banks = system.partners().iter().map(|partner| {
            let bank = |url: &String| partner.client(url, client::Options::default()).unwrap();
            (partner.id, system.urls().iter().map(bank).collect())
        });
        Self { writer: Writer::new(system), banks: banks.collect(), by_api: 0.into() }
    }

    fn by_api(&self) -> u64 {
        self.by_api.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn send(&self, index: usize, command: &Command) {
        if let Command::Partner(envelope) = command
            && !index.is_multiple_of(4)
            && let Some((_, banks)) = self.banks.iter().find(|(partner, _)| *partner == envelope.partner)
            && let Some(answer) = by_api(&banks[index % banks.len()], envelope).await
        {
            self.by_api.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if let Err(error) = answer {
                // Ingest has noticed by itself what the processor would have said.
                let code = error.problem().map(|problem| problem.code.clone());
                assert_eq!(code.as_deref(), Some("idempotency_conflict"), "{envelope:?}: {error}");
            }
            return;
        }
        self.writer.write(command).await;
    }
}

/// `None` when the API has no such command.
async fn by_api(bank: &Client, envelope: &PartnerEnvelope) -> Option<Result<client::Accepted, Error>> {
    let (key, root) = (envelope.idempotency_key.as_str(), envelope.root);
    let amount = |minor, currency| Amount::new(minor, currency).unwrap();
    let part = |follow_up: &FollowUp| {
        let of = |part: domain::command::Part| PartRequest::of(amount(part.amount_minor, part.currency));
        follow_up.part.map_or_else(PartRequest::everything, of)
    };
    let answer = match &envelope.command {
        PartnerCommand::Payment(payment) => {
            let request =
                PaymentRequest::new(payment.mandate, amount(payment.amount_minor, payment.currency));
            let request = match payment.expires_in_s {
                // So short a time is not to be had by the API.
                Some(seconds) if seconds < 60 => return None,
                Some(seconds) => request.authorize(Some(seconds)),
                None => request,
            };
            bank.pay(&request, key, None).await
        }
        PartnerCommand::Capture(follow_up) => bank.capture(root, &part(follow_up), key, None).await,
        PartnerCommand::Void(_) => bank.void(root, key, None).await,
        PartnerCommand::Refund(follow_up) => bank.refund(root, &part(follow_up), key, None).await,
        // That makes no sense to ingest at all.
        PartnerCommand::Transfer(transfer) if transfer.from == transfer.to => return None,
        PartnerCommand::Transfer(transfer) => {
            let amount = amount(transfer.amount_minor, transfer.currency);
            bank.transfer(&TransferRequest::new(transfer.from, transfer.to, amount), key, None).await
        }
        PartnerCommand::Expire
        | PartnerCommand::CancelMandate(_)
        | PartnerCommand::ExpireMandate(_)
        | PartnerCommand::SandboxMandate(_) => return None,
    };
    Some(answer)
}

/// The records in the order in which the ledger applied them; see above.
fn in_order(ledger: &Ledger, mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|record| record.place);
    let mut behind: Option<(Place, Timestamp)> = None;
    let mut keyed = Vec::new();
    for record in records.into_iter().rev() {
        let (source, partition, _) = record.place;
        let next = behind.filter(|((of, at, _), _)| (*of, *at) == (source, partition)).map(|(_, time)| time);
        let end = Timestamp::from_micros(i64::MAX);
        let time = ledger.decided.get(&record.place).copied().or(next).unwrap_or(end);
        behind = Some((record.place, time));
        keyed.push(((time, source == Source::Partner.code(), record.place), record));
    }
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, record)| record).collect()
}

/// When a record was decided; those that left nothing never were.
fn decided_at(ledger: &Ledger, record: &Record) -> i64 {
    ledger.decided.get(&record.place).map_or(0, |at| at.micros())
}

/// What was said of a command when it was decided, and stays: why it was rejected, of which kind of money it is and
/// which accounts it is about.
#[derive(Debug, PartialEq)]
struct Said {
    reason: Option<Reason>,
    of_payment: Option<(bool, Option<[AccountId; 2]>)>,
}

fn said(
    id: Uuid,
    payments: &BTreeMap<PaymentId, naive_bank::Payment>,
    changes: &BTreeMap<Uuid, Option<Reason>>,
) -> Option<Said> {
    let payment = payments.get(&PaymentId::from_uuid(id));
    let payment = payment.map(|it| Said { reason: it.reason, of_payment: Some((it.livemode, it.accounts)) });
    payment.or_else(|| changes.get(&id).map(|reason| Said { reason: *reason, of_payment: None }))
}

/// Applies a record. What was rejected may have missed what another transaction was making: of such things as few as
/// possible are hidden, so that it comes out as in the ledger, or else none.
fn apply_as_seen(
    naive: &mut NaiveBank,
    record: &Record,
    ledger: &Ledger,
    born: &HashMap<Uuid, i64>,
    day: Day,
) -> Outcome {
    let (id, when) = (record.command.id(), When { at: record.accepted_at, day });
    let real = said(id, &ledger.payments, &ledger.changes);
    let young =
        |id: &Uuid| born.get(id).is_some_and(|at| decided_at(ledger, record) - at < AT_THE_SAME_TIME_US);
    let hideable: Vec<_> = match real.as_ref().and_then(|it| it.reason) {
        None => Vec::new(),
        Some(Reason::PaymentUnknown) => unseen_root(ledger, record).iter().map(PaymentId::uuid).collect(),
        // Where another reason comes first, it is the one that is told.
        Some(_) => named(&record.command).into_iter().filter(young).collect(),
    };
    if hideable.is_empty() {
        return naive.apply(&record.command, when);
    }
    let mut sets: Vec<u32> = (0..1 << hideable.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    for set in sets {
        let hidden = (0..).zip(&hideable).filter(|(bit, _)| set & 1 << bit != 0);
        let hidden: Vec<_> = hidden
            .map(|(_, id)| (MandateId::from_uuid(*id), AccountId::from_uuid(*id), PaymentId::from_uuid(*id)))
            .collect();
        let mut seen = naive.clone();
        for (mandate, account, payment) in &hidden {
            seen.mandates.remove(mandate);
            seen.accounts.remove(account);
            seen.payments.remove(payment);
        }
        let outcome = seen.apply(&record.command, when);
        if said(id, &seen.payments, &seen.changes) == real {
            for (mandate, account, payment) in hidden {
                seen.mandates.extend(naive.mandates.remove(&mandate).map(|it| (mandate, it)));
                seen.accounts.extend(naive.accounts.remove(&account).map(|it| (account, it)));
                seen.payments.extend(naive.payments.remove(&payment).map(|it| (payment, it)));
            }
            *naive = seen;
            return outcome;
        }
    }
    naive.apply(&record.command, when)
}

/// The mandates and accounts that a command names.
fn named(command: &Command) -> Vec<Uuid> {
    let (mandate, accounts) = match command {
        Command::Partner(envelope) => match &envelope.command {
            PartnerCommand::Payment(payment) => (Some(payment.mandate), vec![]),
            PartnerCommand::CancelMandate(terms) | PartnerCommand::ExpireMandate(terms) => {
                (Some(terms.mandate), vec![])
            }
            PartnerCommand::SandboxMandate(sandbox) => (Some(sandbox.terms.mandate), vec![sandbox.account]),
            PartnerCommand::Transfer(transfer) => (None, vec![transfer.from, transfer.to]),
            _ => (None, vec![]),
        },
        Command::Bank(envelope) => match &envelope.command {
            BankCommand::Deposit(command) | BankCommand::Withdrawal(command) => {
                (None, vec![command.account, bank_account_id(command.currency)])
            }
            BankCommand::Transfer(transfer) => (None, vec![transfer.from, transfer.to]),
            BankCommand::GrantMandate(grant) => (Some(grant.mandate), vec![grant.account]),
            BankCommand::RevokeMandate { mandate } => (Some(*mandate), vec![]),
            BankCommand::DeclineMandate { terms, .. } => (Some(terms.mandate), vec![]),
            BankCommand::FreezeAccount { account }
            | BankCommand::UnfreezeAccount { account }
            | BankCommand::CloseAccount { account }
            | BankCommand::SetSettlementAccount { account, .. } => (None, vec![*account]),
            BankCommand::SetLimits(limits) => (None, vec![limits.account]),
            _ => (None, vec![]),
        },
    };
    mandate.iter().map(MandateId::uuid).chain(accounts.iter().map(AccountId::uuid)).collect()
}

/// The root that a command was decided without, although it is there; see above.
fn unseen_root(ledger: &Ledger, record: &Record) -> Option<PaymentId> {
    let (id, root) = match &record.command {
        Command::Partner(envelope) => (envelope.id, envelope.root),
        Command::Bank(envelope) => match &envelope.command {
            BankCommand::Reversal(reversal) => (PaymentId::from_uuid(envelope.id), reversal.payment),
            _ => return None,
        },
    };
    let (place, of_root) = (ledger.places.get(&id)?, ledger.places.get(&root)?);
    let elsewhere = (place.0, place.1) != (of_root.0, of_root.1);
    let since = ledger.decided[place].micros() - ledger.decided[of_root].micros();
    (elsewhere && (0..AT_THE_SAME_TIME_US).contains(&since)).then_some(root)
}

fn compared(ledger: &Ledger, naive: &NaiveBank) -> Vec<String> {
    let mut differences = Vec::new();
    compare(&mut differences, "account", &ledger.accounts, &naive.accounts);
    compare(&mut differences, "settlement account", &ledger.settlement, &naive.settlement);
    compare(&mut differences, "mandate", &ledger.mandates, &naive.mandates);
    compare(&mut differences, "payment", &ledger.payments, &naive.payments);
    compare(&mut differences, "change", &ledger.changes, &naive.changes);
    for partner in ledger.events.keys().chain(naive.events.keys()).collect::<BTreeSet<_>>() {
        let log = |events: &BTreeMap<_, Vec<naive_bank::Event>>| {
            let log = events.get(partner).into_iter().flatten().cloned();
            (1..).zip(log).collect::<BTreeMap<u64, _>>()
        };
        compare(&mut differences, &format!("event of {partner}"), &log(&ledger.events), &log(&naive.events));
    }
    if ledger.follow_ups != naive.follow_ups {
        differences.push("follow-ups differ".to_owned());
    }
    differences
}

fn compare<K: Ord + Debug, V: PartialEq + Debug>(
    differences: &mut Vec<String>,
    what: &str,
    real: &BTreeMap<K, V>,
    naive: &BTreeMap<K, V>,
) {
    let keys: BTreeSet<&K> = real.keys().chain(naive.keys()).collect();
    for key in keys.into_iter().filter(|key| real.get(key) != naive.get(key)) {
        differences.push(format!(
            "{what} {key:?}:\n  real  {:?}\n  naive {:?}",
            real.get(key),
            naive.get(key)
        ));
    }
}
