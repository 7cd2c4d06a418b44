use super::*;
use proptest::prelude::*;

/// A text made by one call.
fn written(write: impl FnOnce(&mut Sql) -> &mut Sql) -> String {
    let mut sql = Sql::new();
    write(&mut sql);
    sql.as_str().to_owned()
}

#[test]
fn each_kind_of_value_has_one_form() {
    let id = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let time = [2026, 1, 31, 2, 3, 4, 50];
    let cases: &[(String, &str)] = &[
        (written(|sql| sql.text("SELECT 1")), "SELECT 1"),
        (written(|sql| sql.int(0_u8)), "0"),
        (written(|sql| sql.int(i64::MIN)), "-9223372036854775808"),
        (written(|sql| sql.int(u64::MAX)), "18446744073709551615"),
        (written(|sql| sql.opt_int(Some(7_i32))), "7"),
        (written(|sql| sql.opt_int(None::<i64>)), "NULL"),
        (written(|sql| sql.bytes(&[0, 0x7f, 0xff])), "0x007FFF"),
        (written(|sql| sql.bytes(&[])), "''"),
        (written(|sql| sql.opt_bytes(Some(&[1]))), "0x01"),
        (written(|sql| sql.opt_bytes(None)), "NULL"),
        (written(|sql| sql.uuid(id)), "0x00112233445566778899AABBCCDDEEFF"),
        (written(|sql| sql.opt_uuid(None)), "NULL"),
        (written(|sql| sql.string("ä'\\")), "_utf8mb4 0xC3A4275C"),
        (written(|sql| sql.string("")), "_utf8mb4 ''"),
        (written(|sql| sql.opt_string(None)), "NULL"),
        (written(|sql| sql.datetime(time)), "20260131020304.000050"),
        (written(|sql| sql.opt_datetime(None)), "NULL"),
        (
            written(|sql| {
                sql.list([1, 2, 3], |sql, item| {
                    sql.text("(").int(item).text(")");
                })
            }),
            "(1),(2),(3)",
        ),
        (
            written(|sql| {
                sql.list([0; 0], |sql, item| {
                    sql.int(item);
                })
            }),
            "",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text, expected);
    }
}

#[test]
fn a_cleared_text_begins_anew() {
    let mut sql = Sql::with_capacity(16);
    assert!(sql.is_empty());
    sql.text("SELECT ").int(1);
    assert_eq!(sql.len(), 8);
    sql.clear();
    assert_eq!(sql.text("x").as_str(), "x");
}

proptest! {
    /// Whatever the value, it leaves as nothing but digits in the one form; no quote, no comment, no semicolon.
    #[test]
    fn no_value_can_leave_its_literal(text in any::<String>(), bytes in any::<Vec<u8>>(), number in any::<i128>()) {
        let is_hex = |literal: &str| literal == "''"
            || literal.strip_prefix("0x").is_some_and(|digits| {
                !digits.is_empty() && digits.len() % 2 == 0 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            });
        let string = written(|sql| sql.string(&text));
        prop_assert!(string.strip_prefix("_utf8mb4 ").is_some_and(is_hex), "{string}");
        prop_assert!(is_hex(&written(|sql| sql.bytes(&bytes))));
        prop_assert_eq!(written(|sql| sql.int(number)), number.to_string());
        prop_assert_eq!(written(|sql| sql.bytes(&bytes)).to_lowercase(), hex(&bytes));
    }

    #[test]
    fn times_are_digits_with_a_point(fields in any::<[i64; 7]>()) {
        let text = written(|sql| sql.datetime(fields));
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-'), "{text}");
    }
}

/// Another way to the same.
fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "''".to_owned();
    }
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
