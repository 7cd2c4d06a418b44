//! Who may call what: one table, compared with the document route by route, and walked with every role, an own and a
//! foreign id. A route without a row fails; so does a row without a route.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::fixtures;

use crate::customers::request;
use crate::harness::{Bank, Client, Somebody};
use crate::partners::Things;
use crate::teller::{mandate_row, rows_of, user};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    /// Staff without a second factor.
    Halfway,
    Customer,
    Operator,
    Auditor,
    Admin,
}

const EVERYBODY: [Who; 6] =
    [Who::Nobody, Who::Halfway, Who::Customer, Who::Operator, Who::Auditor, Who::Admin];

/// Who may. The rest of the answers follows: no token is 401, another role 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Without a token.
    Anybody,
    /// Every live session.
    LoggedIn,
    /// Staff, also halfway.
    Enrolling,
    /// Every role, not halfway.
    Person,
    Customer,
    /// Operators, auditors, admins.
    Reader,
    /// Auditors, admins.
    Auditor,
    /// Operators, admins.
    Operator,
    Admin,
}

impl May {
    /// `None`: let in; otherwise status and code of the refusal.
    fn refusal(self, who: Who) -> Option<(u16, &'static str)> {
        const ROLE: Option<(u16, &str)> = Some((403, "role_missing"));
        const HALFWAY: Option<(u16, &str)> = Some((403, "second_factor_missing"));
        match (self, who) {
            (_, Who::Nobody) if self != Self::Anybody => Some((401, "token_missing")),
            // Halfway are operators here.
            (Self::Enrolling | Self::Reader | Self::Operator, Who::Customer)
            | (Self::Operator, Who::Auditor)
            | (Self::Auditor, Who::Halfway | Who::Customer | Who::Operator) => ROLE,
            (Self::Admin, who) if who != Who::Admin => ROLE,
            (Self::Customer, who) if who != Who::Customer => ROLE,
            (Self::Person | Self::Reader | Self::Operator, Who::Halfway) => HALFWAY,
            _ => None,
        }
    }
}

/// Method, path, who may.
const MATRIX: &[(&str, &str, May)] = &[
    ("post", "/v1/auth/registrations", May::Anybody),
    ("post", "/v1/auth/password-resets", May::Anybody),
    ("post", "/v1/auth/passwords", May::Anybody),
    ("post", "/v1/auth/login", May::Anybody),
    ("post", "/v1/auth/refresh", May::Anybody),
    ("post", "/v1/auth/logout", May::LoggedIn),
    ("post", "/v1/auth/logout-everywhere", May::LoggedIn),
    ("post", "/v1/auth/step-up", May::LoggedIn),
    ("get", "/v1/me", May::LoggedIn),
    ("patch", "/v1/me", May::Person),
    ("delete", "/v1/me", May::Customer),
    ("post", "/v1/me/password", May::Person),
    ("post", "/v1/me/exports", May::Person),
    ("post", "/v1/auth/email-confirmations", May::Anybody),
    ("post", "/v1/me/email", May::Person),
    ("get", "/v1/me/accounts", May::Customer),
    ("get", "/v1/me/accounts/{id}", May::Customer),
    ("get", "/v1/me/accounts/{id}/balance", May::Customer),
    ("get", "/v1/me/accounts/{id}/entries", May::Customer),
    ("get", "/v1/me/accounts/{id}/statement.csv", May::Customer),
    ("get", "/v1/me/mandates", May::Customer),
    ("get", "/v1/me/mandates/{id}", May::Customer),
    ("post", "/v1/me/accounts", May::Customer),
    ("post", "/v1/me/transfers", May::Customer),
    ("get", "/v1/me/mandate-requests/{id}", May::Customer),
    ("post", "/v1/me/mandate-requests/{id}/grant", May::Customer),
    ("post", "/v1/me/mandate-requests/{id}/decline", May::Customer),
    ("post", "/v1/me/mandates/{id}/revoke", May::Customer),
    ("get", "/v1/accounts", May::Reader),
    ("get", "/v1/accounts/{id}", May::Reader),
    ("get", "/v1/accounts/{id}/balance", May::Reader),
    ("get", "/v1/accounts/{id}/entries", May::Reader),
    ("get", "/v1/accounts/{id}/statement.csv", May::Reader),
    ("get", "/v1/accounts/{id}/mandates", May::Reader),
    ("get", "/v1/mandates/{id}", May::Reader),
    ("get", "/v1/me/sessions", May::LoggedIn),
    ("delete", "/v1/me/sessions/{id}", May::LoggedIn),
    ("post", "/v1/me/second-factor", May::Enrolling),
    ("delete", "/v1/me/second-factor", May::Reader),
    ("post", "/v1/me/second-factor/confirmation", May::Enrolling),
    ("post", "/v1/me/recovery-codes", May::Reader),
    ("get", "/v1/users", May::Reader),
    ("get", "/v1/users/{id}", May::Reader),
    ("post", "/v1/users/{id}/personal-data", May::Reader),
    // Payments, their traces, figures and the system.
    ("get", "/v1/payments", May::Reader),
    ("get", "/v1/payments/{id}", May::Reader),
    ("get", "/v1/payments/{id}/trace", May::Reader),
    ("get", "/v1/trace", May::Reader),
    ("get", "/v1/analytics/volume", May::Reader),
    ("get", "/v1/analytics/outcomes", May::Reader),
    ("get", "/v1/analytics/latency", May::Reader),
    ("get", "/v1/analytics/top-partners", May::Reader),
    ("get", "/v1/analytics/active-users", May::Reader),
    ("get", "/v1/analytics/api-calls", May::Reader),
    ("get", "/v1/analytics/deliveries", May::Reader),
    ("get", "/v1/reconciliation", May::Reader),
    ("get", "/v1/system", May::Reader),
    // Audit
    ("get", "/v1/audit", May::Auditor),
    ("get", "/v1/audit/export.csv", May::Auditor),
    ("get", "/v1/audit/export.ndjson", May::Auditor),
    ("post", "/v1/audit/verify", May::Auditor),
    ("get", "/v1/audit/verify", May::Auditor),
    ("post", "/v1/accounts", May::Operator),
    ("post", "/v1/accounts/{id}/freeze", May::Operator),
    ("post", "/v1/accounts/{id}/unfreeze", May::Operator),
    ("post", "/v1/accounts/{id}/close", May::Operator),
    ("post", "/v1/accounts/{id}/limits", May::Operator),
    ("post", "/v1/deposits", May::Operator),
    ("post", "/v1/withdrawals", May::Operator),
    ("post", "/v1/transfers", May::Operator),
    ("post", "/v1/reversals", May::Operator),
    ("get", "/v1/commands/{id}", May::Person),
    ("get", "/v1/approvals", May::Reader),
    ("get", "/v1/approvals/{id}", May::Reader),
    ("post", "/v1/approvals/{id}/approve", May::Operator),
    ("post", "/v1/approvals/{id}/reject", May::Operator),
    ("post", "/v1/approvals/{id}/cancel", May::Operator),
    ("get", "/v1/dead-letters", May::Reader),
    ("get", "/v1/dead-letters/{id}", May::Reader),
    ("post", "/v1/dead-letters/{id}/redrive", May::Operator),
    ("post", "/v1/dead-letters/{id}/reject", May::Operator),
    ("post", "/v1/users/invitations", May::Admin),
    ("post", "/v1/users/{id}/role", May::Admin),
    ("post", "/v1/users/{id}/disabling", May::Admin),
    ("post", "/v1/users/{id}/enabling", May::Admin),
    ("post", "/v1/users/{id}/erasure", May::Admin),
    ("get", "/v1/partners", May::Reader),
    ("post", "/v1/partners", May::Operator),
    ("get", "/v1/partners/{id}", May::Reader),
    ("patch", "/v1/partners/{id}", May::Admin),
    ("post", "/v1/partners/{id}/contact", May::Reader),
    ("post", "/v1/partners/{id}/activation", May::Admin),
    ("post", "/v1/partners/{id}/suspension", May::Admin),
    ("get", "/v1/partners/{id}/keys", May::Reader),
    ("post", "/v1/partners/{id}/keys", May::Admin),
    ("post", "/v1/partners/{id}/keys/{key}/secret", May::Admin),
    ("post", "/v1/partners/{id}/keys/{key}/revocation", May::Admin),
    ("get", "/v1/partners/{id}/return-urls", May::Reader),
    ("post", "/v1/partners/{id}/return-urls", May::Operator),
    ("post", "/v1/partners/{id}/return-urls/removals", May::Operator),
    ("get", "/v1/partners/{id}/settlement-accounts", May::Reader),
    ("post", "/v1/partners/{id}/settlement-accounts", May::Operator),
    ("get", "/v1/partners/{id}/endpoints", May::Reader),
    ("post", "/v1/partners/{id}/endpoints/{endpoint}/enabling", May::Operator),
    ("get", "/v1/partners/{id}/endpoints/{endpoint}/deliveries", May::Reader),
    ("get", "/v1/partners/{id}/endpoints/{endpoint}/deliveries/{event}", May::Reader),
    ("post", "/v1/partners/{id}/endpoints/{endpoint}/deliveries/{event}/resend", May::Operator),
    ("get", "/v1/partner-applications", May::Reader),
    ("get", "/v1/partner-applications/{id}", May::Reader),
    ("post", "/v1/partner-applications/{id}/contact", May::Reader),
    ("post", "/v1/partner-applications/{id}/approval", May::Admin),
    ("post", "/v1/partner-applications/{id}/decline", May::Admin),
    ("get", "/v1/health", May::Anybody),
    ("get", "/v1/openapi.json", May::Anybody),
    ("get", "/.well-known/jwks.json", May::Anybody),
    ("get", "/v1/checkpoints/{number}", May::Anybody),
    ("get", "/problems/{code}", May::Anybody),
];

/// Whether a body is needed for more than being let in: an empty one is 400, which is no refusal.
fn body(path: &str, world: &World) -> Option<Value> {
    let World { digest, own_account, .. } = world;
    let mut body = json!({"reason": "walking the matrix"});
    match path {
        path if path.ends_with("/grant") => body = json!({ "account": own_account }),
        path if path.ends_with("/role") => body["role"] = json!("auditor"),
        path if path.ends_with("/keys") => body["scopes"] = json!(["payments"]),
        path if path.contains("/return-urls") => body["url"] = json!("https://walk.example/"),
        path if path.ends_with("/limits") => body["overdraft"] = json!("0.00"),
        path if path.ends_with("/approve") => body["digest"] = digest.clone(),
        path if path.ends_with("/settlement-accounts") => body["account"] = json!(world.partner.account),
        path if path.contains("{id}") && !path.contains("/sessions/") => {}
        _ => return None,
    }
    Some(body)
}

/// What the walk finds: an account, a command on it by staff, what always has the same digest, and a dead letter.
struct World {
    account: String,
    /// Of who walks.
    own_account: String,
    command: String,
    digest: Value,
    asker: Somebody,
    partner: Things,
}

impl World {
    async fn new(bank: &Bank) -> Self {
        let asker = bank.staff("asker@example.com", 2).await;
        let account = fixtures::account_id();
        sqlx::query(
            "INSERT INTO accounts (id, owner_kind, owner_id, currency, status, balance_minor, held_minor, overdraft_minor, \
             spent_day, spent_minor, version, head, entered_at) \
             VALUES (?, 1, ?, 'EUR', 1, 0, 0, 0, 0, 0, 0, UNHEX(REPEAT('00', 32)), UTC_TIMESTAMP(6))",
        )
        .bind(account.uuid().as_bytes().to_vec())
        .bind(uuid::Uuid::now_v7().as_bytes().to_vec())
        .execute(bank.env.pool())
        .await
        .unwrap();
        bank.sql(
            "INSERT INTO dead_letters (source, kafka_partition, kafka_offset, status, root_id, reason, detail, record_value, \
             accepted_at, recorded_at) VALUES (1, 0, 7, 1, UNHEX('0123456789abcdef0123456789abcdef'), 'undecodable', '', \
             'x', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .await;
        let why = json!({"reason": "walking the matrix"});
        let headers = [("idempotency-key", "world"), ("prefer", "respond-async")];
        let freeze = format!("/v1/accounts/{account}/freeze");
        let command = asker.client.request("POST", &freeze, &headers, &why).await.expect(202).json();
        let command = command["id"].as_str().unwrap().to_owned();
        let (account, own_account) = (account.to_string(), String::new());
        let partner = Things::of(bank).await;
        let mut world = Self { account, own_account, command, digest: Value::Null, asker, partner };
        let client = world.asker.client.clone();
        world.digest = world.approval(bank, &client).await["digest"].clone();
        world
    }

    /// A new request of this client; always for the same.
    async fn approval(&self, bank: &Bank, client: &Client) -> Value {
        let client = bank.client().with_token(client.token.as_deref().unwrap());
        let path = format!("/v1/accounts/{}/limits", self.account);
        let key = uuid::Uuid::now_v7().to_string();
        let body = json!({"overdraft": "0.00", "reason": "walking the matrix"});
        client.ask(&path, &key, body).await.expect(202).json()
    }

    /// What stands for `{id}` in paths of the bank's commands, if that is what the path is about.
    async fn ids(
        &self,
        bank: &Bank,
        who: Who,
        caller: Option<&Somebody>,
        path: &str,
    ) -> Option<Vec<(String, bool)>> {
        let ids = |own: &str, is_there: bool, prefix: &str| {
            let unknown = format!("{prefix}_00000000000000000000000001");
            vec![(own.to_owned(), is_there), (unknown, false), ("usr_nonsense".to_owned(), false)]
        };
        Some(match path {
            path if path.starts_with("/v1/accounts/{id}") => ids(&self.account, true, "acct"),
            path if path.contains("/partners/{id}") => ids(&self.partner.partner, true, "ptr"),
            path if path.contains("/partner-applications/{id}") => {
                ids(&self.partner.application, true, "app")
            }
            // Staff see all commands, customers their own.
            path if path.contains("/commands/{id}") => {
                ids(&self.command, !matches!(who, Who::Nobody | Who::Customer), "chg")
            }
            path if path.contains("/approvals/{id}") => {
                // Only who asked takes back, and only somebody else agrees.
                let own =
                    caller.filter(|_| matches!(who, Who::Operator | Who::Admin) && path.ends_with("/cancel"));
                let approval = self.approval(bank, &own.unwrap_or(&self.asker).client).await;
                ids(approval["id"].as_str().unwrap(), true, "apr")
            }
            path if path.contains("/dead-letters/{id}") => {
                vec![
                    ("partner-0-7".to_owned(), true),
                    ("partner-0-8".to_owned(), false),
                    ("x".to_owned(), false),
                ]
            }
            _ => return None,
        })
    }
}

/// What moves money, gives rights or shows people: only whoever has proved within five minutes to be himself.
const FRESH: &[(&str, &str)] = &[
    ("delete", "/v1/me"),
    ("post", "/v1/me/exports"),
    ("post", "/v1/me/email"),
    ("post", "/v1/me/transfers"),
    ("post", "/v1/me/mandate-requests/{id}/grant"),
    ("post", "/v1/me/recovery-codes"),
    ("delete", "/v1/me/second-factor"),
    ("post", "/v1/accounts/{id}/limits"),
    ("post", "/v1/deposits"),
    ("post", "/v1/withdrawals"),
    ("post", "/v1/transfers"),
    ("post", "/v1/reversals"),
    ("post", "/v1/approvals/{id}/approve"),
    ("post", "/v1/dead-letters/{id}/redrive"),
    ("post", "/v1/dead-letters/{id}/reject"),
    ("patch", "/v1/partners/{id}"),
    ("post", "/v1/partners/{id}/contact"),
    ("post", "/v1/partners/{id}/activation"),
    ("post", "/v1/partners/{id}/suspension"),
    ("post", "/v1/partners/{id}/keys"),
    ("post", "/v1/partners/{id}/keys/{key}/secret"),
    ("post", "/v1/partners/{id}/keys/{key}/revocation"),
    ("post", "/v1/partners/{id}/return-urls"),
    ("post", "/v1/partners/{id}/return-urls/removals"),
    ("post", "/v1/partners/{id}/settlement-accounts"),
    ("post", "/v1/partner-applications/{id}/contact"),
    ("post", "/v1/partner-applications/{id}/approval"),
    ("post", "/v1/users/invitations"),
    ("post", "/v1/users/{id}/personal-data"),
    ("post", "/v1/users/{id}/role"),
    ("post", "/v1/users/{id}/disabling"),
    ("post", "/v1/users/{id}/enabling"),
    ("post", "/v1/users/{id}/erasure"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_old_proof_is_refused_exactly_where_it_matters() {
    let bank = Bank::new("admin-fresh").await;
    let customer = bank.customer("customer@example.com").await;
    let admin = bank.staff("admin@example.com", 4).await;
    let auditor = bank.staff("auditor@example.com", 3).await;
    bank.sql("UPDATE sessions SET proven_at = UTC_TIMESTAMP(6) - INTERVAL 301 SECOND").await;
    tokio::time::sleep(admin_api::sessions::AGE_MAX).await;
    for row @ (method, path) in FRESH {
        assert!(MATRIX.iter().any(|it| (it.0, it.1) == *row), "there is no {method} {path}");
    }
    for (method, path, may) in
        MATRIX.iter().filter(|(method, path, _)| !path.contains("/auth/logout") && *method != "get")
    {
        let caller = match may {
            May::Anybody => continue,
            May::Customer => &customer,
            May::Auditor => &auditor,
            _ => &admin,
        };
        let client = bank.client().with_token(caller.client.token.as_deref().unwrap());
        // Nothing is done: no id is one, and no body is complete.
        let target: String = path
            .split('/')
            .map(|it| if it.starts_with('{') { "x" } else { it })
            .collect::<Vec<_>>()
            .join("/");
        let headers = [("idempotency-key", "old"), ("if-match", "*")];
        let answer = client.request(&method.to_uppercase(), &target, &headers, &json!({})).await;
        let refused = answer.code() == "proof_too_old";
        assert_eq!(
            refused,
            FRESH.contains(&(*method, *path)),
            "{method} {path}: {} {}",
            answer.status,
            answer.body
        );
    }
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_whom_the_matrix_names() {
    let bank = Bank::new("admin-matrix").await;
    let document = bank.client().get("/v1/openapi.json").await.expect(200).json();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    let listed: BTreeSet<_> =
        MATRIX.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(listed, documented, "every route has its row, and every row its route");
    assert_eq!(listed.len(), MATRIX.len());

    let mut world = World::new(&bank).await;
    let foreign = bank.customer("foreign@example.com").await;
    let foreign_session = session_of(&foreign).await;
    let partner = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    let foreign_account = rows_of(&bank, user(&foreign), 1).await;
    let foreign_mandate = mandate_row(&bank, partner, foreign_account).await.to_string();
    let foreign_account = foreign_account.to_string();
    let request = request(&bank, partner, "K7M2XQ9P", 900).await.to_string();
    let unknown = "usr_00000000000000000000000001";
    let payment = crate::books::Row::new(0, "2026-11-01T12:00:00Z");
    crate::books::Books { pool: bank.env.pool() }.insert(&payment).await;
    let payment = payment.id.to_string();
    for who in EVERYBODY {
        // What a walk does to its caller (log out, erase) is done last, each with somebody new.
        let (last, first): (Vec<_>, Vec<_>) =
            MATRIX.iter().partition(|(method, path, _)| ends_session(method, path));
        let caller = call_in(&bank, who, "walker").await;
        let owner = caller.as_ref().map_or_else(fixtures::user_id, user);
        let account = rows_of(&bank, owner, 1).await;
        let mandate = mandate_row(&bank, partner, account).await.to_string();
        world.own_account = account.to_string();
        let foreign_ids = last.iter().filter(|(_, path, _)| path.contains("{id}"));
        for (method, path, may) in first.iter().chain(foreign_ids).copied() {
            let own = caller.as_ref().map_or(unknown, |it| it.id.as_str());
            // An id, and whether who may call finds something there.
            if let Some(ids) = world.ids(&bank, who, caller.as_ref(), path).await {
                for (id, is_there) in ids {
                    walk(&bank, &world, who, caller.as_ref(), (method, path, may), &id, is_there).await;
                }
                continue;
            }
            let ids: &[(&str, bool)] = match path {
                path if path.contains("/users/{id}") => &[
                    // Operators see customers alone.
                    (own, who != Who::Operator),
                    (&foreign.id, true),
                    (unknown, false),
                    ("usr_nonsense", false),
                    ("acct_00000000000000000000000001", false),
                ],
                path if path.contains("/payments/{id}") => &[
                    (&payment, true),
                    ("pay_00000000000000000000000001", false),
                    ("pay_nonsense", false),
                    (own, false),
                ],
                // Somebody else's is not there, whoever asks.
                path if path.contains("/sessions/{id}") => &[
                    (&foreign_session, false),
                    ("ses_00000000000000000000000001", false),
                    ("ses_nonsense", false),
                    (own, false),
                ],
                path if path.contains("/me/accounts/{id}") => &[
                    (&world.own_account, true),
                    (&foreign_account, false),
                    ("acct_00000000000000000000000007", false),
                    ("acct_nonsense", false),
                    (&mandate, false),
                ],
                path if path.contains("/mandates/{id}") => &[
                    (&mandate, true),
                    // Customers see their own, staff all.
                    (&foreign_mandate, !path.starts_with("/v1/me")),
                    ("mdt_00000000000000000000000007", false),
                    (&world.own_account, false),
                ],
                path if path.contains("/mandate-requests/{id}") => {
                    &[("K7M2-XQ9P", true), (&request, true), (&mandate, false), ("nonsense", false)]
                }
                path => {
                    assert!(!path.contains("{id}"), "the walk does not know what {path} is about");
                    &[("", true)]
                }
            };
            for (id, is_there) in ids {
                walk(&bank, &world, who, caller.as_ref(), (method, path, may), id, *is_there).await;
            }
        }
        for (index, (method, path, may)) in last.into_iter().enumerate() {
            let caller = call_in(&bank, who, &format!("leaver{index}")).await;
            let own = match &caller {
                Some(caller) if path.contains("{id}") => session_of(caller).await,
                _ => "ses_00000000000000000000000001".to_owned(),
            };
            walk(&bank, &world, who, caller.as_ref(), (method, path, may), &own, true).await;
        }
    }
    assert_eq!(session_of(&foreign).await, foreign_session, "nobody ended it");
    bank.close().await;
}

fn ends_session(method: &str, path: &str) -> bool {
    path.contains("/logout") || (method == "delete" && path.starts_with("/v1/me"))
}

async fn call_in(bank: &Bank, who: Who, name: &str) -> Option<Somebody> {
    let email = format!("{name}.{who:?}@example.com").to_lowercase();
    Some(match who {
        Who::Nobody => return None,
        Who::Halfway => bank.staff_without_second_factor(&email, 2).await,
        Who::Customer => bank.customer(&email).await,
        Who::Operator => bank.staff(&email, 2).await,
        Who::Auditor => bank.staff(&email, 3).await,
        Who::Admin => bank.staff(&email, 4).await,
    })
}

/// The session that somebody has.
async fn session_of(somebody: &Somebody) -> String {
    let sessions = somebody.client.get("/v1/me/sessions").await.expect(200).json();
    let current = sessions["data"].as_array().unwrap().iter().find(|it| it["current"] == true).unwrap();
    current["id"].as_str().unwrap().to_owned()
}

async fn walk(
    bank: &Bank,
    world: &World,
    who: Who,
    caller: Option<&Somebody>,
    row: (&str, &str, May),
    id: &str,
    is_there: bool,
) {
    let (method, path, may) = row;
    let client: Client = match caller {
        // A client of its own each time, so that no rate is met.
        Some(somebody) => bank.client().with_token(somebody.client.token.as_deref().unwrap()),
        None => bank.client(),
    };
    let target = path.replace("{id}", id).replace("{code}", "not_found");
    let target = world.partner.fill(&target);
    let key = uuid::Uuid::now_v7().to_string();
    // What is asked for need not be decided.
    let headers = [("idempotency-key", key.as_str()), ("prefer", "respond-async"), ("if-match", "*")];
    let body = body(path, world).unwrap_or_default();
    let answer = client.request(&method.to_uppercase(), &target, &headers, &body).await;
    let what = format!("{who:?} {method} {target}: {} {}", answer.status, answer.body);
    assert!(answer.status < 500, "{what}");
    if let Some((status, code)) = may.refusal(who) {
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
        return;
    }
    let refusals =
        ["token_missing", "token_invalid", "role_missing", "second_factor_missing", "proof_too_old"];
    // Walking without a second factor into step-up is told to set one up, which is no lack of a right.
    let told = path.ends_with("step-up") && who == Who::Halfway;
    assert!(told || !refusals.contains(&answer.code().as_str()), "{what}");
    if path.contains("{id}") {
        assert_eq!(answer.status != 404, is_there, "{what}");
        // What cannot be done as things stand is no refusal: nobody is disabled twice.
        assert!(!is_there || answer.status < 300 || answer.code() == "conflict", "{what}");
    }
}
