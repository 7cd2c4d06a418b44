//! migrations.
fn main() {}
