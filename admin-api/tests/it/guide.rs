//! Runs every line of the customers' guide as it is written, against the service and the processor.

use std::process::Stdio;

use domain::account::Owner;
use domain::ids::{AccountId, MandateId};
use testkit::fixtures;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::customers::request;
use crate::harness::LONG;
use crate::teller::{account_of, decide, open_bank};

const GUIDE: &str = include_str!("../../../docs/customer-guide.md");

/// The code blocks of a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_guide_does_what_it_says() {
    let (bank, processor) = open_bank("admin-guide").await;
    let merchant = fixtures::insert_partner(bank.env.pool(), fixtures::PartnerRow::default()).await;
    account_of(&bank, Owner::Partner(merchant), 0).await;
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join(".local");
    std::fs::create_dir(&local).unwrap();
    std::os::unix::fs::symlink(bank.mails.path(), local.join("mails")).unwrap();
    let env = format!("WIRED_ADMIN_API_URL=http://{}\n", bank.service.address);
    std::fs::write(local.join("services.env"), env).unwrap();
    let mut bash = Command::new("bash")
        .args(["-euo", "pipefail", "-s"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = bash.stdin.take().unwrap();
    let mut output = BufReader::new(bash.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    for (index, block) in blocks(GUIDE).into_iter().enumerate() {
        // What happens between the steps of a customer: money comes in, a merchant asks.
        let before = if block.contains("mandate-requests/$code") {
            request(&bank, merchant, "K7M2XQ9P", 900).await;
            "code=K7M2-XQ9P\n"
        } else {
            ""
        };
        input.write_all(format!("{before}{block}\necho; echo '== end'\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        loop {
            let line = tokio::time::timeout(LONG, output.next_line()).await.expect("an answer in time");
            match line.unwrap() {
                Some(line) if line == "== end" => break,
                Some(line) => text.extend([line.as_str(), "\n"]),
                None => panic!("block {index} failed:\n{block}\nafter saying:\n{text}"),
            }
        }
        assert!(!text.contains("/problems/"), "block {index} is refused:\n{block}\n{text}");
        if block.contains("post /v1/me/accounts") {
            let account: AccountId = text.lines().next().unwrap().parse().unwrap();
            decide(&bank, fixtures::deposit(account, 10_000, domain::money::Currency::EUR)).await;
        }
        said.push(text);
    }
    let [_, me, accounts, statement, transfer, grant, revoke, email] = said.as_slice() else {
        panic!("another number of blocks: {said:?}")
    };
    assert!(me.contains(r#""name":"Anna Bell""#), "{me}");
    assert_eq!(accounts.matches(r#""id":"acct_"#).count(), 2, "{accounts}");
    assert!(
        statement.contains(r#""balance":"100.00""#) && statement.contains(r#""balance":"0.00""#),
        "{statement}"
    );
    let csv = std::fs::read_to_string(folder.path().join("statement.csv")).unwrap();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert_eq!(transfer.matches(r#""status":"posted""#).count(), 2, "{transfer}");
    assert!(transfer.contains(r#""balance":"25.00""#), "{transfer}");
    let mandate = grant.lines().find(|line| line.starts_with("mdt_")).unwrap();
    assert!(mandate.parse::<MandateId>().is_ok() && grant.contains(r#""daily_cap":"40.00""#), "{grant}");
    assert!(revoke.contains(r#""status":"revoked""#), "{revoke}");
    assert!(email.contains(r#""email":"new.anna."#), "{email}");
    drop(input);
    assert!(bash.wait().await.unwrap().success());
    drop(processor);
    bank.close().await;
}
