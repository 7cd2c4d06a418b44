//! Tables of what may start, wait or go to the database.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    number: u32,
    order: Option<Uuid>,
    first: bool,
    since: Instant,
}

impl Queued for Item {
    fn order(&self) -> Option<Uuid> {
        self.order
    }

    fn is_first(&self) -> bool {
        self.first
    }

    fn since(&self) -> Instant {
        self.since
    }
}

const LIMITS: Limits = Limits { total: 60, endpoint: 16, share: 10 };
const QUICK: End = End { succeeded: true, was_slow: false, took: Duration::from_millis(1) };
const FAILED: End = End { succeeded: false, was_slow: false, took: Duration::from_millis(1) };
const ENDPOINT: Uuid = Uuid::from_u128(1);

/// An endpoint of a partner of its own.
fn terms(endpoint: Uuid) -> Terms {
    Terms { endpoint, partner: endpoint, rate: None }
}

fn item(number: u32, now: Instant) -> Item {
    Item { number, order: None, first: true, since: now }
}

fn room(lanes: &mut Lanes<Item>, now: Instant) -> usize {
    lanes.room(terms(ENDPOINT), now).map_or(0, NonZeroUsize::get)
}

/// Makes the endpoint known as quick, with a full window.
fn prove(lanes: &mut Lanes<Item>, endpoint: Uuid, now: Instant) {
    while started(lanes, endpoint, 1, now) == 1 {
        started(lanes, endpoint, 50, now);
        while lanes.lanes.get(&endpoint).is_some_and(|lane| lane.in_flight > 0) {
            lanes.finish(endpoint, None, QUICK, now);
        }
        if lanes.lanes.get(&endpoint).is_some_and(|lane| lane.window.size() == LIMITS.endpoint) {
            return;
        }
    }
}

/// How many of `count` start at once.
fn started(lanes: &mut Lanes<Item>, endpoint: Uuid, count: u32, now: Instant) -> usize {
    (0..count)
        .filter(|number| matches!(lanes.admit(terms(endpoint), item(*number, now), now), Admission::Start(_)))
        .count()
}

#[test]
fn a_stranger_gets_few_slots_and_a_quick_endpoint_its_whole_window() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    assert_eq!(started(&mut lanes, ENDPOINT, 50, now), WINDOW_START);
    let quick = Uuid::from_u128(2);
    prove(&mut lanes, quick, now);
    assert_eq!(started(&mut lanes, quick, 50, now), LIMITS.endpoint);
}

#[test]
fn what_waits_starts_when_another_ends_and_nothing_is_lost() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    let (mut running, mut waiting) = (0, 0);
    for number in 0..100 {
        match lanes.admit(terms(ENDPOINT), item(number, now), now) {
            Admission::Start(_) => running += 1,
            Admission::Waits => waiting += 1,
            Admission::Spill(..) => panic!("a quick endpoint's deliveries wait"),
        }
    }
    assert_eq!((running, waiting), (16, 84));
    let mut done = 0;
    while running > 0 {
        let next = lanes.finish(ENDPOINT, None, QUICK, now);
        done += 1;
        running = running - 1 + next.start.len();
        assert!(next.spill.is_empty());
    }
    assert_eq!((done, lanes.census().waiting, lanes.census().in_flight), (100, 0, 0));
}

#[test]
fn strangers_together_hold_only_their_share() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    let total: usize = (10..40).map(|id| started(&mut lanes, Uuid::from_u128(id), 5, now)).sum();
    assert_eq!(total, LIMITS.share);
    let good = Uuid::from_u128(2);
    assert_eq!(started(&mut lanes, good, 1, now), 0, "it is a stranger, too");
    // Once the silent ones are known as slow, they no longer stand in the way of other strangers.
    for _ in 0..5 {
        for id in 10..12 {
            lanes.slow(Uuid::from_u128(id));
        }
    }
    assert_eq!(lanes.census(), Census { in_flight: 10, suspect: 10, ..Census::default() });
    assert_eq!(started(&mut lanes, good, 5, now), 5);
    // And they have their own share, which is full.
    assert_eq!(started(&mut lanes, Uuid::from_u128(10), 5, now), 0);
}

#[test]
fn bad_endpoints_never_keep_a_proven_one_from_its_window() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    for id in 10..100 {
        let bad = Uuid::from_u128(id);
        started(&mut lanes, bad, 20, now);
        lanes.slow(bad);
    }
    assert!(lanes.census().in_flight <= 2 * LIMITS.share);
    assert_eq!(started(&mut lanes, ENDPOINT, 50, now), LIMITS.endpoint);
}

#[test]
fn a_failure_sends_what_waits_to_the_database_and_five_open_the_circuit() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    started(&mut lanes, ENDPOINT, 30, now);
    let next = lanes.finish(ENDPOINT, None, FAILED, now);
    assert_eq!((next.start.len(), next.spill.len(), next.wait), (0, 14, Duration::ZERO));
    for _ in 0..4 {
        lanes.finish(ENDPOINT, None, FAILED, now);
    }
    assert_eq!(lanes.admit(terms(ENDPOINT), item(1, now), now), Admission::Spill(item(1, now), PAUSE_MIN));
    assert_eq!((room(&mut lanes, now), lanes.census().circuits_open), (0, 1));
    let later = now + PAUSE_MIN;
    assert_eq!(room(&mut lanes, later), 0, "the share is full of it");
    for _ in 0..11 {
        lanes.finish(ENDPOINT, None, FAILED, now);
    }
    assert_eq!(room(&mut lanes, later), 1, "one probe");
    let probes = vec![item(1, later), item(2, later)];
    let next = lanes.admit_retries(terms(ENDPOINT), probes, later);
    assert_eq!((next.start.len(), next.spill.len()), (1, 1));
    lanes.finish(ENDPOINT, None, QUICK, later);
    assert_eq!(lanes.census().circuits_open, 0);
}

#[test]
fn a_silent_endpoint_lets_nothing_wait() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    assert_eq!(started(&mut lanes, ENDPOINT, 16, now), 16);
    assert_eq!(lanes.admit(terms(ENDPOINT), item(1, now), now), Admission::Waits);
    let later = now + STALL;
    assert_eq!(
        lanes.admit(terms(ENDPOINT), item(2, later), later),
        Admission::Spill(item(2, later), Duration::ZERO)
    );
    assert_eq!(lanes.expire(now), [], "not old yet");
    assert_eq!(lanes.expire(later), [item(1, now)]);
}

#[test]
fn events_of_one_payment_go_one_after_the_other() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    let payment = Some(Uuid::from_u128(77));
    let of_payment = |number| Item { order: payment, ..item(number, now) };
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(1), now), Admission::Start(of_payment(1)));
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(2), now), Admission::Waits);
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(3), now), Admission::Waits);
    assert_eq!(lanes.admit(terms(ENDPOINT), item(9, now), now), Admission::Start(item(9, now)));
    assert_eq!(lanes.finish(ENDPOINT, None, QUICK, now).start, [], "another's end changes nothing");
    assert_eq!(lanes.finish(ENDPOINT, payment, QUICK, now).start, [of_payment(2)]);
    assert_eq!(lanes.finish(ENDPOINT, payment, QUICK, now).start, [of_payment(3)]);
    assert_eq!(lanes.finish(ENDPOINT, payment, QUICK, now).start, []);
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(4), now), Admission::Start(of_payment(4)));
}

#[test]
fn those_behind_a_delivery_that_goes_to_the_database_go_with_it() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    started(&mut lanes, ENDPOINT, 16, now);
    let payment = Some(Uuid::from_u128(77));
    let of_payment = |number| Item { order: payment, ..item(number, now) };
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(1), now), Admission::Waits);
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(2), now), Admission::Waits);
    assert_eq!(lanes.expire(now + STALL), [of_payment(1), of_payment(2)]);
    assert_eq!(lanes.finish(ENDPOINT, None, QUICK, now).start, []);
    // The chain is gone as well: the next does not wait for ever.
    assert_eq!(lanes.admit(terms(ENDPOINT), of_payment(3), now), Admission::Start(of_payment(3)));
}

#[test]
fn retries_of_a_quick_endpoint_wait_in_its_lane_and_take_turns() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    assert_eq!(room(&mut lanes, now), 16 + LIMITS.total * RETRIES_PER_SLOT / 2);
    assert!(16 + RETRIES_MAX > room(&mut lanes, now), "a partner alone may have half of all");
    let retries = (100..130).map(|number| Item { first: false, ..item(number, now) }).collect();
    let next = lanes.admit_retries(terms(ENDPOINT), retries, now);
    assert_eq!((next.start.len(), next.spill.len()), (16, 0));
    for number in 0..14 {
        assert_eq!(lanes.admit(terms(ENDPOINT), item(number, now), now), Admission::Waits);
    }
    let order: Vec<bool> =
        (0..8).flat_map(|_| lanes.finish(ENDPOINT, None, QUICK, now).start).map(|item| item.first).collect();
    assert_eq!(order.iter().filter(|first| **first).count(), 4, "{order:?}");
}

#[test]
fn lanes_of_removed_endpoints_are_forgotten_when_idle() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    started(&mut lanes, ENDPOINT, 1, now);
    lanes.retain(|_| false);
    assert_eq!(lanes.lanes.len(), 1);
    lanes.finish(ENDPOINT, None, QUICK, now);
    lanes.retain(|_| false);
    assert!(lanes.lanes.is_empty());
}

#[test]
fn a_partner_never_keeps_another_from_its_slots() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    let greedy = |endpoint: u128| Terms { partner: Uuid::from_u128(7), ..terms(Uuid::from_u128(endpoint)) };
    let of = |lanes: &mut Lanes<Item>, terms: Terms| {
        (0..50)
            .filter(|number| matches!(lanes.admit(terms, item(*number, now), now), Admission::Start(_)))
            .count()
    };
    for endpoint in 20..26 {
        // Known as quick, one after the other.
        while lanes.lanes.get(&Uuid::from_u128(endpoint)).is_none_or(|lane| lane.window.size() < 16) {
            let started = of(&mut lanes, greedy(endpoint));
            for _ in 0..(started.max(1) + 50) {
                lanes.finish(Uuid::from_u128(endpoint), None, QUICK, now);
            }
        }
    }
    prove(&mut lanes, ENDPOINT, now);
    assert_eq!(lanes.census(), Census::default());
    let held: usize = (20..26).map(|endpoint| of(&mut lanes, greedy(endpoint))).sum();
    assert_eq!(held, LIMITS.total / 2, "one alone");
    // Two that want all they can get have a third each; whatever the first holds already, the second finds its window.
    assert_eq!(started(&mut lanes, ENDPOINT, 50, now), 15);
    assert_eq!(lanes.census().in_flight, 45);
}

#[test]
fn over_its_rate_an_endpoint_goes_to_the_database_in_order() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    let rated = Terms { rate: NonZeroU32::new(2), ..terms(ENDPOINT) };
    assert_eq!(lanes.admit(rated, item(1, now), now), Admission::Start(item(1, now)));
    let mut waits = Vec::new();
    for number in 2..5 {
        match lanes.admit(rated, item(number, now), now) {
            Admission::Spill(_, wait) => waits.push(wait.as_millis()),
            other => panic!("{other:?} at 2/s"),
        }
    }
    assert_eq!(waits, [500, 1_000, 1_500]);
    assert_eq!(lanes.room(rated, now), Err(Duration::from_millis(400)), "less the burst");
    assert_eq!(lanes.room(rated, now + Duration::from_millis(500)).map(NonZeroUsize::get), Ok(1));
    // Its owner lifts the rate.
    assert!(lanes.room(terms(ENDPOINT), now).is_ok());
}

#[test]
fn replayed_events_of_one_payment_go_one_after_the_other_and_chains_end() {
    let (mut lanes, now) = (Lanes::new(LIMITS), Instant::now());
    prove(&mut lanes, ENDPOINT, now);
    let payment = Some(Uuid::from_u128(77));
    let replayed = |number| Item { order: payment, first: false, ..item(number, now) };
    let next = lanes.admit_retries(terms(ENDPOINT), vec![replayed(1), replayed(2), replayed(3)], now);
    assert_eq!((next.start, next.spill), (vec![replayed(1)], vec![]));
    assert_eq!(lanes.admit(terms(ENDPOINT), Item { order: payment, ..item(4, now) }, now), Admission::Waits);
    assert_eq!(lanes.finish(ENDPOINT, payment, QUICK, now).start, [replayed(2)]);
    // A failure sends those behind it to the database, and closes the chain.
    let next = lanes.finish(ENDPOINT, payment, FAILED, now);
    assert_eq!(next.start.len() + next.spill.len(), 2);
    for _ in 0..next.start.len() {
        lanes.finish(ENDPOINT, payment, QUICK, now);
    }
    prove(&mut lanes, ENDPOINT, now);
    // Queued ones that are evicted leave no chain behind, either.
    let others: Vec<_> = (0..16).map(|number| Item { first: false, ..item(number, now) }).collect();
    assert_eq!(lanes.admit_retries(terms(ENDPOINT), others, now).start.len(), 16);
    assert_eq!(lanes.admit_retries(terms(ENDPOINT), vec![replayed(5)], now).start, []);
    assert_eq!(lanes.slow(ENDPOINT).spill, [replayed(5)]);
    assert!(lanes.lanes.get(&ENDPOINT).is_some_and(|lane| lane.chains.is_empty()));
}
