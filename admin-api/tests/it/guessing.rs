//! Who guesses passwords: slowed down, told nothing, and no harm to the user at home.

use std::time::{Duration, Instant};

use crate::harness::{Bank, Client, PASSWORD};

#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_waits_and_the_user_at_home_does_not() {
    let bank = Bank::new("admin-guess").await;
    let anna = bank.customer("anna@example.com").await;
    let wrong = async |client: &Client| client.log_in("anna@example.com", "wrong herons", None).await;
    // One machine: five guesses, then a wait, also with the right password.
    let machine = bank.client();
    for _ in 0..5 {
        wrong(&machine).await.expect_problem(401, "credentials_invalid");
    }
    let refused = machine.log_in(&anna.email, PASSWORD, None).await.expect_problem(429, "too_many_attempts");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    // Many machines: twenty guesses in all, of this user and of nobody alike.
    let mut answers = Vec::new();
    for email in ["anna@example.com", "nobody@example.com"] {
        let mut guesses = 0;
        loop {
            let answer = bank.client().log_in(email, "wrong herons", None).await;
            if answer.status == 429 {
                break;
            }
            answer.expect_problem(401, "credentials_invalid");
            guesses += 1;
            assert!(guesses <= 25, "guessing goes on and on");
        }
        answers.push(guesses);
    }
    assert!(answers[0] <= 16 && answers[1] >= 20, "{answers:?}");
    // Where anna logged in before, nothing is different.
    anna.client.log_in(&anna.email, PASSWORD, None).await.expect(200);
    // Whoever comes from elsewhere gets in by the mailbox.
    let elsewhere = bank.client();
    elsewhere.log_in(&anna.email, PASSWORD, None).await.expect_problem(429, "too_many_attempts");
    let ask = serde_json::json!({ "email": anna.email });
    elsewhere.post("/v1/auth/password-resets", ask).await.expect(202);
    let token = crate::harness::link_token(&bank.mail_to(&anna.email).await);
    let set = serde_json::json!({ "token": token, "password": "eight loud herons" });
    elsewhere.post("/v1/auth/passwords", set).await.expect(204);
    elsewhere.log_in(&anna.email, "eight loud herons", None).await.expect(200);
    bank.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_once_nobody_tries_more_often_than_in_turn() {
    let bank = Bank::new("admin-at-once").await;
    let anna = bank.customer("anna@example.com").await;
    let at_once = async |client: &Client, password: &str| {
        let tries = (0..48).map(|_| client.log_in("anna@example.com", password, None));
        let answers = futures_util::future::join_all(tries).await;
        let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!(count(200) + count(401) + count(429) + count(503), 48);
        (count(200), count(401))
    };
    let (none, hashed) = at_once(&bank.client(), "wrong grey herons").await;
    assert!(none == 0 && (1..=5).contains(&hashed), "{hashed} guesses were hashed at once");
    // The right password costs a hash as well: whoever loops takes it from everybody else.
    let (done, _) = at_once(&anna.client, PASSWORD).await;
    assert!((1..=30).contains(&done), "{done} log-ins at once");
    bank.close().await;
}

/// 48 pairs, each a wrong password for a known and for an unknown address in random order, compared by a sign test. If
/// both take equally long, the larger count exceeds 41 of 48 once in a million runs. If one is slower in 95 of 100
/// pairs, as it is by far when nobody's password is not hashed (tens of milliseconds), the test fails with a
/// probability of 0.98.
#[tokio::test(flavor = "multi_thread")]
async fn known_and_unknown_users_take_equally_long() {
    const PAIRS: usize = 48;
    const SAME_SIDE_MAX: usize = 41;
    let bank = Bank::new("admin-timing").await;
    let mut known = Vec::new();
    for number in 0..4 {
        known.push(bank.customer(&format!("known{number}@example.com")).await.email);
    }
    bank.outbox_is_empty().await;
    let time = async |email: &str| {
        let client = bank.client();
        let started = Instant::now();
        client.log_in(email, "wrong herons", None).await.expect_problem(401, "credentials_invalid");
        started.elapsed()
    };
    let (mut slower, mut total) = (0, Duration::ZERO);
    for pair in 0..PAIRS {
        let (one, other) = (&known[pair % known.len()], format!("unknown{}@example.com", pair % known.len()));
        let mut coin = [0];
        getrandom::fill(&mut coin).unwrap();
        let (known, unknown) = if coin[0] % 2 == 0 {
            let known = time(one).await;
            (known, time(&other).await)
        } else {
            let unknown = time(&other).await;
            (time(one).await, unknown)
        };
        slower += usize::from(known > unknown);
        total += known + unknown;
    }
    assert!(
        slower.max(PAIRS - slower) <= SAME_SIDE_MAX,
        "known users were slower in {slower} of {PAIRS} pairs"
    );
    assert!(total / (2 * PAIRS as u32) > Duration::from_millis(5), "passwords are not hashed: {total:?}");
    bank.close().await;
}

/// Many at once: some are told to come back, none is lost, and the service answers others meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_ins_is_bounded() {
    let bank = Bank::new("admin-flood").await;
    let clients: Vec<_> = (0..200).map(|_| bank.client()).collect();
    let flood = clients.iter().enumerate().map(|(number, client)| async move {
        client.log_in(&format!("nobody{number}@example.com"), "wrong herons", None).await
    });
    let flood = futures_util::future::join_all(flood);
    let other = bank.client();
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        other.get("/v1/health").await.expect(200);
        started.elapsed()
    };
    let (answers, health) = tokio::join!(flood, meanwhile);
    let busy: Vec<_> = answers.iter().filter(|it| it.status == 503).collect();
    let refused = answers.iter().filter(|it| it.status == 401).count();
    assert_eq!(busy.len() + refused, 200);
    // One is hashed and 32 wait: only what comes once one of them is answered gets in as well.
    assert!(busy.len() >= 100 && refused >= 33, "{} busy, {refused} refused", busy.len());
    assert_eq!((busy[0].code().as_str(), busy[0].header("retry-after")), ("busy", Some("2")));
    assert!(health < Duration::from_secs(2), "{health:?}");
    bank.close().await;
}

/// However many passwords are guessed, and from however many machines: what it costs follows from how many users there
/// are to guess at. `WIRED_TEST_GUESSES` (2,000) guesses at ten users from a hundred networks.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_cost_no_more_than_the_throttles_let_through() {
    const USERS: usize = 10;
    let guesses: usize = std::env::var("WIRED_TEST_GUESSES").map_or(2_000, |it| it.parse().unwrap());
    let bank = Bank::new("admin-guesses").await;
    let clients: Vec<_> = (0..100).map(|_| bank.client()).collect();
    let started = Instant::now();
    let (mut refused, mut throttled) = (0, 0);
    // As many at once as two replicas' worth of patience: the queue of hashes is never full.
    for round in 0..guesses.div_ceil(20) {
        let tries = (0..20).map(|number| {
            let number = round * 20 + number;
            let client = &clients[(number / USERS) % clients.len()];
            async move {
                client.log_in(&format!("user{}@example.com", number % USERS), "wrong herons", None).await
            }
        });
        for answer in futures_util::future::join_all(tries).await {
            match (answer.status, answer.code().as_str()) {
                (401, "credentials_invalid") => refused += 1,
                (429, "too_many_attempts") => throttled += 1,
                _ => panic!("{answer:?}"),
            }
        }
    }
    // Twenty for each user, one more each minute, and those that were under way together.
    let minutes = 1 + started.elapsed().as_secs() as usize / 60;
    let most = USERS * (20 + 2 + minutes);
    assert!((USERS * 20..=most).contains(&refused), "{refused} of {guesses} guesses were hashed");
    assert!(throttled >= guesses - most);
    // Nothing is kept of what was not tried.
    assert_eq!(bank.count("audit_log").await, refused as i64);
    bank.close().await;
}
