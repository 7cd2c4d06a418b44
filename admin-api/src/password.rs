//! Passwords: which are accepted, and how they are hashed.
//!
//! Argon2id (RFC 9106) with 19 MiB, two passes and one lane. Each hash takes its memory and a core for tens of
//! milliseconds, so they run on threads of their own, at most `parallel` at once; at most `queue_max` wait, and
//! whoever comes then is told to come back. So a flood of log-ins costs bounded memory and bounded cores. The threads
//! stand behind all others in the scheduler: where cores are scarce, log-ins wait and money does not.
//!
//! A log-in of nobody is checked against a hash of nothing: it costs the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

use crate::problem::{Code, Problem};
use crate::random;

/// Fewest bytes of a password.
pub const BYTES_MIN: usize = 12;
/// Most bytes of a password: Argon2 would take more, but nobody types them.
pub const BYTES_MAX: usize = 256;
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// A password that is only a piece of this length, repeated, has no more strength than the piece.
const PIECE_BYTES_MAX: usize = 4;
/// How far the threads stand behind others, as `nice` counts: under full load a hash gets about a third of the share of
/// anything else. More would let log-ins time out there, less would let guesses take from payments.
const NICENESS: i32 = 5;
/// When to come back: by then the queue has moved on.
const RETRY_AFTER_S: u32 = 2;

static COMMON: LazyLock<Vec<&str>> = LazyLock::new(|| {
    include_str!("common_passwords.txt").lines().filter(|line| !line.starts_with('#')).collect()
});

/// Why a password cannot be used, as code and detail of a field.
pub fn refusal(password: &str, email: &str) -> Option<(&'static str, String)> {
    if password.len() < BYTES_MIN {
        return Some((
            "too_short",
            format!("use at least {BYTES_MIN} bytes; a sentence is easy to remember"),
        ));
    }
    if password.len() > BYTES_MAX {
        return Some(("too_long", format!("use at most {BYTES_MAX} bytes")));
    }
    let lower = password.to_lowercase();
    let is_repeated =
        |piece: usize| lower.as_bytes().chunks(piece).all(|it| lower.as_bytes().starts_with(it));
    let is_common = COMMON.binary_search(&lower.as_str()).is_ok() || (1..=PIECE_BYTES_MAX).any(is_repeated);
    if is_common || lower == email.to_lowercase() {
        return Some(("too_common", "it is among the first that somebody would try; use another".to_owned()));
    }
    None
}

type Job = Box<dyn FnOnce() + Send>;

/// Hashes and checks passwords.
pub struct Hasher {
    jobs: Sender<Job>,
    slots: Arc<Semaphore>,
    /// Those that run and those that wait for it.
    inside: AtomicUsize,
    inside_max: usize,
    /// The hash of a password that nobody has.
    nobody: String,
}

impl Hasher {
    /// At most `parallel` hashes at once, and `queue_max` more that wait.
    pub fn new(parallel: usize, queue_max: usize) -> Result<Self, Problem> {
        let nobody = hash_now(&random::bytes::<32>())?;
        let parallel = parallel.max(1);
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..parallel {
            let waiting = waiting.clone();
            std::thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(move || work(&waiting))
                .map_err(|error| Problem::internal(&error))?;
        }
        let slots = Arc::new(Semaphore::new(parallel));
        let inside_max = parallel + queue_max;
        Ok(Self { jobs, slots, inside: AtomicUsize::new(0), inside_max, nobody })
    }

    /// The hash to store for a password.
    pub async fn hash(&self, password: &str) -> Result<String, Problem> {
        let password = Zeroizing::new(password.as_bytes().to_vec());
        self.run(move || hash_now(&password)).await?
    }

    /// Whether the password is the one that was hashed; without a hash it costs the same and is not.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, Problem> {
        let password = Zeroizing::new(password.as_bytes().to_vec());
        let (known, hash) = (hash.is_some(), hash.unwrap_or(&self.nobody).to_owned());
        let right = self.run(move || verify_now(&password, &hash)).await??;
        Ok(right && known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let _inside = Inside::enter(&self.inside, self.inside_max)
            .ok_or_else(|| Problem::plain(Code::Busy).retry_after(RETRY_AFTER_S))?;
        let slot = self.slots.clone().acquire_owned().await.map_err(|error| Problem::internal(&error))?;
        let started = std::time::Instant::now();
        let (reply, done) = oneshot::channel();
        let job = move || {
            // Held by the work, not by who waits for it: a client that went away frees no core.
            let _slot = slot;
            // Nobody may wait any more.
            let _ = reply.send(work());
        };
        self.jobs.send(Box::new(job)).map_err(|error| Problem::internal(&error))?;
        let done = done.await.map_err(|error| Problem::internal(&error));
        crate::metrics::hashed(started.elapsed());
        done
    }
}

/// Hashes until the hasher is gone.
fn work(waiting: &Mutex<Receiver<Job>>) {
    // On Linux this is the calling thread's alone. A system that does not let it hashes at the priority of everything.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(error = %error, "passwords are hashed at the priority of everything else");
    }
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Who waits for it is told that it failed, and the thread goes on.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// Counts one, until dropped.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let entered = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| {
            (inside < most).then_some(inside + 1)
        });
        entered.ok().map(|_| Self(count))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn argon2() -> Result<Argon2<'static>, Problem> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| Problem::internal(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &[u8]) -> Result<String, Problem> {
    let salt = random::bytes::<SALT_BYTES>();
    let hash = argon2()?.hash_password_with_salt(password, &salt);
    Ok(hash.map_err(|error| Problem::internal(&error))?.to_string())
}

fn verify_now(password: &[u8], hash: &str) -> Result<bool, Problem> {
    let hash = PasswordHash::new(hash).map_err(|error| Problem::internal(&error))?;
    Ok(argon2()?.verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_long_and_common_passwords_are_refused() {
        let long = "ä".repeat(129);
        for (password, code) in [
            ("elevenbytes", "too_short"),
            (long.as_str(), "too_long"),
            ("Password1234", "too_common"),
            ("aaaaaaaaaaaaaaaaaaaa", "too_common"),
            ("abcabcabcabcab", "too_common"),
            ("Anna.Bell@example.com", "too_common"),
        ] {
            assert_eq!(refusal(password, "anna.bell@example.com").map(|it| it.0), Some(code), "{password}");
        }
        for password in ["correct horse", "пароль-кита", &"x1".repeat(6)[..11], "twelve bytes"] {
            let expected = (password.len() < BYTES_MIN).then_some("too_short");
            assert_eq!(refusal(password, "a@b.c").map(|it| it.0), expected, "{password}");
        }
        assert!(COMMON.is_sorted() && COMMON.len() > 150);
    }

    #[tokio::test]
    async fn a_hash_fits_its_password_alone_and_nobody_has_none() {
        let hasher = Hasher::new(2, 8).unwrap();
        let hash = hasher.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("correct horse battery").await.unwrap());
        assert!(hasher.verify("correct horse battery", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("correct horse batterz", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("correct horse battery", None).await.unwrap());
    }

    #[tokio::test]
    async fn hashing_stands_behind_everything_else() {
        let hasher = Hasher::new(1, 2).unwrap();
        assert!(!hasher.verify("whatever it is", None).await.unwrap());
        // The 17th field behind the name is what `nice` says.
        let nice = |task: &std::path::Path| {
            let stat = std::fs::read_to_string(task.join("stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse::<i32>().ok()
        };
        let own = nice(std::path::Path::new("/proc/thread-self")).unwrap();
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let hashing = tasks.filter(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("password-"))
        });
        let hashing: Vec<_> = hashing.filter_map(|task| nice(&task)).collect();
        assert!(
            !hashing.is_empty() && hashing.iter().all(|it| *it == (own + NICENESS).min(19)),
            "{hashing:?}"
        );
    }

    #[tokio::test]
    async fn a_hash_that_panics_takes_no_thread_with_it() {
        let hasher = Hasher::new(1, 2).unwrap();
        assert!(hasher.run(|| -> bool { panic!("of the test") }).await.is_err());
        assert!(!hasher.verify("whatever it is", None).await.unwrap());
    }

    #[tokio::test]
    async fn more_than_the_queue_holds_are_sent_away_at_once() {
        let hasher = Hasher::new(1, 2).unwrap();
        let tries =
            futures_util::future::join_all((0..20).map(|_| hasher.verify("whatever it is", None))).await;
        let busy = tries.iter().filter(|it| matches!(it, Err(problem) if problem.code == Code::Busy)).count();
        assert_eq!((busy, tries.len() - busy), (17, 3));
        assert!(hasher.verify("whatever it is", None).await.is_ok(), "the queue is free again");
    }
}
