//! Passwords: which are accepted, and how they are hashed.
//!
//! Argon2id (RFC 9106) with 19 MiB, two passes and one lane. Each hash takes its memory and a core for tens of
//! milliseconds, so they run on threads of their own, each with memory that it keeps; at most `queue_max` wait, and
//! whoever comes then is told to come back. In the long run the threads take no more of the machine than `cores`, so that
//! a flood of log-ins leaves the rest to money. A priority would not do that: the scheduler shares cores out between
//! services first, and between the threads of one service only then.
//!
//! A log-in of nobody is checked against a hash of nothing: it costs the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use rustix::time::{ClockId, clock_gettime};
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
/// Seconds of hashing that may be saved up while nobody logs in, so that a handful who come at once do not wait.
const SAVED_S_MAX: f64 = 1.0;
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

type Job = Box<dyn FnOnce(&mut [Block]) + Send>;

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
    /// As many hashes at once as `cores` begins, and `queue_max` more that wait.
    pub fn new(cores: f64, queue_max: usize) -> Result<Self, Problem> {
        let nobody = hash_now(&random::bytes::<32>(), &mut memory())?;
        let parallel = (cores.ceil() as usize).max(1);
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..parallel {
            let waiting = waiting.clone();
            std::thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(move || work(&waiting, Budget::new(cores / parallel as f64)))
                .map_err(|error| Problem::internal(&error))?;
        }
        let slots = Arc::new(Semaphore::new(parallel));
        let inside_max = parallel + queue_max;
        Ok(Self { jobs, slots, inside: AtomicUsize::new(0), inside_max, nobody })
    }

    /// Sends whoever comes away while as many wait as may: before anything is read for them.
    pub fn check_room(&self) -> Result<(), Problem> {
        if self.inside.load(Ordering::Acquire) < self.inside_max { Ok(()) } else { Err(full()) }
    }

    /// The hash to store for a password.
    pub async fn hash(&self, password: &str) -> Result<String, Problem> {
        let password = Zeroizing::new(password.as_bytes().to_vec());
        self.run(move |memory| hash_now(&password, memory)).await?
    }

    /// Whether the password is the one that was hashed; without a hash it costs the same and is not.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, Problem> {
        let password = Zeroizing::new(password.as_bytes().to_vec());
        let (known, hash) = (hash.is_some(), hash.unwrap_or(&self.nobody).to_owned());
        let right = self.run(move |memory| verify_now(&password, &hash, memory)).await??;
        Ok(right && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut [Block]) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let _inside = Inside::enter(&self.inside, self.inside_max).ok_or_else(full)?;
        let slot = self.slots.clone().acquire_owned().await.map_err(|error| Problem::internal(&error))?;
        let (reply, done) = oneshot::channel();
        let job = move |memory: &mut [Block]| {
            // Held by the work, not by who waits for it: a client that went away frees no core.
            let _slot = slot;
            let started = Instant::now();
            let worked = work(memory);
            crate::metrics::hashed(started.elapsed());
            // Nobody may wait any more.
            let _ = reply.send(worked);
        };
        self.jobs.send(Box::new(job)).map_err(|error| Problem::internal(&error))?;
        done.await.map_err(|error| Problem::internal(&error))
    }
}

fn full() -> Problem {
    Problem::plain(Code::Busy).retry_after(RETRY_AFTER_S)
}

/// Hashes until the hasher is gone.
fn work(waiting: &Mutex<Receiver<Job>>, mut budget: Budget) {
    let mut memory = memory();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        std::thread::sleep(budget.wait(Instant::now()));
        let started = cpu_time();
        // Who waits for it is told that it failed, and the thread goes on.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
        budget.spend(cpu_time().saturating_sub(started));
    }
}

/// What the calling thread has taken of a core: not what it waited while others had it.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// What a thread may take of a core: a share of the time that passes, some of it saved up.
struct Budget {
    share: f64,
    saved_s: f64,
    at: Instant,
}

impl Budget {
    fn new(share: f64) -> Self {
        Self { share, saved_s: SAVED_S_MAX, at: Instant::now() }
    }

    /// How long to wait until what was spent has come back.
    fn wait(&mut self, now: Instant) -> Duration {
        let passed_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.saved_s = (self.saved_s + passed_s * self.share).min(SAVED_S_MAX);
        self.at = now;
        Duration::from_secs_f64((-self.saved_s / self.share).max(0.0))
    }

    fn spend(&mut self, time: Duration) {
        self.saved_s -= time.as_secs_f64();
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

/// What a thread's hashes work in, one after the other: asked for anew for each, it was never given back to the system.
fn memory() -> Vec<Block> {
    vec![Block::default(); MEMORY_KIB as usize]
}

/// The hash as it is stored: in the format of PHC strings, with salt and cost.
fn hash_now(password: &[u8], memory: &mut [Block]) -> Result<String, Problem> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| Problem::internal(&error))?;
    let salt = Salt::new(&random::bytes::<SALT_BYTES>()).map_err(|error| Problem::internal(&error))?;
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(|error| Problem::internal(&error))?,
        salt: Some(salt),
        hash: Some(output(password, &salt, params, memory)?),
    };
    Ok(hash.to_string())
}

fn verify_now(password: &[u8], hash: &str, memory: &mut [Block]) -> Result<bool, Problem> {
    let hash = PasswordHash::new(hash).map_err(|error| Problem::internal(&error))?;
    let params = Params::try_from(&hash).map_err(|error| Problem::internal(&error))?;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
    // Outputs are compared in constant time.
    Ok(output(password, salt, params, memory)? == *expected)
}

fn output(password: &[u8], salt: &[u8], params: Params, memory: &mut [Block]) -> Result<Output, Problem> {
    let mut bytes = [0; Params::DEFAULT_OUTPUT_LEN];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hashed = argon2.hash_password_into_with_memory(password, salt, &mut bytes, memory);
    hashed.map_err(|error| Problem::internal(&error))?;
    Output::new(&bytes).map_err(|error| Problem::internal(&error))
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
        let hasher = Hasher::new(2.0, 8).unwrap();
        let hash = hasher.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash("correct horse battery").await.unwrap());
        assert!(hasher.verify("correct horse battery", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("correct horse batterz", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("correct horse battery", None).await.unwrap());
    }

    #[test]
    fn a_flood_gets_its_share_of_a_core_and_a_handful_does_not_wait() {
        let (hash, mut now) = (Duration::from_millis(20), Instant::now());
        let mut budget = Budget::new(0.25);
        let mut flood = |hashes: u32| {
            let begun = now;
            for _ in 0..hashes {
                now += budget.wait(now) + hash;
                budget.spend(hash);
            }
            (now - begun).as_secs_f64()
        };
        // What was saved up lasts for a second of hashes and what comes in meanwhile.
        assert!((flood(50) - 1.0).abs() < 0.001);
        // 400 hashes are 8 s of a core: 32 s less what came in during the first second.
        let took = flood(400);
        assert!((30.9..=32.1).contains(&took), "{took}");
        now += Duration::from_secs(4);
        assert_eq!(budget.wait(now), Duration::ZERO);
        // A long pause saves no more than a little.
        now += Duration::from_secs(1_000);
        assert_eq!(budget.wait(now), Duration::ZERO);
        assert!(budget.saved_s <= SAVED_S_MAX);
    }

    #[tokio::test]
    async fn a_hash_that_panics_takes_no_thread_with_it() {
        let hasher = Hasher::new(1.0, 2).unwrap();
        assert!(hasher.run(|_| -> bool { panic!("of the test") }).await.is_err());
        assert!(!hasher.verify("whatever it is", None).await.unwrap());
    }

    #[tokio::test]
    async fn more_than_the_queue_holds_are_sent_away_at_once() {
        let hasher = Hasher::new(1.0, 2).unwrap();
        let tries =
            futures_util::future::join_all((0..20).map(|_| hasher.verify("whatever it is", None))).await;
        let busy = tries.iter().filter(|it| matches!(it, Err(problem) if problem.code == Code::Busy)).count();
        assert_eq!((busy, tries.len() - busy), (17, 3));
        assert!(hasher.verify("whatever it is", None).await.is_ok(), "the queue is free again");
    }
}
