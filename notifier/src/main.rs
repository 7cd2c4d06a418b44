//! notifier.
fn main() {}
