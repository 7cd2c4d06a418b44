//! The receivers of `docs/receivers`, each in its language with an off-the-shelf library, against webhooks signed as
//! the notifier signs them, and an event log that refuses what is not signed as a partner must.
//!
//! `deploy/local/wired-local interop` fetches and builds what they need; a language that the machine lacks is skipped
//! with a printed reason.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::event::API_VERSION;
use domain::http_signature::{RequestParts, Signature};
use domain::ids::{EventId, KeyId, MandateId, PartnerId, PaymentId, event_id};
use domain::schema;
use domain::secret::HmacKey;
use domain::webhook::{Secret, SigningKey, SigningKeys};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use loadtest::driver::now_us;
use loadtest::system::{Options, Servers, System, binaries, ports};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::wait_until;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::webhooks::api::Merchant;

/// After how long a receiver takes an event for missing; theirs is 60 s.
const GAP_SECONDS: &str = "1";
/// An interpreter's start on a busy machine, or the time until a gap is filled.
const PATIENCE: Duration = Duration::from_secs(40);

const LANGUAGES: [&str; 5] = ["Python", "Node", "Go", "Java", "Rust"];

#[tokio::test]
async fn the_receiver_in_python_keeps_its_books() {
    keeps_its_books("Python").await;
}

#[tokio::test]
async fn the_receiver_in_node_keeps_its_books() {
    keeps_its_books("Node").await;
}

#[tokio::test]
async fn the_receiver_in_go_keeps_its_books() {
    keeps_its_books("Go").await;
}

#[tokio::test]
async fn the_receiver_in_java_keeps_its_books() {
    keeps_its_books("Java").await;
}

#[tokio::test]
async fn the_receiver_in_rust_keeps_its_books() {
    keeps_its_books("Rust").await;
}

/// The real bank: an endpoint that gets rejected payments alone sees a gap, and its receiver reads the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_receiver_gets_along_with_the_bank() {
    let _turn = crate::turn().await;
    let system = System::start(Servers::from_env().unwrap(), Options::new("receivers")).await.unwrap();
    let partner = &system.partners()[0];
    let merchant = Merchant::new(&system, partner);
    let mut receivers = Vec::new();
    for program in LANGUAGES.into_iter().filter_map(program) {
        let address = ports::free().unwrap();
        let url = format!("http://{address}/webhooks");
        let endpoint = merchant.create(&url, Some(&["payment.rejected"])).await;
        let environment = HashMap::from([
            ("WIRED_URL", system.url(0)),
            ("WIRED_KEY_ID", partner.key_id.clone()),
            ("WIRED_KEY_SECRET", partner.key_secret.clone()),
            ("WIRED_WEBHOOK_SECRET", endpoint.secret),
        ]);
        receivers.push(Receiver::start(program, address, environment).await);
    }
    let nobody = MandateId::from_uuid(Uuid::from_u128(1));
    for (number, mandate) in
        [nobody, partner.mandates[0], partner.mandates[1], nobody].into_iter().enumerate()
    {
        let (key, last) = (format!("receivers-{number}"), merchant.events(0).await.len());
        let payment = merchant.pay(mandate, &key).await;
        // One after the other, in the order of the log.
        wait_until("the event", PATIENCE, async || merchant.events(last as u64).await.len() == 1).await;
        let status = if mandate == nobody { "rejected" } else { "posted" };
        let line = format!("payment.{status} {payment} {status} 1");
        for receiver in &mut receivers {
            receiver.expected.push(line.clone());
            if number == 0 {
                // Its books begin with the first event that it handles, which a later one may overtake.
                let lines = Arc::clone(&receiver.lines);
                wait_until("the first event", PATIENCE, async || !lines.lock().unwrap().is_empty()).await;
            }
        }
    }
    // The posted ones come from the log, and with them the second rejected one again.
    let again = format!("duplicate {}", merchant.events(0).await.last().unwrap().id);
    for mut receiver in receivers {
        let lines = Arc::clone(&receiver.lines);
        wait_until(receiver.language, PATIENCE, async || lines.lock().unwrap().len() >= 5).await;
        let [first, posted, also, second] = receiver.expected.as_slice() else { panic!() };
        let expected: Vec<_> = [first, second, posted, also, &again].into_iter().cloned().collect();
        assert_eq!(*receiver.lines.lock().unwrap(), expected, "{}", receiver.language);
        println!("{} has {} payments", receiver.language, receiver.expected.len());
        receiver.child.kill().await.unwrap();
    }
    system.finish().await.unwrap();
}

/// Duplicates, an older version after a newer one, gaps, forged and stale messages, rotation of secrets.
async fn keeps_its_books(language: &'static str) {
    let Some(program) = program(language) else { return };
    let bank = Bank::start().await;
    let environment = HashMap::from([
        ("WIRED_URL", format!("http://{}", bank.address)),
        ("WIRED_KEY_ID", bank.key_id.to_string()),
        ("WIRED_KEY_SECRET", Bank::key_secret()),
        ("WIRED_WEBHOOK_SECRET", Bank::secret_text()),
    ]);
    let mut receiver = Receiver::start(program, ports::free().unwrap(), environment).await;
    let (paid, voided) = (bank.payment(1), bank.payment(2));

    receiver.takes(&bank.signed(1, "payment.posted", &paid, 1)).await;
    receiver.says(&format!("payment.posted {paid} posted 1")).await;
    receiver.takes(&bank.signed(1, "payment.posted", &paid, 1)).await;
    receiver.says(&format!("duplicate {}", bank.id(1))).await;

    // The second version arrives, and the first one does not.
    bank.log.lock().unwrap().push(Bank::event(2, "payment.authorized", &voided, 1));
    receiver.takes(&bank.signed(3, "payment.voided", &voided, 2)).await;
    receiver.says(&format!("payment.voided {voided} voided 2")).await;
    wait_until("the log to be asked", PATIENCE, async || bank.asked.lock().unwrap().len() == 1).await;
    // While the log makes it wait, it answers.
    let other = bank.payment(3);
    receiver.takes(&bank.signed(4, "payment.posted", &other, 1)).await;
    bank.answer.add_permits(1);
    receiver.says(&format!("stale {voided} 1")).await;
    receiver.says(&format!("payment.posted {other} posted 1")).await;
    receiver.takes(&bank.signed(2, "payment.authorized", &voided, 1)).await;
    receiver.says(&format!("duplicate {}", bank.id(2))).await;

    // Events of other types are no gap for ever: the log says how far it looked.
    bank.answer.add_permits(2);
    receiver.takes(&bank.signed(7, "payment.posted", &bank.payment(7), 1)).await;
    wait_until("the log to be asked again", PATIENCE, async || bank.asked.lock().unwrap().len() == 2).await;
    receiver.takes(&bank.signed(9, "payment.posted", &bank.payment(9), 1)).await;
    wait_until("the log to be asked thrice", PATIENCE, async || bank.asked.lock().unwrap().len() == 3).await;
    assert_eq!(*bank.asked.lock().unwrap(), ["after=1", "after=4", "after=7"]);

    receiver.refuses_what_is_not_genuine(&bank).await;
    // What it is to do while its secret is replaced: nothing.
    let mut rotated = bank.signed(10, "payment.posted", &bank.payment(10), 1);
    rotated.sign(&SigningKeys {
        previous: vec![Bank::secret(), Secret::from_bytes(&[9; 32]).unwrap()],
        current: Secret::from_bytes(&[8; 32]).unwrap(),
        ed25519: Some(SigningKey::from_seed(&[7; 32])),
    });
    receiver.takes(&rotated).await;
    receiver.says(&format!("payment.posted {} posted 1", bank.payment(10))).await;
    let mut ping = bank.signed(0, "ping", "", 0);
    ping.id = EventId::from_uuid(Uuid::from_u128(0x77)).to_string();
    ping.sign(&SigningKeys::new(Bank::secret()));
    receiver.takes(&ping).await;
    receiver.says(&format!("ping {}", ping.id)).await;
    receiver.child.kill().await.unwrap();
}

/// The bank as a receiver sees it.
struct Bank {
    address: SocketAddr,
    partner: PartnerId,
    key_id: KeyId,
    log: Mutex<Vec<Value>>,
    asked: Mutex<Vec<String>>,
    /// A permit for each answer of the log.
    answer: Semaphore,
}

/// A webhook to be sent.
#[derive(Clone)]
struct Message {
    id: String,
    timestamp: i64,
    body: String,
    signature: String,
}

impl Message {
    fn sign(&mut self, keys: &SigningKeys) {
        self.signature = keys.sign(&self.id, self.timestamp, self.body.as_bytes());
    }
}

impl Bank {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bank = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            partner: PartnerId::from_uuid(Uuid::from_u128(1)),
            key_id: KeyId::from_uuid(Uuid::from_u128(2)),
            log: Mutex::default(),
            asked: Mutex::default(),
            answer: Semaphore::new(0),
        });
        let app = Router::new().route("/v1/events", get(Self::events)).with_state(Arc::clone(&bank));
        tokio::spawn(async move { axum::serve(listener, app).await });
        bank
    }

    async fn events(
        State(bank): State<Arc<Self>>,
        uri: axum::http::Uri,
        headers: HeaderMap,
    ) -> (StatusCode, String) {
        let parts = RequestParts {
            method: &Method::GET,
            authority: &bank.address.to_string(),
            path: uri.path(),
            query: uri.query(),
            headers: &headers,
            has_body: false,
        };
        let key = HmacKey::from_base64(&Self::key_secret()).unwrap();
        let signed = Signature::parse(&parts, |id| id == bank.key_id.to_string());
        let verified =
            signed.and_then(|it| it.check_clock(now_us() / 1_000_000).and_then(|()| it.verify(Some(&key))));
        if let Err(problem) = verified {
            return (StatusCode::UNAUTHORIZED, problem.to_string());
        }
        let query = uri.query().unwrap_or_default().to_owned();
        let after: u64 = query.strip_prefix("after=").unwrap().parse().unwrap();
        bank.asked.lock().unwrap().push(query);
        bank.answer.acquire().await.unwrap().forget();
        let log = bank.log.lock().unwrap().clone();
        let behind = log.into_iter().filter(|event| event["sequence"].as_u64() > Some(after));
        let id = |event: &Value| bank.id(event["sequence"].as_u64().unwrap());
        let data: Vec<_> = behind.map(|event| json!({ "id": id(&event), "body": event })).collect();
        // As if it had looked at two more, one of them of a type that was not asked for.
        (StatusCode::OK, json!({ "data": data, "scanned_through": after + 2 }).to_string())
    }

    fn secret() -> Secret {
        Secret::parse(&Self::secret_text()).unwrap()
    }

    fn secret_text() -> String {
        Secret::text_of(&[5; 32]).to_string()
    }

    fn key_secret() -> String {
        STANDARD.encode([6; 32])
    }

    fn id(&self, sequence: u64) -> String {
        event_id(self.partner, 1, sequence).to_string()
    }

    fn payment(&self, number: u128) -> String {
        PaymentId::from_uuid(Uuid::from_u128(self.partner.uuid().as_u128() << 64 | number)).to_string()
    }

    /// The schema's example with other numbers: what the bank sends is described, and what is described is sent.
    fn body(event_type: &str) -> Value {
        let text = schema::find(API_VERSION, event_type).unwrap();
        let mut schema: Value = serde_json::from_str(text).unwrap();
        schema["examples"][0].take()
    }

    fn event(sequence: u64, event_type: &str, payment: &str, version: u32) -> Value {
        let mut event = Self::body(event_type);
        event["sequence"] = json!(sequence);
        event["data"]["payment"]["id"] = json!(payment);
        event["data"]["payment"]["version"] = json!(version);
        event["data"]["payment"]["description"] = json!("Café · 東京 · 🏙");
        event
    }

    fn signed(&self, sequence: u64, event_type: &str, payment: &str, version: u32) -> Message {
        let body = match event_type {
            "ping" => Self::body("ping"),
            _ => Self::event(sequence, event_type, payment, version),
        };
        testkit::schema::check(body.to_string().as_bytes()).unwrap();
        let timestamp = now_us() / 1_000_000;
        let mut message =
            Message { id: self.id(sequence), timestamp, body: body.to_string(), signature: String::new() };
        message.sign(&SigningKeys::new(Self::secret()));
        message
    }
}

/// A running receiver.
struct Receiver {
    language: &'static str,
    child: Child,
    address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    /// Lines that were expected and came.
    read: usize,
    /// Lines that it should write.
    expected: Vec<String>,
    _folder: Option<TempDir>,
}

impl Receiver {
    async fn start(
        program: Program,
        address: SocketAddr,
        environment: HashMap<&'static str, String>,
    ) -> Self {
        let Program { language, mut command, folder } = program;
        command
            .envs(environment)
            .env("WIRED_WEBHOOK_LISTEN", address.to_string())
            .env("GAP_SECONDS", GAP_SECONDS);
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                written.lock().unwrap().push(line);
            }
        });
        wait_until("the receiver to listen", PATIENCE, async || TcpStream::connect(address).await.is_ok())
            .await;
        Self { language, child, address, lines, read: 0, expected: Vec::new(), _folder: folder }
    }

    /// The next line that it writes.
    async fn says(&mut self, line: &str) {
        let (lines, index) = (Arc::clone(&self.lines), self.read);
        let said = wait_until(line, PATIENCE, async || lines.lock().unwrap().get(index).cloned()).await;
        assert_eq!(said, line);
        self.read += 1;
    }

    async fn takes(&self, message: &Message) {
        assert_eq!(self.send(message).await, 204, "{}", message.body);
    }

    async fn refuses_what_is_not_genuine(&mut self, bank: &Bank) {
        let good = bank.signed(20, "payment.posted", &bank.payment(20), 1);
        let mut forged = good.clone();
        forged.sign(&SigningKeys::new(Secret::from_bytes(&[4; 32]).unwrap()));
        let mut old = good.clone();
        old.timestamp -= 3_600;
        old.sign(&SigningKeys::new(Bank::secret()));
        let changed = Message { body: good.body.replace("posted", "Posted"), ..good.clone() };
        let other_id = Message { id: bank.id(21), ..good.clone() };
        let other_time = Message { timestamp: good.timestamp - 1, ..good.clone() };
        let unsigned = Message { signature: String::new(), ..good.clone() };
        let nonsense = Message { signature: "nonsense".to_owned(), ..good.clone() };
        for bad in [forged, old, changed, other_id, other_time, unsigned, nonsense] {
            assert_eq!(self.send(&bad).await, 400, "{} {} {}", bad.id, bad.timestamp, bad.signature);
        }
        // What was told before the next good message is none of them.
        let told = bank.payment(9);
        let lines = Arc::clone(&self.lines);
        let line = format!("payment.posted {told} posted 1");
        wait_until("the last good one", PATIENCE, async || lines.lock().unwrap().contains(&line)).await;
        self.read = self.lines.lock().unwrap().len();
        let refused = bank.payment(20);
        assert!(!self.lines.lock().unwrap().iter().any(|line| line.contains(&refused)));
    }

    async fn send(&self, message: &Message) -> u16 {
        let sent = async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = hyper::Request::post("/webhooks")
                .header("host", self.address.to_string())
                .header("content-type", "application/json")
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", message.timestamp.to_string())
                .header("webhook-signature", &message.signature)
                .body(Full::new(Bytes::from(message.body.clone())))
                .unwrap();
            let status = sender.send_request(request).await.unwrap().status().as_u16();
            connection.abort();
            status
        };
        tokio::time::timeout(PATIENCE, sent).await.expect("the receiver answers")
    }
}

fn checkout() -> PathBuf {
    binaries::checkout().unwrap()
}

/// How a receiver is started.
struct Program {
    language: &'static str,
    command: Command,
    /// What stands there must stay while it runs.
    folder: Option<TempDir>,
}

/// The receiver in a language; `None`, with a printed reason, where the machine lacks it.
fn program(language: &'static str) -> Option<Program> {
    let local = |path: &str| checkout().join(".local").join(path);
    let there = |path: PathBuf| {
        if !path.exists() {
            let path = path.display();
            println!(
                "skipped: {path} is missing; `deploy/local/wired-local interop` makes it where there is {language}"
            );
            return None;
        }
        Some(path)
    };
    let (command, folder) = match language {
        "Python" => {
            there(local("venv/requirements.txt"))?;
            let mut command = Command::new(local("venv/bin/python3"));
            command.arg(checkout().join("docs/receivers/python/receiver.py"));
            (command, None)
        }
        "Node" => {
            let libraries = there(local("interop/node_modules"))?;
            // Node looks for libraries beside the program.
            let folder = tempfile::tempdir().unwrap();
            let script = folder.path().join("receiver.mjs");
            std::fs::copy(checkout().join("docs/receivers/node/receiver.mjs"), &script).unwrap();
            std::os::unix::fs::symlink(libraries, folder.path().join("node_modules")).unwrap();
            let mut command = Command::new("node");
            command.arg(script);
            (command, Some(folder))
        }
        "Go" => (Command::new(there(local("receivers/go/receiver"))?), None),
        "Java" => {
            there(local("receivers/java/Receiver.class"))?;
            let classes = local("receivers/java").display().to_string();
            let mut command = Command::new("java");
            command.args(["-Xmx64m", "-cp", &format!("{classes}:{classes}/lib/*"), "Receiver"]);
            (command, None)
        }
        "Rust" => (Command::new(binaries::find("receiver").unwrap()), None),
        other => panic!("there is no receiver in {other}"),
    };
    Some(Program { language, command, folder })
}
