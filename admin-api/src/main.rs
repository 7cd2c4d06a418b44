//! admin-api.
fn main() {}
