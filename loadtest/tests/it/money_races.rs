//! Races: two commands that exclude each other, sent at once through two ingest processes and over Kafka to two
//! processors, many rounds in flight. Exactly one allowed outcome each, and the verifier finds nothing afterwards.
//!
//! `WIRED_RACE_ROUNDS` is how often each race is run. All rounds of all races are prepared together, and then all of
//! them are let go at once, each pair back to back in a random order; the two races with an expiry wait for theirs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Client, Error, PartRequest, PaymentRequest, TransferRequest};
use domain::account::{AccountStatus, Owner};
use domain::command::{
    BankCommand, BankTransfer, GrantMandate, Part, PartnerCommand, PartnerEnvelope, Reversal,
};
use domain::fingerprint::Fingerprint;
use domain::ids::{
    AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId, bank_owner, derived_uuid, expiry_id,
    payment_id,
};
use domain::money::{Amount, Currency};
use domain::payment::{PaymentStatus, Reason};
use domain::time::Timestamp;
use futures_util::StreamExt as _;
use loadtest::system::{Options, Servers, System};
use testkit::fixtures;
use testkit::naive_bank::Command;
use uuid::Uuid;

use crate::money_ledger::{Ledger, Writer, verify};

/// `WIRED_RACE_ROUNDS`: how often each race is run.
const ROUNDS: u64 = 200;
/// Rounds in flight at once.
const AT_ONCE: usize = 40;
/// Until when the funds of the races with an expiry are held: longer than it takes to prepare them.
const HOLD_S: u32 = 6;
const EUR: Currency = Currency::EUR;

const POSTED: (PaymentStatus, Option<Reason>) = (PaymentStatus::Posted, None);

/// What is raced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Race {
    TwoRefunds,
    CaptureVoid,
    CaptureExpire,
    RefundReversal,
    RevokePayment,
    CloseDeposit,
    CloseTransfer,
    DailyCap,
    TwoCaptures,
    VoidExpire,
    TransferBothWays,
}

impl Race {
    const ALL: [Self; 11] = [
        Self::TwoRefunds,
        Self::CaptureVoid,
        Self::CaptureExpire,
        Self::RefundReversal,
        Self::RevokePayment,
        Self::CloseDeposit,
        Self::CloseTransfer,
        Self::DailyCap,
        Self::TwoCaptures,
        Self::VoidExpire,
        Self::TransferBothWays,
    ];

    /// The race is about the end of a hold's time.
    const fn waits(self) -> bool {
        matches!(self, Self::CaptureExpire | Self::VoidExpire)
    }
}

/// One round of a race, with ids of its own.
#[derive(Debug, Clone, Copy)]
struct Round {
    race: Race,
    number: u64,
    partner: PartnerId,
    key: KeyId,
}

impl Round {
    fn id(&self, word: &str) -> Uuid {
        derived_uuid(&format!("race:{}:{:?}:{}:{word}", self.partner, self.race, self.number))
    }

    fn key_of(&self, word: &str) -> String {
        format!("{:?}-{}-{word}", self.race, self.number)
    }

    fn payment(&self, word: &str) -> PaymentId {
        payment_id(self.partner, &self.key_of(word))
    }

    fn account(&self) -> AccountId {
        AccountId::from_uuid(self.id("account"))
    }

    fn other_account(&self) -> AccountId {
        AccountId::from_uuid(self.id("other account"))
    }

    fn mandate(&self) -> MandateId {
        MandateId::from_uuid(self.id("mandate"))
    }

    fn bank(&self, word: &str, command: BankCommand) -> Command {
        let mut envelope = fixtures::bank(UserId::from_uuid(bank_owner()), command);
        envelope.id = self.id(word);
        Command::Bank(envelope)
    }

    /// Accounts with money, as far as the race needs them.
    fn accounts(&self) -> Vec<Command> {
        let customer = Owner::Customer(UserId::from_uuid(self.id("customer")));
        let owner = if self.race == Race::TransferBothWays { Owner::Partner(self.partner) } else { customer };
        let mut commands = vec![self.bank("open", fixtures::open_account(self.account(), owner, EUR))];
        if !matches!(self.race, Race::CloseDeposit | Race::CloseTransfer) {
            commands.push(self.bank("fund", fixtures::deposit(self.account(), 100, EUR)));
        }
        if matches!(self.race, Race::CloseTransfer | Race::TransferBothWays) {
            commands.push(self.bank("open other", fixtures::open_account(self.other_account(), owner, EUR)));
        }
        if self.race == Race::CloseTransfer {
            commands.push(self.bank("fund other", fixtures::deposit(self.other_account(), 100, EUR)));
        }
        commands
    }

    fn grant(&self) -> Command {
        let daily = (self.race == Race::DailyCap).then_some(100);
        let BankCommand::GrantMandate(grant) =
            fixtures::grant_mandate(self.mandate(), self.partner, self.account(), EUR)
        else {
            unreachable!("it is a grant")
        };
        self.bank("grant", BankCommand::GrantMandate(GrantMandate { daily_max_minor: daily, ..grant }))
    }

    /// The payment that is raced about.
    fn root(&self) -> Option<Command> {
        let expires_in_s = match self.race {
            Race::TwoRefunds | Race::RefundReversal => None,
            Race::CaptureVoid | Race::TwoCaptures => Some(86_400),
            Race::CaptureExpire | Race::VoidExpire => Some(HOLD_S),
            _ => return None,
        };
        let mut envelope =
            fixtures::payment(self.partner, self.key, &self.key_of("root"), self.mandate(), 100, EUR);
        if let PartnerCommand::Payment(payment) = &mut envelope.command {
            payment.expires_in_s = expires_in_s;
        }
        Some(Command::Partner(envelope))
    }

    /// What the sweeper asks for, from this test: the sweeper looks but once a second.
    fn expiry(&self) -> Command {
        let (root, id) = (self.payment("root"), expiry_id(self.payment("root")));
        let envelope =
            fixtures::payment(self.partner, self.key, &self.key_of("root"), self.mandate(), 100, EUR);
        Command::Partner(PartnerEnvelope {
            id,
            root,
            key: KeyId::from_uuid(bank_owner()),
            idempotency_key: "expire".to_owned(),
            fingerprint: Fingerprint::of(&[id.uuid().as_bytes()]),
            command: PartnerCommand::Expire,
            ..envelope
        })
    }
}

/// Where commands are sent.
struct Senders {
    banks: Vec<Client>,
    writer: Writer,
}

impl Senders {
    async fn run(&self, round: Round, expires_at: Option<Timestamp>) {
        let (first, second) = (&self.banks[0], &self.banks[1]);
        let root = round.payment("root");
        let amount = |minor| Amount::new(minor, EUR).unwrap();
        let sixty = PartRequest::of(amount(60));
        let everything = PartRequest::everything();
        let (one, other) = (round.key_of("one"), round.key_of("other"));
        let write = async |word: &str, command| self.writer.write(&round.bank(word, command)).await;
        // Whoever is asked first differs from round to round.
        let swap = round.number.is_multiple_of(2);
        let boundary = || until(expires_at.unwrap(), round.number);
        match round.race {
            Race::TwoRefunds => {
                let refund = async |bank: &Client, key: &str| {
                    accepted(bank.refund(root, &sixty, key, None).await);
                };
                both(swap, refund(first, &one), refund(second, &other)).await;
            }
            Race::CaptureVoid => {
                let capture = async { accepted(first.capture(root, &everything, &one, None).await) };
                let void = async { accepted(second.void(root, &other, None).await) };
                both(swap, capture, void).await;
            }
            Race::CaptureExpire => {
                boundary().await;
                let capture = async { accepted(first.capture(root, &everything, &one, None).await) };
                both(swap, capture, self.writer.write(&round.expiry())).await;
            }
            Race::VoidExpire => {
                boundary().await;
                let void = async { accepted(second.void(root, &one, None).await) };
                both(swap, void, self.writer.write(&round.expiry())).await;
            }
            Race::RefundReversal => {
                let refund = async { accepted(first.refund(root, &sixty, &one, None).await) };
                let part = Some(Part { amount_minor: 60, currency: EUR });
                let reversal = write("reversal", BankCommand::Reversal(Reversal { payment: root, part }));
                both(swap, refund, reversal).await;
            }
            Race::RevokePayment => {
                let request = PaymentRequest::new(round.mandate(), amount(60));
                let pay = async { accepted(first.pay(&request, &one, None).await) };
                both(swap, pay, write("revoke", BankCommand::RevokeMandate { mandate: round.mandate() }))
                    .await;
            }
            Race::CloseDeposit => {
                let close = write("close", BankCommand::CloseAccount { account: round.account() });
                both(swap, close, write("deposit", fixtures::deposit(round.account(), 10, EUR))).await;
            }
            Race::CloseTransfer => {
                let close = write("close", BankCommand::CloseAccount { account: round.account() });
                let transfer = BankTransfer {
                    from: round.other_account(),
                    to: round.account(),
                    amount_minor: 10,
                    currency: EUR,
                    description: None,
                };
                both(swap, close, write("deposit", BankCommand::Transfer(transfer))).await;
            }
            Race::DailyCap => {
                let request = PaymentRequest::new(round.mandate(), amount(60));
                let pay = async |bank: &Client, key: &str| accepted(bank.pay(&request, key, None).await);
                both(swap, pay(first, &one), pay(second, &other)).await;
            }
            Race::TwoCaptures => {
                let capture = async |bank: &Client, key: &str| {
                    accepted(bank.capture(root, &sixty, key, None).await);
                };
                both(swap, capture(first, &one), capture(second, &other)).await;
            }
            Race::TransferBothWays => {
                let (here, there) = (round.account(), round.other_account());
                let send = async |bank: &Client, from, to, key: &str| {
                    accepted(bank.transfer(&TransferRequest::new(from, to, amount(100)), key, None).await);
                };
                both(swap, send(first, here, there, &one), send(second, there, here, &other)).await;
            }
        }
    }
}

/// What a race may end as; `ledger` is read after everything.
fn check(ledger: &Ledger, round: &Round) -> Result<&'static str, String> {
    let one = || ledger.outcome(round.payment("one"));
    let other = || ledger.outcome(round.payment("other"));
    let of_bank = |word| ledger.outcome(PaymentId::from_uuid(round.id(word)));
    let change = |word| ledger.changes[&round.id(word)];
    let root = || ledger.payments[&round.payment("root")].clone();
    let account = &ledger.accounts[&round.account()];
    let rejected = |reason| (PaymentStatus::Rejected, Some(reason));
    let left = (account.balance, account.held());
    let outcome = match round.race {
        Race::TwoRefunds => match (one(), other()) {
            (POSTED, second) if second == rejected(Reason::AmountExceedsCaptured) => "first",
            (first, POSTED) if first == rejected(Reason::AmountExceedsCaptured) => "second",
            outcomes => return Err(format!("{outcomes:?}")),
        },
        Race::CaptureVoid => match (one(), other(), root().status, left) {
            (POSTED, void, PaymentStatus::Posted, (0, 0)) if void == rejected(Reason::PaymentNotVoidable) => {
                "capture"
            }
            (capture, POSTED, PaymentStatus::Voided, (100, 0))
                if capture == rejected(Reason::PaymentNotCapturable) =>
            {
                "void"
            }
            outcomes => return Err(format!("{outcomes:?}")),
        },
        Race::CaptureExpire => {
            let in_time = ledger.accepted[&round.payment("one")] <= root().expires_at.unwrap();
            match (in_time, one(), root().status, left) {
                (true, POSTED, PaymentStatus::Posted, (0, 0)) => "capture",
                (false, late, PaymentStatus::Expired, (100, 0))
                    if late == rejected(Reason::PaymentNotCapturable) =>
                {
                    "expire"
                }
                outcomes => return Err(format!("{outcomes:?}")),
            }
        }
        Race::VoidExpire => match (one(), root().status, left) {
            (POSTED, PaymentStatus::Voided, (100, 0)) => "void",
            (void, PaymentStatus::Expired, (100, 0)) if void == rejected(Reason::PaymentNotVoidable) => {
                "expire"
            }
            outcomes => return Err(format!("{outcomes:?}")),
        },
        Race::RefundReversal => match (one(), of_bank("reversal")) {
            (POSTED, reversal) if reversal == rejected(Reason::AmountExceedsCaptured) => "refund",
            (refund, POSTED) if refund == rejected(Reason::AmountExceedsCaptured) => "reversal",
            outcomes => return Err(format!("{outcomes:?}")),
        },
        Race::RevokePayment => {
            // The partner's own log says which came first.
            let before = ledger.told[&round.payment("one").uuid()] < ledger.told[&round.id("revoke")];
            match (before, one(), change("revoke")) {
                (true, POSTED, None) => "payment",
                (false, payment, None) if payment == rejected(Reason::MandateRevoked) => "revoke",
                outcomes => return Err(format!("{outcomes:?}")),
            }
        }
        Race::CloseDeposit | Race::CloseTransfer => {
            match (change("close"), of_bank("deposit"), account.status) {
                (Some(Reason::AccountNotEmpty), POSTED, AccountStatus::Active) => "deposit",
                (None, deposit, AccountStatus::Closed) if deposit == rejected(Reason::AccountClosed) => {
                    "close"
                }
                outcomes => return Err(format!("{outcomes:?}")),
            }
        }
        Race::DailyCap => match (one(), other()) {
            (POSTED, second) if second == rejected(Reason::DailyLimit) => "first",
            (first, POSTED) if first == rejected(Reason::DailyLimit) => "second",
            outcomes => return Err(format!("{outcomes:?}")),
        },
        Race::TwoCaptures => match (one(), other()) {
            (POSTED, second) if second == rejected(Reason::PaymentNotCapturable) => "first",
            (first, POSTED) if first == rejected(Reason::PaymentNotCapturable) => "second",
            outcomes => return Err(format!("{outcomes:?}")),
        },
        Race::TransferBothWays => match (one(), other(), left.0) {
            (POSTED, POSTED, 100) => "there first",
            (POSTED, back, 0) if back == rejected(Reason::InsufficientFunds) => "back first",
            outcomes => return Err(format!("{outcomes:?}")),
        },
    };
    let sums = match round.race {
        Race::TwoRefunds | Race::RefundReversal => (left.0, root().refunded, root().version) == (60, 60, 2),
        Race::DailyCap => left.0 == 40,
        Race::TwoCaptures => (left, root().captured, root().version) == ((40, 0), 60, 2),
        _ => true,
    };
    if sums { Ok(outcome) } else { Err(format!("{outcome}, and the sums are wrong: {left:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_exclude_each_other_exactly_one_is_carried_out() {
    let _turn = crate::turn().await;
    let rounds = crate::number("WIRED_RACE_ROUNDS").unwrap_or(ROUNDS);
    let options = Options { ingests: 2, processors: 2, notifiers: 0, customers: 1, ..Options::new("races") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let partner = &system.partners()[0];
    let banks =
        system.urls().iter().map(|url| partner.client(url, client::Options::default()).unwrap()).collect();
    let senders = Senders { banks, writer: Writer::new(&system) };
    let all: Vec<Round> = (0..rounds)
        .flat_map(|number| Race::ALL.map(|race| (number, race)))
        .map(|(number, race)| Round {
            race,
            number,
            partner: partner.id,
            key: partner.key_id.parse().unwrap(),
        })
        .collect();
    let settled =
        async || loadtest::faults::audit::applied(&system, crate::money_ledger::PATIENCE).await.unwrap();

    let accounts: Vec<_> = all.iter().flat_map(Round::accounts).collect();
    senders.writer.write_all(&accounts).await;
    settled().await;
    senders.writer.write_all(&all.iter().map(Round::grant).collect::<Vec<_>>()).await;
    settled().await;
    let roots = |waits| all.iter().filter(move |it| it.race.waits() == waits).filter_map(Round::root);
    senders.writer.write_all(&roots(false).collect::<Vec<_>>()).await;
    settled().await;
    let now = all.iter().filter(|round| !round.race.waits());
    futures_util::stream::iter(now).for_each_concurrent(AT_ONCE, |round| senders.run(*round, None)).await;
    settled().await;

    // Those that wait for their boundary all wait at once.
    senders.writer.write_all(&roots(true).collect::<Vec<_>>()).await;
    let ledger = Ledger::read(&system).await;
    let waiting = all.iter().filter(|round| round.race.waits()).map(|round| {
        let expires_at = ledger.payments[&round.payment("root")].expires_at;
        senders.run(*round, expires_at)
    });
    futures_util::future::join_all(waiting).await;

    // The sweeper ends what nobody ended.
    let held = "every hold is captured, voided or expired";
    let ended = testkit::wait_until(held, Duration::from_secs(30), async || {
        let open: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM holds").fetch_one(system.pool()).await.unwrap();
        (open == 0).then_some(())
    });
    ended.await;
    let ledger = Ledger::read(&system).await;
    let mut counts = std::collections::BTreeMap::new();
    let mut wrong = Vec::new();
    for round in &all {
        match check(&ledger, round) {
            Ok(outcome) => *counts.entry(format!("{:?}: {outcome}", round.race)).or_insert(0) += 1,
            Err(problem) => wrong.push(format!("{:?} {}: {problem}", round.race, round.number)),
        }
    }
    println!("{counts:#?}");
    assert!(wrong.is_empty(), "{} of {} rounds:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    verify(&system).await;
    system.finish().await.unwrap();
}

/// Both at once, one of them polled first.
async fn both(swap: bool, one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    if swap {
        futures_util::future::join(one, other).await;
    } else {
        futures_util::future::join(other, one).await;
    }
}

fn accepted(answer: Result<client::Accepted, Error>) {
    // What is rejected is accepted first: ingest decides nothing.
    answer.unwrap();
}

/// Waits until a few milliseconds around `time`, different for each round.
async fn until(time: Timestamp, number: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let early = 30_000 - (number * 7_919 % 50_000) as i64;
    tokio::time::sleep(Duration::from_micros((time.micros() - early - now).max(0) as u64)).await;
}
