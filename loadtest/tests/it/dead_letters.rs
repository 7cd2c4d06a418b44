//! A bad record is set aside; a bad environment sets nothing aside and stops loudly.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use domain::payment::PaymentStatus;
use loadtest::faults::{audit, store};
use loadtest::system::{Options, Servers, Service, System};
use migrations::users::Role;
use testkit::wait_until;
use url::Url;

use crate::support::{payment, produce, record, with_reference};

const PATIENCE: Duration = Duration::from_secs(30);
/// The small disk is filled to its end, and everything else needs some as well.
const MEMORY_MIN_KIB: u64 = 6 * 1_024 * 1_024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bad_records_among_five_hundred_are_set_aside_and_the_others_post() {
    let _turn = crate::turn().await;
    let system = System::start(Servers::from_env().unwrap(), only_processor("dead")).await.unwrap();
    let partner = &system.partners()[0];
    // All of them wait before the processor comes, so that they share batches.
    system.terminate(Service::Processor, 0).await.unwrap();
    let mut records: Vec<_> =
        (0..500).map(|number| record(&payment(partner, &format!("dead-{number}"), 100))).collect();
    records[123].1.truncate(77);
    // Longer than its column: only MySQL can tell, in the middle of a batch's bulk insert.
    let long = with_reference(payment(partner, "dead-321", 100), &"x".repeat(101));
    records[321] = record(&long);
    produce(&system, &records).await;
    system.restart(Service::Processor, 0).await.unwrap();
    audit::applied(&system, PATIENCE).await.unwrap();

    let mut letters = store::dead_letters(system.pool()).await.unwrap();
    letters.sort();
    let reasons: Vec<_> = letters.iter().map(|(reason, _, id)| (reason.as_str(), *id)).collect();
    assert_eq!(reasons, [("data_error", Some(long.id.uuid())), ("undecodable", None)], "{letters:?}");
    assert!(letters[0].1.contains("1406"), "{letters:?}");
    assert!(letters[1].1.contains("EOF"), "{letters:?}");
    let rows = store::payments(system.pool()).await.unwrap();
    let posted =
        rows.iter().filter(|row| row.status == PaymentStatus::Posted.code() && row.partner.is_some());
    assert_eq!(posted.count(), 498);
    assert_eq!(store::balance(system.pool(), partner.id.uuid()).await.unwrap(), 498 * 100);

    // The partner repeats the payment, correctly this time: it must not overtake what stands under review.
    produce(&system, &[record(&payment(partner, "dead-321", 100))]).await;
    audit::applied(&system, PATIENCE).await.unwrap();
    let letters = store::dead_letters(system.pool()).await.unwrap();
    let joined = letters
        .iter()
        .filter(|(reason, _, id)| reason == "behind_dead_letter" && *id == Some(long.id.uuid()));
    assert_eq!((letters.len(), joined.count()), (3, 1), "{letters:?}");
    let verifier = system.mysql_of(Role::Verifier).pool("verifier", 2).unwrap();
    let report = verifier::verify(&verifier, None).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    verifier.close().await;
    system.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_grant_sets_nothing_aside_and_stops_loudly() {
    let _turn = crate::turn().await;
    let system = System::start(Servers::from_env().unwrap(), only_processor("grant")).await.unwrap();
    let partner = &system.partners()[0];
    let user = Url::parse(&system.mysql_of(Role::Processor).mysql_url).unwrap().username().to_owned();
    sqlx::raw_sql(&format!("REVOKE INSERT ON entries FROM '{user}'@'%'"))
        .execute(system.pool())
        .await
        .unwrap();
    let records: Vec<_> =
        (0..100).map(|number| record(&payment(partner, &format!("grant-{number}"), 100))).collect();
    produce(&system, &records).await;
    let why = wait_until("the processor to say that it stands still", PATIENCE, async || {
        let (status, body) = system.readiness(Service::Processor, 0).await.unwrap();
        (status == 503 && body.contains("halted")).then_some(body)
    });
    let why = why.await;
    assert!(why.contains("INSERT command denied") && why.contains("entries"), "{why}");
    assert!(store::dead_letters(system.pool()).await.unwrap().is_empty());
    let rows = store::payments(system.pool()).await.unwrap();
    assert!(rows.iter().all(|row| row.partner.is_none()), "something was posted without its entries");

    // Put right and started again, it goes on as if nothing had been.
    sqlx::raw_sql(&format!("GRANT INSERT ON entries TO '{user}'@'%'")).execute(system.pool()).await.unwrap();
    system.terminate(Service::Processor, 0).await.unwrap();
    system.restart(Service::Processor, 0).await.unwrap();
    audit::applied(&system, PATIENCE).await.unwrap();
    assert!(store::dead_letters(system.pool()).await.unwrap().is_empty());
    assert_eq!(store::balance(system.pool(), partner.id.uuid()).await.unwrap(), 100 * 100);
    system.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_sets_nothing_aside_and_stops_loudly() {
    let _turn = crate::turn().await;
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: a small disk for MySQL cannot be mounted here: {why}");
            return;
        }
    };
    let servers = Arc::new(Servers::own_mysql(disk.path()).await.unwrap());
    let system = System::start(Arc::clone(&servers), only_processor("full")).await.unwrap();
    let partner = &system.partners()[0];
    disk.fill();
    let records: Vec<_> =
        (0..2_000).map(|number| record(&payment(partner, &format!("full-{number}"), 100))).collect();
    produce(&system, &records).await;
    let why =
        wait_until("the processor to say that MySQL does not work", Duration::from_secs(60), async || {
            let (status, body) = system.readiness(Service::Processor, 0).await.unwrap();
            (status == 503).then_some(body)
        });
    println!("{}", why.await);
    disk.free();
    // A halted partition waits for a human, who has made room and starts the processor again. MySQL looks for room once a
    // minute only, so the processor may have to be killed.
    system.kill(Service::Processor, 0).await.unwrap();
    system.restart(Service::Processor, 0).await.unwrap();
    audit::applied(&system, Duration::from_secs(90)).await.unwrap();
    assert!(store::dead_letters(system.pool()).await.unwrap().is_empty());
    assert_eq!(store::balance(system.pool(), partner.id.uuid()).await.unwrap(), 2_000 * 100);
    let verifier = system.mysql_of(Role::Verifier).pool("verifier", 2).unwrap();
    let report = verifier::verify(&verifier, None).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.findings);
    verifier.close().await;
    system.finish().await.unwrap();
    drop(servers);
}

fn only_processor(name: &str) -> Options {
    Options { ingests: 0, notifiers: 0, ..Options::new(name) }
}

/// A file system in memory with just enough room for MySQL, whose redo log takes 3 GiB while it is made.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib =
            available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0_u64);
        if kib < MEMORY_MIN_KIB {
            return Err(format!("it needs 6 GiB of memory, and {} MiB are available", kib / 1_024));
        }
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=3500m", "wired-fault"]).arg(folder.path());
        let output = mount.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let ballast = std::fs::File::create(self.path().join("ballast")).unwrap();
        let block = vec![0; 64 * 1024];
        while std::io::Write::write_all(&mut &ballast, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
