//! How fast a backlog of every kind of partner command is drained, compared with plain payments, and what proof costs.
//!
//! The mix is what a shop with some returns asks for; follow-ups name roots of the same backlog and of earlier ones,
//! drawn evenly from those that are open, so that most roots are rows that were committed some batches ago:
//!
//! | of 100 commands | |
//! |---|---|
//! | 40 | payments at once |
//! | 15 | payments in two phases |
//! | 15 | ends of those: three captures, half of them of a part, for each void |
//! | 15 | refunds, half of them of a part |
//! | 15 | transfers between two accounts of the partner |
//!
//! No command is rejected: a refusal writes less than a posting. Rounds of the mix and of plain payments alternate.

use domain::command::{FollowUp, Part, PartnerCommand, PartnerEnvelope, PaymentCommand, TransferCommand};
use domain::ids::{PartnerId, PaymentId};
use domain::payment::Metadata;

use super::city::{CURRENCY, City, Credit, Mandate, QUICK_SIZE, SIZE, envelope, reference};
use super::drain::{self, Drained, median_of};
use super::{Config, proof};
use crate::driver::scatter;
use crate::report::{Goal, Report};
use crate::system::{Options, Servers, System};

/// Roots of each sort that are remembered.
const ROOTS_MAX: usize = 30_000;
/// How long a payment in two phases may wait for its capture: longer than the benchmark, so that none expires.
const HOLD_S: u32 = 7 * 86_400;

/// Measures and reports.
pub(super) async fn measure(servers: Servers, config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let options = Options { ingests: 0, notifiers: 0, customers: 1, ..Options::new("movements") };
    let system = System::start(servers, options).await?;
    let mut city = City::new(config.size(SIZE, QUICK_SIZE));
    city.build(system.pool(), system.kafka()).await?;
    city.build_reserves(system.pool(), system.kafka()).await?;
    let commands = config.size(20_000, 1_500);
    let mut roots = Roots::default();
    drain::drain(&system, roots.mix(&mut city, commands)).await?;
    drain::payments(&system, &mut city, commands / 2, Credit::Spread).await?;
    let (mut plain, mut mixed) = (Vec::new(), Vec::new());
    for _ in 0..config.rounds() {
        plain.push(drain::payments(&system, &mut city, commands, Credit::Spread).await?);
        mixed.push(drain::drain(&system, roots.mix(&mut city, commands)).await?);
    }
    let rate = |runs: &[Drained]| median_of(runs, |run| run.commands_per_second);
    let statements = |runs: &[Drained]| median_of(runs, |run| run.statements_per_command);
    let cpu = |runs: &[Drained]| median_of(runs, |run| run.processor_cpu_us);
    report.add("drain of every kind of command", rate(&mixed), "commands/s", Goal::None);
    report.add("drain of plain payments in turns with it", rate(&plain), "payments/s", Goal::None);
    report.add("every kind / plain payments", rate(&mixed) / rate(&plain), "", Goal::AtLeast(0.6));
    report.add("SQL statements per command of every kind", statements(&mixed), "", Goal::AtMost(0.1));
    report.add("SQL statements per plain payment", statements(&plain), "", Goal::None);
    report.add("CPU of the processor per command of every kind", cpu(&mixed), "us", Goal::None);
    proof::measure(&system, cpu(&plain), report).await?;
    system.finish().await
}

/// A payment that something can still happen to.
#[derive(Debug, Clone, Copy)]
struct Root {
    payment: PaymentId,
    partner: PartnerId,
}

/// The payments that follow-ups may name.
#[derive(Debug, Default)]
struct Roots {
    authorized: Vec<Root>,
    posted: Vec<Root>,
}

impl Roots {
    /// The next `count` commands.
    fn mix(&mut self, city: &mut City, count: usize) -> Vec<PartnerEnvelope> {
        let mut commands = Vec::with_capacity(count);
        for _ in 0..count {
            let number = city.number();
            // Which kind is asked for, whom it concerns and which root it names have nothing to do with each other.
            let [kind, whom, root] = [1_u64, 2, 3].map(|salt| scatter(number ^ salt << 56));
            commands.push(self.command(number, kind, &city.mandate(whom), root));
        }
        commands
    }

    fn command(&mut self, number: u64, kind: u64, mandate: &Mandate, draw: u64) -> PartnerEnvelope {
        match kind % 100 {
            0..15 => self.payment(number, mandate, draw, Some(HOLD_S)),
            // While there is no root yet, the payment that will be one.
            15..30 => match take(&mut self.authorized, draw) {
                Some(root) => self.end(number, root, draw),
                None => self.payment(number, mandate, draw, Some(HOLD_S)),
            },
            30..45 => match take(&mut self.posted, draw) {
                Some(root) => {
                    let is_partial = (draw >> 32).is_multiple_of(2);
                    follow_up(number, root, PartnerCommand::Refund(part(number, is_partial)))
                }
                None => self.payment(number, mandate, draw, None),
            },
            45..60 => transfer(number, mandate, amount(draw)),
            _ => self.payment(number, mandate, draw, None),
        }
    }

    fn payment(
        &mut self,
        number: u64,
        mandate: &Mandate,
        draw: u64,
        expires_in_s: Option<u32>,
    ) -> PartnerEnvelope {
        let command = PaymentCommand {
            mandate: mandate.id,
            amount_minor: amount(draw),
            currency: CURRENCY,
            expires_in_s,
            reference: Some(reference(number)),
            description: None,
            metadata: Metadata::new(),
        };
        let envelope = envelope(number, mandate.partner, None, PartnerCommand::Payment(command));
        let roots = if expires_in_s.is_some() { &mut self.authorized } else { &mut self.posted };
        remember(roots, Root { payment: envelope.id, partner: envelope.partner }, draw);
        envelope
    }

    fn end(&mut self, number: u64, root: Root, draw: u64) -> PartnerEnvelope {
        if (draw >> 34).is_multiple_of(4) {
            return follow_up(number, root, PartnerCommand::Void(part(number, false)));
        }
        remember(&mut self.posted, root, draw);
        follow_up(number, root, PartnerCommand::Capture(part(number, (draw >> 32).is_multiple_of(2))))
    }
}

/// Every amount can be captured and refunded in a part of 1.
fn amount(draw: u64) -> i64 {
    1 + (draw >> 40) as i64 % 100
}

fn take(roots: &mut Vec<Root>, draw: u64) -> Option<Root> {
    (!roots.is_empty()).then(|| roots.swap_remove((draw % roots.len() as u64) as usize))
}

/// Remembers a root, in the place of another one when there are enough.
fn remember(roots: &mut Vec<Root>, root: Root, draw: u64) {
    if roots.len() < ROOTS_MAX {
        roots.push(root);
    } else {
        roots[(draw % ROOTS_MAX as u64) as usize] = root;
    }
}

fn part(number: u64, is_partial: bool) -> FollowUp {
    FollowUp {
        part: is_partial.then_some(Part { amount_minor: 1, currency: CURRENCY }),
        reference: Some(reference(number)),
        description: None,
        metadata: Metadata::new(),
    }
}

fn follow_up(number: u64, root: Root, command: PartnerCommand) -> PartnerEnvelope {
    envelope(number, root.partner, Some(root.payment), command)
}

fn transfer(number: u64, mandate: &Mandate, amount_minor: i64) -> PartnerEnvelope {
    let command = TransferCommand {
        from: mandate.reserve(),
        to: mandate.credit,
        amount_minor,
        currency: CURRENCY,
        outward: false,
        reference: Some(reference(number)),
        description: None,
        metadata: Metadata::new(),
    };
    envelope(number, mandate.partner, None, PartnerCommand::Transfer(command))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn the_mix_has_its_shares_and_roots_are_open_and_earlier() {
        let (mut city, mut roots) = (City::new(QUICK_SIZE), Roots::default());
        let (mut kinds, mut status) = (BTreeMap::<_, usize>::new(), HashMap::new());
        let (mut ended, mut same_backlog) = (0, 0);
        for backlog in 0..3 {
            for envelope in roots.mix(&mut city, 10_000) {
                let known = status.get(&envelope.root).copied();
                let (kind, before, after) = match &envelope.command {
                    PartnerCommand::Payment(payment) if payment.expires_in_s.is_some() => {
                        ("manual", None, Some("authorized"))
                    }
                    PartnerCommand::Payment(_) => ("automatic", None, Some("posted")),
                    PartnerCommand::Transfer(_) => ("transfer", None, None),
                    PartnerCommand::Capture(_) => ("capture", Some("authorized"), Some("posted")),
                    PartnerCommand::Void(_) => ("void", Some("authorized"), None),
                    PartnerCommand::Refund(_) => ("refund", Some("posted"), None),
                    other => panic!("{other:?}"),
                };
                assert_eq!(known.map(|(status, _)| status), before, "{envelope:?}");
                PartnerEnvelope::decode(&envelope.encode()).unwrap();
                *kinds.entry(kind).or_default() += 1;
                if let Some((_, made)) = known {
                    ended += 1;
                    same_backlog += usize::from(made == backlog);
                }
                match after {
                    Some(after) => status.insert(envelope.root, (after, known.map_or(backlog, |it| it.1))),
                    None => status.remove(&envelope.root),
                };
            }
        }
        let share = |kind: &str| kinds[kind] as f64 / 300.0;
        for (kind, expected) in [
            ("automatic", 40.0),
            ("manual", 15.0),
            ("capture", 11.25),
            ("void", 3.75),
            ("refund", 15.0),
            ("transfer", 15.0),
        ] {
            assert!((share(kind) - expected).abs() < 1.0, "{kinds:?}");
        }
        // Of three backlogs, the first has only roots of its own.
        assert!(same_backlog > ended / 3 && same_backlog < ended, "{same_backlog} of {ended}");
    }
}
