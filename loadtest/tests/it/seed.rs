//! `wired seed` makes people and a partner through the public APIs; whoever it names can log in, and the partner can be paid.

use std::process::{Output, Stdio};

use client::{Client, Options as ClientOptions, PaymentRequest};
use domain::money::{Amount, Currency};
use domain::payment::PaymentStatus;
use loadtest::people::People;
use loadtest::sink::Sink;
use loadtest::system::{Options, Servers, Service, System, binaries};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

struct Wired<'a> {
    system: &'a System,
    webhook_listen: std::net::SocketAddr,
}

impl Wired<'_> {
    async fn run(&self, arguments: &[&str]) -> Output {
        let folder = self.system.folder();
        let mut command = tokio::process::Command::new(binaries::find("wired").unwrap());
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap_or_default());
        command.env("WIRED_ADMIN_API_URL", self.system.public_url(Service::AdminApi, 0));
        tokio::time::timeout(Duration::from_secs(120), command.output()).await.unwrap().unwrap()
    }

    async fn seed(&self, mails: &str) -> Output {
        let create_admin = format!("{} create-admin", self.system.admin_command_line().unwrap());
        let (ingest, listen) = (self.system.url(0), self.webhook_listen.to_string());
        self.run(&[
            "seed",
            "--ingest-url",
            &ingest,
            "--webhook-listen",
            &listen,
            "--mail-folder",
            mails,
            "--create-admin",
            &create_admin,
        ])
        .await
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.system.folder().join(".local").join(file)).unwrap()
    }
}

fn printed(output: &Output) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_seeded_can_log_in_and_the_partner_can_be_paid() {
    let _turn = crate::turn().await;
    let options = Options { admin_apis: 1, ..Options::new("seed") };
    let system = System::start(Servers::from_env().unwrap(), options).await.unwrap();
    let people = People::of(&system);
    // The sample of the load test was made without admins, and its receiver's address is free.
    let wired = Wired { system: &system, webhook_listen: system.partners()[0].webhook_listen };

    // Interrupted after the admins, for no mail comes where it looks; and then it goes on.
    let interrupted = wired.seed("no/such/folder").await;
    let told = String::from_utf8_lossy(&interrupted.stderr).into_owned();
    assert!(!interrupted.status.success() && told.contains("no mail to otto@bank.example"), "{told}");
    let told = printed(&wired.seed("mails").await);
    let log_ins: Value = serde_json::from_str(&wired.read("log-ins.json")).unwrap();
    let log_ins = log_ins["people"].as_array().unwrap().clone();
    let roles: Vec<_> = log_ins.iter().map(|it| it["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["admin", "admin", "operator", "auditor", "customer"]);
    for person in &log_ins {
        let [role, email, password] =
            ["role", "email", "password"].map(|name| person[name].as_str().unwrap());
        assert!(told.contains(email) && told.contains(password), "{told}");
        let token = printed(&wired.run(&["log-in", email]).await);
        let me = people.client().unwrap().with_token(token.trim()).get("/v1/me").await.unwrap();
        assert_eq!(me.expect(200).unwrap().json()["role"], role);
    }

    // Everything is there, so nothing is made again.
    let partner = wired.read("partner.env");
    printed(&wired.seed("mails").await);
    assert_eq!(wired.read("partner.env"), partner);
    let users: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(system.pool()).await.unwrap();
    assert_eq!(users, log_ins.len() as i64);

    let value = |name: &str| {
        let lines = partner.lines().filter_map(|line| line.split_once('='));
        let found =
            lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('\''));
        found.unwrap_or_else(|| panic!("{name} is missing")).to_owned()
    };
    let sink = Sink::start(wired.webhook_listen).await.unwrap();
    sink.endpoint("/webhooks", &value("WIRED_WEBHOOK_SECRET")).unwrap();
    let url = value("WIRED_URL");
    let client = Client::with_options(
        &url,
        &value("WIRED_KEY_ID"),
        &value("WIRED_KEY_SECRET"),
        ClientOptions::default(),
    );
    let amount = Amount::new(1_250, Currency::EUR).unwrap();
    let request = PaymentRequest::new(value("WIRED_MANDATE").parse().unwrap(), amount);
    let paid = client.unwrap().pay(&request, "order", Some(Duration::from_secs(10))).await.unwrap();
    assert_eq!(paid.payment.status, PaymentStatus::Posted);
    assert!(sink.wait_until(SOON, |sink| sink.counts("/webhooks").events >= 1).await, "{:?}", sink.total());
    sink.stop().await;
    system.finish().await.unwrap();
}
