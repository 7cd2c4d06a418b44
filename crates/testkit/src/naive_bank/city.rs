//! Random commands over a city so small that they meet: few accounts, few mandates, amounts around the limits, what
//! follows on payments of the same key, foreign roots, repeated and reused keys.
//!
//! A command is a function of the city, a generation and a seed, and of nothing before it, so that a stream can be
//! replayed from its seed and shrunk by leaving commands out. A generation has accounts, mandates and keys of its own:
//! a long stream begins anew every few hundred commands, before everything is closed, used up or revoked.

use domain::account::Owner;
use domain::command::{
    BankCommand, BankEnvelope, BankTransfer, Deposit, FollowUp, GrantMandate, MandateTerms, OpenAccount,
    Part, PartnerCommand, PartnerEnvelope, PaymentCommand, Reversal, SCHEMA, SandboxMandate, SandboxState,
    SetLimits, TransferCommand,
};
use domain::fingerprint::Fingerprint;
use domain::ids::{
    AccountId, KeyId, MandateId, PartnerId, PaymentId, UserId, bank_account_id, bank_owner, derived_uuid,
    expiry_id, mandate_end_id, payment_id,
};
use domain::mandate::MandateKind;
use domain::money::Currency;
use domain::payment::Metadata;
use domain::time::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

/// A command of either topic.
#[derive(Debug, Clone)]
pub enum Command {
    /// Of a partner.
    Partner(PartnerEnvelope),
    /// Of the bank.
    Bank(BankEnvelope),
}

/// Who and what commands are about.
#[derive(Debug, Clone)]
pub struct City {
    /// Makes the ids of one run its own.
    pub salt: u64,
    /// The partners, the first of them the busiest.
    pub partners: Vec<PartnerId>,
    /// Different keys of each kind in a generation: fewer make more repetitions and follow-ups.
    pub keys: u32,
    /// The instants at which mandates and requests end.
    pub ends: Vec<Timestamp>,
    /// For how many seconds funds are held.
    pub holds_s: Vec<u32>,
}

const EUR: Currency = Currency::EUR;
/// Customers' accounts of a generation; the last one is in another currency.
const CUSTOMERS: u32 = 5;
/// Mandates of a generation.
const MANDATES: u32 = 8;
/// Of so many commands one reuses a key for something else.
const REUSED: u32 = 12;

impl City {
    /// What a generation begins with: accounts, money, and mandates of the first two partners. Everything is opened by
    /// commands that may be refused later on.
    pub fn beginning(&self, generation: u32) -> Vec<Command> {
        let deposit = |account, amount_minor, currency| {
            BankCommand::Deposit(Deposit { account, amount_minor, currency, reference: None })
        };
        let mut commands = Vec::new();
        for currency in [EUR, Currency::USD] {
            commands.push(open(bank_account_id(currency), Owner::Bank, currency));
        }
        for number in 0..CUSTOMERS {
            let (account, currency) = (self.customer(generation, number), currency_of(number));
            commands.push(open(account, Owner::Customer(self.user()), currency));
            commands.push(deposit(account, 500, currency));
        }
        for index in 0..self.partners.len().min(3) {
            for number in 0..2 {
                let account = self.shop(generation, index, number);
                commands.push(open(account, Owner::Partner(self.partners[index]), EUR));
            }
        }
        for number in 0..MANDATES / 2 {
            let mut dice = self.dice(generation, "beginning", number);
            let partner = self.partners[usize::from(number == MANDATES / 2 - 1) % self.partners.len()];
            commands.push(BankCommand::GrantMandate(GrantMandate {
                partner,
                account: self.customer(generation, number / 2),
                expires_at: None,
                ..self.grant(generation, number, &mut dice)
            }));
        }
        let numbered = commands.into_iter().enumerate();
        let enveloped =
            numbered.map(|(number, command)| self.bank(generation, &format!("begin-{number}"), command));
        enveloped.collect()
    }

    /// A random command of a generation.
    pub fn command(&self, generation: u32, seed: u64) -> Command {
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        if dice.below(100) < 35 {
            self.bank_command(generation, dice)
        } else {
            self.partner_command(generation, dice)
        }
    }

    fn partner_command(&self, generation: u32, mut dice: Dice) -> Command {
        // The same key asks for the same again, but for the few that are reused.
        let reused = dice.below(REUSED) == 0;
        let is_root = dice.below(100) < 45;
        let (word, keys) = if is_root { ("root", self.keys) } else { ("follow-up", 2 * self.keys) };
        let number = dice.below(keys);
        let mut dice = if reused { dice } else { self.dice(generation, word, number) };
        let partner = self.partners
            [if dice.below(6) == 0 { dice.below(self.partners.len() as u32) as usize } else { 0 }];
        let key = format!("{}-{generation}-{word}-{number}", self.salt);
        let id = payment_id(partner, &key);
        if is_root {
            let command = match dice.below(10) {
                0..=4 => PartnerCommand::Payment(self.payment(generation, &mut dice, None)),
                5..=7 => {
                    let hold_s = *dice.pick(&self.holds_s);
                    PartnerCommand::Payment(self.payment(generation, &mut dice, Some(hold_s)))
                }
                _ => PartnerCommand::Transfer(self.transfer(generation, &mut dice)),
            };
            return Self::partner(partner, &key, id, id, command);
        }
        // Mostly two on one's own payment; now and then on another partner's, on another follow-up, or on nothing.
        let owner = if dice.below(15) == 0 { *dice.pick(&self.partners) } else { partner };
        let word = if dice.below(15) == 0 { "follow-up" } else { "root" };
        let target = if dice.below(8) == 0 { dice.below(self.keys) } else { number / 2 };
        let root = payment_id(owner, &format!("{}-{generation}-{word}-{target}", self.salt));
        let root = if root == id { payment_id(owner, "nothing") } else { root };
        let part = dice.below(3) > 0;
        let part = part.then(|| Part { amount_minor: dice.amount(), currency: dice.currency() });
        let follow_up = FollowUp { part, reference: None, description: None, metadata: Metadata::new() };
        match dice.below(20) {
            0..=5 => Self::partner(partner, &key, id, root, PartnerCommand::Capture(follow_up)),
            6..=7 => {
                let command = PartnerCommand::Void(FollowUp { part: None, ..follow_up });
                Self::partner(partner, &key, id, root, command)
            }
            8..=14 => Self::partner(partner, &key, id, root, PartnerCommand::Refund(follow_up)),
            15..=16 => Self::of_the_bank(partner, expiry_id(root), root, PartnerCommand::Expire),
            17 => {
                let terms = self.terms(generation, &mut dice);
                let end = mandate_end_id(partner, terms.mandate, "cancel");
                Self::partner(partner, &end.to_string(), end, end, PartnerCommand::CancelMandate(terms))
            }
            18 => {
                let terms = self.terms(generation, &mut dice);
                let end = mandate_end_id(partner, terms.mandate, "expire");
                Self::of_the_bank(partner, end, end, PartnerCommand::ExpireMandate(terms))
            }
            _ => {
                // Ingest keeps their keys apart from those of payments.
                let (partner, key) =
                    (*self.partners.last().unwrap_or(&partner), format!("sandbox mandate {key}"));
                let id = payment_id(partner, &key);
                let sandbox = SandboxMandate {
                    account: AccountId::from_uuid(self.id(generation, "sandbox", number % 4)),
                    balance_minor: *dice.pick(&[0, 50, 100]),
                    terms: self.terms(generation, &mut dice),
                    state: *dice.pick(SandboxState::ALL),
                };
                Self::partner(partner, &key, id, id, PartnerCommand::SandboxMandate(sandbox))
            }
        }
    }

    fn bank_command(&self, generation: u32, mut dice: Dice) -> Command {
        let number = dice.below(self.keys);
        let reused = dice.below(REUSED) == 0;
        let mut dice = if reused { dice } else { self.dice(generation, "bank", number) };
        let account = self.account(generation, &mut dice);
        let of_cash = Deposit {
            account,
            amount_minor: dice.amount(),
            currency: if account == self.customer(generation, CUSTOMERS - 1) {
                Currency::USD
            } else {
                dice.currency()
            },
            reference: None,
        };
        let command = match dice.below(30) {
            0..=4 => BankCommand::Deposit(of_cash),
            5..=7 => BankCommand::Withdrawal(of_cash),
            8..=10 => BankCommand::Transfer(BankTransfer {
                from: account,
                to: self.account(generation, &mut dice),
                amount_minor: dice.amount(),
                currency: dice.currency(),
                description: None,
            }),
            11..=14 => {
                let part = dice.below(2) == 0;
                BankCommand::Reversal(Reversal {
                    payment: self.reversible(generation, number, &mut dice),
                    part: part.then(|| Part { amount_minor: dice.amount(), currency: dice.currency() }),
                })
            }
            15..=17 => {
                let number = dice.below(MANDATES);
                BankCommand::GrantMandate(self.grant(generation, number, &mut dice))
            }
            18 => BankCommand::RevokeMandate { mandate: self.mandate(generation, dice.below(MANDATES)) },
            19 => BankCommand::DeclineMandate {
                partner: *dice.pick(&self.partners),
                terms: self.terms(generation, &mut dice),
            },
            20 => BankCommand::FreezeAccount { account },
            21..=22 => BankCommand::UnfreezeAccount { account },
            23..=24 => BankCommand::CloseAccount { account },
            25..=27 => BankCommand::SetLimits(SetLimits {
                account,
                overdraft_minor: *dice.pick(&[0, 0, 100, 500]),
                payment_max_minor: dice.limit(),
                daily_max_minor: dice.limit(),
            }),
            28 => BankCommand::SetSettlementAccount { partner: *dice.pick(&self.partners), account },
            _ => open(account, Owner::Partner(*dice.pick(&self.partners)), dice.currency()),
        };
        self.bank(generation, &number.to_string(), command)
    }

    fn payment(&self, generation: u32, dice: &mut Dice, expires_in_s: Option<u32>) -> PaymentCommand {
        PaymentCommand {
            mandate: self.any_mandate(generation, dice),
            amount_minor: dice.amount(),
            currency: dice.currency(),
            expires_in_s,
            reference: None,
            description: None,
            metadata: Metadata::new(),
        }
    }

    fn transfer(&self, generation: u32, dice: &mut Dice) -> TransferCommand {
        TransferCommand {
            from: self.shop(generation, 0, dice.below(2)),
            to: self.account(generation, dice),
            amount_minor: dice.amount(),
            currency: dice.currency(),
            outward: dice.below(2) == 0,
            reference: None,
            description: None,
            metadata: Metadata::new(),
        }
    }

    fn grant(&self, generation: u32, number: u32, dice: &mut Dice) -> GrantMandate {
        let account = dice.below(CUSTOMERS);
        GrantMandate {
            mandate: self.mandate(generation, number),
            partner: if dice.below(3) == 0 { *dice.pick(&self.partners) } else { self.partners[0] },
            account: self.customer(generation, account),
            kind: if dice.below(4) == 0 { MandateKind::Single } else { MandateKind::Standing },
            currency: if dice.below(12) == 0 { Currency::USD } else { currency_of(account) },
            payment_max_minor: dice.limit(),
            daily_max_minor: dice.limit(),
            expires_at: dice.end(&self.ends),
            reference: None,
        }
    }

    fn terms(&self, generation: u32, dice: &mut Dice) -> MandateTerms {
        MandateTerms {
            mandate: self.mandate(generation, dice.below(MANDATES + 4)),
            kind: MandateKind::Standing,
            currency: EUR,
            payment_max_minor: dice.limit(),
            daily_max_minor: dice.limit(),
            expires_at: dice.end(&self.ends),
            reference: None,
            answer_by: dice.end(&self.ends),
        }
    }

    /// What the bank may want to move back with its command of this number: a partner's payment, another of the bank's
    /// own, or nothing.
    fn reversible(&self, generation: u32, of: u32, dice: &mut Dice) -> PaymentId {
        let number = dice.below(self.keys);
        if dice.below(3) == 0 && number != of {
            return PaymentId::from_uuid(self.id(generation, "bank", number));
        }
        let word = if dice.below(8) == 0 { "follow-up" } else { "root" };
        payment_id(self.partners[0], &format!("{}-{generation}-{word}-{number}", self.salt))
    }

    /// Any account, and now and then none.
    fn account(&self, generation: u32, dice: &mut Dice) -> AccountId {
        match dice.below(20) {
            0..=10 => self.customer(generation, dice.below(CUSTOMERS + 1)),
            11..=17 => {
                let partner = dice.below(self.partners.len().min(3) as u32) as usize;
                self.shop(generation, partner, dice.below(3))
            }
            18 => AccountId::from_uuid(self.id(generation, "sandbox", dice.below(4))),
            _ => bank_account_id(EUR),
        }
    }

    fn customer(&self, generation: u32, number: u32) -> AccountId {
        AccountId::from_uuid(self.id(generation, "customer", number))
    }

    fn shop(&self, generation: u32, partner: usize, number: u32) -> AccountId {
        AccountId::from_uuid(self.id(generation, "shop", partner as u32 * 10 + number))
    }

    fn mandate(&self, generation: u32, number: u32) -> MandateId {
        MandateId::from_uuid(self.id(generation, "mandate", number))
    }

    /// Mostly one of those that a generation begins with.
    fn any_mandate(&self, generation: u32, dice: &mut Dice) -> MandateId {
        let among = match dice.below(8) {
            0 => MANDATES,
            1 => MANDATES / 2,
            _ => MANDATES / 2 - 1,
        };
        self.mandate(generation, dice.below(among))
    }

    fn user(&self) -> UserId {
        UserId::from_uuid(self.id(0, "user", 0))
    }

    fn id(&self, generation: u32, word: &str, number: u32) -> Uuid {
        derived_uuid(&format!("city:{}:{generation}:{word}:{number}", self.salt))
    }

    fn dice(&self, generation: u32, word: &str, number: u32) -> Dice {
        Dice(StdRng::seed_from_u64(self.id(generation, word, number).as_u128() as u64))
    }

    fn partner(
        partner: PartnerId,
        idempotency_key: &str,
        id: PaymentId,
        root: PaymentId,
        command: PartnerCommand,
    ) -> Command {
        Command::Partner(PartnerEnvelope {
            schema: SCHEMA,
            id,
            root,
            partner,
            key: KeyId::from_uuid(partner.uuid()),
            idempotency_key: idempotency_key.to_owned(),
            fingerprint: Fingerprint::of(&[root.uuid().as_bytes(), format!("{command:?}").as_bytes()]),
            request_id: id.uuid(),
            address: None,
            command,
        })
    }

    /// What the processor asks for by itself.
    fn of_the_bank(partner: PartnerId, id: PaymentId, root: PaymentId, command: PartnerCommand) -> Command {
        let Command::Partner(envelope) = Self::partner(partner, &id.to_string(), id, root, command) else {
            unreachable!("a partner's command is one")
        };
        Command::Partner(PartnerEnvelope {
            key: KeyId::from_uuid(bank_owner()),
            fingerprint: Fingerprint::of(&[id.uuid().as_bytes()]),
            ..envelope
        })
    }

    fn bank(&self, generation: u32, name: &str, command: BankCommand) -> Command {
        let id = match name.parse() {
            // An id is unique among payments and among changes, not among both, when two processors race.
            Ok(number) if !command.moves_money() => self.id(generation, "change", number),
            Ok(number) => self.id(generation, "bank", number),
            Err(_) => derived_uuid(&format!("city:{}:{generation}:{name}", self.salt)),
        };
        Command::Bank(BankEnvelope {
            schema: SCHEMA,
            id,
            actor: self.user(),
            reason: "random".to_owned(),
            request_id: id,
            address: None,
            command,
        })
    }
}

impl Command {
    /// Its id.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Partner(envelope) => envelope.id.uuid(),
            Self::Bank(envelope) => envelope.id,
        }
    }

    /// What it is keyed by on Kafka.
    pub fn kafka_key(&self) -> Uuid {
        match self {
            Self::Partner(envelope) => envelope.root.uuid(),
            Self::Bank(envelope) => envelope.command.kafka_key(),
        }
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Partner(envelope) => envelope.encode(),
            Self::Bank(envelope) => envelope.encode(),
        }
    }

    /// The word of what it asks for.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Partner(envelope) => envelope.command.word(),
            Self::Bank(envelope) => envelope.command.word(),
        }
    }
}

struct Dice(StdRng);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end)
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u32) as usize]
    }

    /// Amounts that add up to what accounts have and to what limits allow, and a few beside them.
    fn amount(&mut self) -> i64 {
        match self.below(4) {
            0 => i64::from(self.below(120)) + 1,
            _ => *self.pick(&[1, 10, 40, 50, 60, 99, 100, 101, 150]),
        }
    }

    fn limit(&mut self) -> Option<i64> {
        *self.pick(&[None, None, None, None, Some(0), Some(100), Some(150), Some(250)])
    }

    fn currency(&mut self) -> Currency {
        if self.below(25) == 0 { Currency::USD } else { EUR }
    }

    fn end(&mut self, ends: &[Timestamp]) -> Option<Timestamp> {
        if ends.is_empty() || self.below(3) > 0 { None } else { Some(*self.pick(ends)) }
    }
}

fn currency_of(customer: u32) -> Currency {
    if customer == CUSTOMERS - 1 { Currency::USD } else { EUR }
}

fn open(account: AccountId, owner: Owner, currency: Currency) -> BankCommand {
    BankCommand::OpenAccount(OpenAccount {
        account,
        owner,
        currency,
        overdraft_minor: 0,
        payment_max_minor: None,
        daily_max_minor: None,
    })
}
