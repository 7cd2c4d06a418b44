//! Every kind of command beside the plain payment, as the processor would record it.

use domain::{
    command::{MandateTerms, PartnerCommand, RejectDeadLetter, SandboxMandate, SandboxState, SetLimits},
    event::CreditView,
    ids::{expiry_id, mandate_end_id, sandbox_account_id, sandbox_owner, sandbox_settlement_id},
    money::decimal_text,
    topic::Source,
};

use super::*;

/// What later commands need to know of a payment.
#[derive(Clone)]
struct Root {
    view: PaymentView,
    accounts: [AccountId; 2],
    captured: i64,
    refunded: i64,
    partner: Option<PartnerId>,
}

const DAY_MICROS: i64 = 86_400_000_000;

impl Ledger {
    /// Goes on with every kind of command, each at least once posted and once rejected.
    pub(crate) async fn write_every_kind(&mut self) {
        let other = PartnerId::from_uuid(derived_uuid("other partner"));
        let theirs = AccountId::from_uuid(derived_uuid("their account"));
        self.open(theirs, Owner::Partner(other));
        let waiting = self.authorize("waiting", 700);
        self.refuse_follow_up(
            PaymentKind::Capture,
            "too much",
            Some(&waiting),
            Reason::AmountExceedsAuthorized,
        );
        let mut captured = self.authorize("captured", 900);
        self.capture("capture", &mut captured, 600);
        self.refund("refund 1", &mut captured, 100);
        self.refund("refund 2", &mut captured, 200);
        self.reversal("reversal", &mut captured, 50);
        self.refuse_follow_up(
            PaymentKind::Refund,
            "too late",
            Some(&captured),
            Reason::AmountExceedsCaptured,
        );
        self.refuse_follow_up(PaymentKind::Refund, "nobody's", None, Reason::PaymentUnknown);
        let mut voided = self.authorize("voided", 300);
        self.end_hold(Some("void"), &mut voided);
        let mut expired = self.authorize("expired", 400);
        self.end_hold(None, &mut expired);
        self.transfer(Some("to other"), [self.settlement, theirs], 250, Some(other));
        self.transfer(Some("to nobody"), [self.settlement, theirs], 0, None);
        self.transfer(None, [self.customer, theirs], 120, Some(other));
        self.withdrawal(self.customer, 80);
        self.limits();
        self.closed_account();
        self.ended_mandates();
        self.sandbox();
        self.dead_letters();
        self.commit().await;
    }

    /// Money held, captured, given back and released, and a dead letter redriven behind its position: each step in a
    /// transaction of its own, as a bank at work takes them.
    pub(crate) async fn move_money(&mut self, number: u64) {
        let key = |what: &str| format!("{what} {number}");
        let mut root = self.authorize(&key("live hold"), 3);
        self.commit().await;
        self.capture(&key("live capture"), &mut root, 2);
        self.commit().await;
        self.refund(&key("live refund"), &mut root, 1);
        self.commit().await;
        let mut root = self.authorize(&key("live void"), 3);
        self.commit().await;
        self.end_hold(Some(&key("live voided")), &mut root);
        self.commit().await;
        let (root, offset) = (payment_id(self.partner, &key("live letter")), self.offset(1));
        self.store_positions();
        let id = hex(root.uuid());
        self.queue(&format!(
            "INSERT INTO dead_letters VALUES (1, 0, {offset}, 1, {id}, {id}, 'data_error', '', NULL, '', NOW(), NOW(), NULL)"
        ));
        self.commit().await;
        self.enter_payment(&Self::paid(&key("live later"), self.standing, 1));
        self.commit().await;
        let command = BankCommand::RedriveDeadLetters { root: root.uuid() };
        self.change(&command, None, "");
        let change = hex(derived_uuid(&serde_json::to_string(&command).unwrap()));
        self.queue(&format!(
            "UPDATE dead_letters SET status = 2, change_id = {change} WHERE kafka_offset = {offset}"
        ));
        let at = self.tick();
        let mut view = Self::view(root, PaymentKind::Payment, PaymentStatus::Posted, 1, at);
        view.mandate = Some(self.standing);
        let posting = self.enter(root, [self.customer, self.settlement], 1, at);
        let asked =
            Asked { posting: Some(posting), key: Some(key("live letter")), offset: Some(offset), ..asked(1) };
        self.tell_payment(&view, EventType::PaymentPosted, asked);
        self.commit().await;
    }

    fn authorize(&mut self, key: &str, amount: i64) -> Root {
        let at = self.tick();
        let id = payment_id(self.partner, key);
        let mut view = Self::view(id, PaymentKind::Payment, PaymentStatus::Authorized, amount, at);
        view.mandate = Some(self.standing);
        view.expires_at = Some(at.plus_micros(DAY_MICROS));
        let accounts = [self.customer, self.settlement];
        let asked = Asked { accounts: Some(accounts), key: Some(key.to_owned()), ..asked(1) };
        self.tell_payment(&view, EventType::PaymentAuthorized, asked);
        let mut sql = Sql::new();
        sql.text("INSERT INTO holds VALUES (").uuid(self.customer.uuid()).text(",").uuid(id.uuid());
        sql.text(",0,").int(amount).text(",").opt_datetime(view.expires_at.map(Timestamp::civil)).text(")");
        self.queue(sql.as_str());
        self.hold(amount);
        Root { view, accounts, captured: 0, refunded: 0, partner: Some(self.partner) }
    }

    fn hold(&mut self, change: i64) {
        let customer = hex(self.customer.uuid());
        self.queue(&format!("UPDATE accounts SET held_minor = held_minor + {change} WHERE id = {customer}"));
    }

    fn release(&mut self, root: &Root) {
        let amount = minor(&root.view);
        self.queue(&format!("DELETE FROM holds WHERE payment_id = {}", hex(root.view.id.uuid())));
        self.hold(-amount);
    }

    /// Writes what has become of a root, and gives it.
    fn change_root(&mut self, root: &mut Root, status: PaymentStatus) {
        root.view.status = status;
        root.view.version += 1;
        let amount = minor(&root.view);
        root.view.amounts = Some(Amounts::of(EUR, amount, root.captured, root.refunded));
        let (id, version) = (hex(root.view.id.uuid()), root.view.version);
        let (status, captured, refunded) = (status.code(), root.captured, root.refunded);
        self.queue(&format!(
            "UPDATE payments SET status = {status}, version = {version}, captured_minor = {captured}, \
             refunded_minor = {refunded} WHERE id = {id}"
        ));
    }

    fn link(&mut self, view: &PaymentView) {
        self.queue(&format!(
            "INSERT INTO follow_ups VALUES ({}, {})",
            hex(view.root.uuid()),
            hex(view.id.uuid())
        ));
    }

    fn follow_up(&mut self, kind: PaymentKind, key: &str, root: &Root, amount: i64) -> PaymentView {
        let at = self.tick();
        let mut view = Self::view(payment_id(self.partner, key), kind, PaymentStatus::Posted, amount, at);
        view.root = root.view.id;
        self.link(&view);
        view
    }

    fn capture(&mut self, key: &str, root: &mut Root, amount: i64) {
        let view = self.follow_up(PaymentKind::Capture, key, root, amount);
        let posting = self.enter(view.id, root.accounts, amount, view.created_at);
        self.told(&view, Some(posting), EventType::CapturePosted, key);
        self.release(root);
        root.captured = amount;
        self.change_root(root, PaymentStatus::Posted);
    }

    fn refund(&mut self, key: &str, root: &mut Root, amount: i64) {
        let view = self.follow_up(PaymentKind::Refund, key, root, amount);
        let [debit, credit] = root.accounts;
        let posting = self.enter(view.id, [credit, debit], amount, view.created_at);
        self.told(&view, Some(posting), EventType::RefundPosted, key);
        root.refunded += amount;
        self.change_root(root, PaymentStatus::Posted);
    }

    fn reversal(&mut self, key: &str, root: &mut Root, amount: i64) {
        let view = self.follow_up(PaymentKind::Reversal, key, root, amount);
        let [debit, credit] = root.accounts;
        let posting = self.enter(view.id, [credit, debit], amount, view.created_at);
        root.refunded += amount;
        self.change_root(root, PaymentStatus::Posted);
        self.tells_root(
            &view,
            EventType::PaymentReversed,
            root,
            Asked { posting: Some(posting), ..asked(2) },
        );
    }

    fn end_hold(&mut self, key: Option<&str>, root: &mut Root) {
        let amount = minor(&root.view);
        let (kind, status, event_type) = match key {
            Some(_) => (PaymentKind::Void, PaymentStatus::Voided, EventType::PaymentVoided),
            None => (PaymentKind::Expire, PaymentStatus::Expired, EventType::PaymentExpired),
        };
        let mut at = self.tick();
        let id = if let Some(key) = key {
            payment_id(self.partner, key)
        } else {
            at = at.plus_micros(2 * DAY_MICROS);
            expiry_id(root.view.id)
        };
        let mut view = Self::view(id, kind, PaymentStatus::Posted, amount, at);
        view.root = root.view.id;
        view.amounts = Some(Amounts::of(EUR, amount, 0, 0));
        self.link(&view);
        self.release(root);
        self.change_root(root, status);
        let key = Some(key.unwrap_or("expire").to_owned());
        self.tells_root(&view, event_type, root, Asked { key, ..asked(1) });
    }

    fn tells_root(&mut self, view: &PaymentView, event_type: EventType, root: &Root, asked: Asked) {
        let data = format!(r#"{{"payment":{}}}"#, serde_json::to_string(&root.view).unwrap());
        let sequence = self.tell(event_type, view.created_at, &data);
        self.payment_row(view, Asked { sequence: Some(sequence), partner: root.partner, ..asked });
    }

    fn refuse_follow_up(&mut self, kind: PaymentKind, key: &str, root: Option<&Root>, reason: Reason) {
        let at = self.tick();
        let mut view = Self::view(payment_id(self.partner, key), kind, PaymentStatus::Rejected, 5_000, at);
        view.reason = Some(reason);
        view.root = root.map_or_else(|| PaymentId::from_uuid(derived_uuid("nobody's")), |root| root.view.id);
        match root {
            Some(_) => self.link(&view),
            None => view.amounts = None,
        }
        let event_type = match kind {
            PaymentKind::Capture => EventType::CaptureRejected,
            _ => EventType::RefundRejected,
        };
        self.told(&view, None, event_type, key);
    }

    /// A transfer of the partner under a key, or of the bank; of nothing when it is to be refused.
    fn transfer(&mut self, key: Option<&str>, accounts: [AccountId; 2], amount: i64, to: Option<PartnerId>) {
        let at = self.tick();
        let id = match key {
            Some(key) => payment_id(self.partner, key),
            None => PaymentId::from_uuid(derived_uuid("bank transfer")),
        };
        let status = if amount > 0 { PaymentStatus::Posted } else { PaymentStatus::Rejected };
        let mut view = Self::view(id, PaymentKind::Transfer, status, amount.max(1), at);
        (view.from, view.to) = (Some(accounts[0]), Some(accounts[1]));
        let source = if key.is_some() { 1 } else { 2 };
        let mut row = Asked { accounts: Some(accounts), key: key.map(str::to_owned), ..asked(source) };
        if amount > 0 {
            row.posting = Some(self.enter(id, accounts, amount, at));
        } else {
            view.reason = Some(Reason::TransferOutForbidden);
        }
        if let Some(to) = to {
            row.told = Some((to, self.tell_credit(to, accounts[1], &view)));
        }
        match key {
            Some(_) if amount > 0 => self.tell_payment(&view, EventType::TransferPosted, row),
            Some(_) => self.tell_payment(&view, EventType::TransferRejected, row),
            None => self.payment_row(&view, row),
        }
    }

    fn tell_credit(&mut self, partner: PartnerId, account: AccountId, view: &PaymentView) -> u64 {
        let credit = CreditView {
            id: account,
            amount: decimal_text(minor(view), EUR),
            currency: EUR,
            balance: decimal_text(self.accounts[&account].balance, EUR),
            // A transfer's reference is its sender's own.
            reference: match view.kind {
                PaymentKind::Transfer => view.description.clone(),
                _ => view.reference.clone(),
            },
        };
        let data = format!(r#"{{"account":{}}}"#, serde_json::to_string(&credit).unwrap());
        self.tell_to(partner, EventType::AccountCredited, view.created_at, &data)
    }

    fn withdrawal(&mut self, account: AccountId, amount: i64) {
        let at = self.tick();
        let id = PaymentId::from_uuid(derived_uuid("withdrawal"));
        let posting = self.enter(id, [account, bank_account_id(EUR)], amount, at);
        let view = Self::view(id, PaymentKind::Withdrawal, PaymentStatus::Posted, amount, at);
        self.payment_row(&view, Asked { posting: Some(posting), ..asked(2) });
    }

    /// An overdraft that was used and taken back again.
    fn limits(&mut self) {
        let account = AccountId::from_uuid(derived_uuid("overdrawn once"));
        self.open(account, Owner::Customer(UserId::from_uuid(derived_uuid("user"))));
        for (number, overdraft_minor) in [(0_i64, 500), (1, 0)] {
            let set = SetLimits { account, overdraft_minor, payment_max_minor: None, daily_max_minor: None };
            self.change(&BankCommand::SetLimits(set), None, "");
            let overdraft = format!(
                "UPDATE accounts SET overdraft_minor = {overdraft_minor} WHERE id = {}",
                hex(account.uuid())
            );
            self.queue(&overdraft);
            let accounts = if number == 0 { [account, self.customer] } else { continue };
            for (name, accounts) in [("down", accounts), ("up", [self.customer, account])] {
                let at = self.tick();
                let id = PaymentId::from_uuid(derived_uuid(name));
                let mut view = Self::view(id, PaymentKind::Transfer, PaymentStatus::Posted, 400, at);
                (view.from, view.to) = (Some(accounts[0]), Some(accounts[1]));
                let posting = self.enter(id, accounts, 400, at);
                self.payment_row(&view, Asked { posting: Some(posting), ..asked(2) });
            }
        }
    }

    fn closed_account(&mut self) {
        let account = AccountId::from_uuid(derived_uuid("closed"));
        self.open(account, Owner::Customer(UserId::from_uuid(derived_uuid("user"))));
        self.change(&BankCommand::CloseAccount { account }, None, "");
        self.queue(&format!("UPDATE accounts SET status = 3 WHERE id = {}", hex(account.uuid())));
    }

    fn terms(name: &str) -> MandateTerms {
        MandateTerms {
            mandate: MandateId::from_uuid(derived_uuid(name)),
            kind: MandateKind::Standing,
            currency: EUR,
            payment_max_minor: Some(1_000),
            daily_max_minor: None,
            expires_at: None,
            reference: None,
            answer_by: None,
        }
    }

    fn mandate_data(terms: &MandateTerms, status: MandateStatus) -> String {
        let view = MandateView {
            id: terms.mandate,
            kind: terms.kind,
            status,
            currency: EUR,
            per_payment_max: Some("10.00".to_owned()),
            daily_cap: None,
            expires_at: None,
            reference: None,
        };
        format!(r#"{{"mandate":{}}}"#, serde_json::to_string(&view).unwrap())
    }

    fn mandate_row(
        &mut self,
        terms: &MandateTerms,
        account: Option<AccountId>,
        status: MandateStatus,
        at: Timestamp,
    ) {
        let mut sql = Sql::new();
        sql.text("INSERT INTO mandates VALUES (").uuid(terms.mandate.uuid()).text(",");
        sql.uuid(self.partner.uuid()).text(",").opt_uuid(account.map(|it| it.uuid())).text(",");
        sql.int(terms.kind.code()).text(",").int(status.code()).text(",1,'EUR',1000,NULL,0,0,NULL,NULL,");
        sql.datetime(at.civil()).text(")");
        self.queue(sql.as_str());
    }

    fn partner_change(
        &mut self,
        command: &PartnerCommand,
        id: Uuid,
        target: Uuid,
        (event_type, data): (EventType, &str),
    ) -> Timestamp {
        let at = self.tick();
        let sequence = self.tell(event_type, at, data);
        let text = serde_json::to_string(command).unwrap();
        let fingerprint = Fingerprint::of(&[b"as the processor got it"]);
        self.change_row(1, id, (command.word(), target), Some(sequence), &fingerprint, &text, at, None);
        at
    }

    fn ended_mandates(&mut self) {
        let terms = Self::terms("declined");
        let decline = BankCommand::DeclineMandate { partner: self.partner, terms: terms.clone() };
        let data = Self::mandate_data(&terms, MandateStatus::Declined);
        let at = self.change(&decline, Some(EventType::MandateDeclined), &data);
        self.mandate_row(&terms, None, MandateStatus::Declined, at);

        let terms = Self::terms("cancelled");
        let data = Self::mandate_data(&terms, MandateStatus::Revoked);
        let (id, target) =
            (mandate_end_id(self.partner, terms.mandate, "cancel").uuid(), terms.mandate.uuid());
        let command = PartnerCommand::CancelMandate(terms.clone());
        let at = self.partner_change(&command, id, target, (EventType::MandateRevoked, &data));
        self.mandate_row(&terms, None, MandateStatus::Revoked, at);

        let terms = Self::terms("expired");
        let data = Self::mandate_data(&terms, MandateStatus::Expired);
        let (id, target) =
            (mandate_end_id(self.partner, terms.mandate, "expire").uuid(), terms.mandate.uuid());
        let command = PartnerCommand::ExpireMandate(terms.clone());
        let at = self.partner_change(&command, id, target, (EventType::MandateExpired, &data));
        self.mandate_row(&terms, None, MandateStatus::Expired, at);
    }

    fn sandbox(&mut self) {
        let account = AccountId::from_uuid(derived_uuid("test account"));
        let terms = Self::terms("test mandate");
        let id = payment_id(self.partner, "sandbox");
        let at = self.tick();
        self.test_money = true;
        let settlement = sandbox_settlement_id(PartnerId::from_uuid(derived_uuid("tester")), EUR);
        self.account_row(sandbox_account_id(EUR), Owner::Bank, at);
        self.account_row(settlement, Owner::Partner(PartnerId::from_uuid(derived_uuid("tester"))), at);
        self.account_row(account, Owner::Customer(sandbox_owner()), at);
        self.test_money = false;
        let posting = self.enter(id, [sandbox_account_id(EUR), account], 5_000, at);
        let view = Self::view(id, PaymentKind::Deposit, PaymentStatus::Posted, 5_000, at);
        let offset = self.offsets[0];
        let key = Some("sandbox".to_owned());
        self.payment_row(&view, Asked { posting: Some(posting), key, offset: Some(offset), ..asked(1) });
        let data = Self::mandate_data(&terms, MandateStatus::Used);
        let command = PartnerCommand::SandboxMandate(SandboxMandate {
            account,
            balance_minor: 5_000,
            terms: terms.clone(),
            state: SandboxState::Used,
        });
        let at =
            self.partner_change(&command, id.uuid(), terms.mandate.uuid(), (EventType::MandateActive, &data));
        self.mandate_row(&terms, Some(account), MandateStatus::Used, at);
    }

    /// One that was redriven, one that was rejected, one that is open.
    fn dead_letters(&mut self) {
        for (key, status) in [("redriven", 2), ("rejected", 3), ("open", 1)] {
            let root = payment_id(self.partner, key);
            let offset = self.offset(1);
            self.store_positions();
            let command = match status {
                2 => Some(BankCommand::RedriveDeadLetters { root: root.uuid() }),
                3 => Some(BankCommand::RejectDeadLetter(RejectDeadLetter {
                    source: Source::Partner,
                    partition: 0,
                    offset: offset as i64,
                    root: Some(root.uuid()),
                })),
                _ => None,
            };
            let change = command.map(|command| {
                self.change(&command, None, "");
                derived_uuid(&serde_json::to_string(&command).unwrap())
            });
            let mut sql = Sql::new();
            sql.text("INSERT INTO dead_letters VALUES (1,0,").int(offset).text(",").int(status).text(",");
            sql.uuid(root.uuid()).text(",").uuid(root.uuid()).text(",'data_error','',NULL,'',NOW(),NOW(),");
            sql.opt_uuid(change).text(")");
            self.queue(sql.as_str());
            let at = self.tick();
            let asked = Asked { offset: Some(offset), ..asked(1) };
            match status {
                2 => {
                    let mut view = Self::view(root, PaymentKind::Payment, PaymentStatus::Posted, 60, at);
                    view.mandate = Some(self.standing);
                    let posting = self.enter(root, [self.customer, self.settlement], 60, at);
                    let asked = Asked { posting: Some(posting), key: Some(key.to_owned()), ..asked };
                    self.tell_payment(&view, EventType::PaymentPosted, asked);
                }
                3 => {
                    let mut view = Self::view(root, PaymentKind::Payment, PaymentStatus::Rejected, 70, at);
                    (view.reason, view.reference) = (Some(Reason::ProcessingFailed), None);
                    view.mandate = Some(self.standing);
                    self.tell_payment(&view, EventType::PaymentRejected, asked);
                }
                _ => {}
            }
        }
    }
}

fn minor(view: &PaymentView) -> i64 {
    view.amounts.as_ref().unwrap().amount.replace('.', "").parse().unwrap()
}
