//! processor.
fn main() {}
