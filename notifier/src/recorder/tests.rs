//! What a result makes of what is stored.

use super::*;

const OWNER: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const KEY: DeliveryKey = DeliveryKey { endpoint: Uuid::from_u128(3), event: Uuid::from_u128(4) };

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn record(standing: Standing, attempted: bool) -> Record {
    let attempt = attempted.then(|| AttemptResult {
        started_at: at(50),
        duration_us: 7,
        status_code: None,
        succeeded: standing == Standing::Delivered,
        error_class: (standing != Standing::Delivered).then_some("connect"),
        excerpt: None,
        refused_by: None,
        gone: false,
        ours: false,
    });
    Record {
        key: KEY,
        partner: Uuid::from_u128(5),
        at: at(60),
        standing,
        attempt,
        first: false,
        permit: None,
    }
}

fn stored(status: Status, attempts: u8, leased_by: Option<Uuid>) -> BTreeMap<DeliveryKey, DeliveryRow> {
    let row = DeliveryRow {
        key: KEY,
        partner: Uuid::from_u128(5),
        status,
        attempts,
        next_attempt_at: (status == Status::Pending).then(|| at(100)),
        leased_by,
        created_at: at(1),
        finished_at: (status != Status::Pending).then(|| at(2)),
    };
    BTreeMap::from([(KEY, row)])
}

#[test]
fn results_are_merged_with_what_is_stored() {
    use Status::{Dead, Delivered, Pending};
    let due = Standing::Due(at(70));
    // stored status, attempts, lease · result, with an attempt · status, attempts, next attempt, lease afterwards
    let cases = [
        (Pending, 2, Some(OWNER), due, true, (Pending, 3, Some(at(70)), None)),
        (Pending, 2, Some(OWNER), due, false, (Pending, 2, Some(at(70)), None)),
        (Pending, 2, Some(OWNER), Standing::Dead, true, (Dead, 3, None, None)),
        (Pending, 2, Some(OWNER), Standing::Delivered, true, (Delivered, 3, None, None)),
        // Another has taken the lease over: only a success counts, but the attempt is counted.
        (Pending, 2, Some(OTHER), due, true, (Pending, 3, Some(at(100)), Some(OTHER))),
        (Pending, 2, Some(OTHER), Standing::Dead, true, (Pending, 3, Some(at(100)), Some(OTHER))),
        (Pending, 2, Some(OTHER), Standing::Delivered, true, (Delivered, 3, None, None)),
        (Pending, 2, None, due, false, (Pending, 2, Some(at(100)), None)),
        (Pending, 0, Some(OTHER), Standing::Leased(at(90)), false, (Pending, 0, Some(at(100)), Some(OTHER))),
        // What is delivered stays delivered.
        (Delivered, 1, None, due, true, (Delivered, 2, None, None)),
        (Delivered, 1, None, Standing::Dead, true, (Delivered, 2, None, None)),
        (Delivered, 1, None, Standing::Leased(at(90)), false, (Delivered, 1, None, None)),
        (Dead, 10, None, due, true, (Dead, 11, None, None)),
        (Dead, 10, None, Standing::Delivered, true, (Delivered, 11, None, None)),
        // Numbers end.
        (Pending, 255, Some(OWNER), due, true, (Pending, 255, Some(at(70)), None)),
    ];
    for case in cases {
        let (status, attempts, lease, standing, attempted, expected) = case;
        let result = record(standing, attempted);
        let (new, changed, made) = merge(&[&result], &stored(status, attempts, lease), OWNER);
        assert!(new.is_empty());
        let row = &changed[0];
        assert_eq!((row.status, row.attempts, row.next_attempt_at, row.leased_by), expected, "{case:?}");
        assert_eq!(row.created_at, at(1), "{case:?}");
        assert_eq!(row.finished_at.is_some(), row.status != Pending, "{case:?}");
        assert_eq!(made.len(), usize::from(attempted && attempts < u8::MAX), "{case:?}");
        assert!(made.iter().all(|attempt| attempt.attempt == attempts + 1), "{case:?}");
    }
}

#[test]
fn a_lease_and_its_result_in_one_batch_make_one_new_row() {
    let lease = Record { first: true, ..record(Standing::Leased(at(90)), false) };
    let result = record(Standing::Delivered, true);
    let batch = [lease, result];
    let (new, merged) = split(&batch);
    assert_eq!((new.len(), merged.len()), (0, 2));
    let (new, changed, attempts) = merge(&merged, &BTreeMap::new(), OWNER);
    assert!(changed.is_empty());
    assert_eq!((new.len(), new[0].status, new[0].attempts, attempts.len()), (1, Status::Delivered, 1, 1));
}

#[test]
fn only_single_first_results_are_inserted_plainly() {
    let first = Record { first: true, ..record(Standing::Delivered, true) };
    let other = DeliveryKey { event: Uuid::from_u128(9), ..KEY };
    let update = Record { key: other, ..record(Standing::Delivered, true) };
    let batch = [first, update];
    let (new, merged) = split(&batch);
    assert_eq!((new.len(), merged.len()), (1, 1));
    assert_eq!((new[0].key, merged[0].key), (KEY, other));
}
