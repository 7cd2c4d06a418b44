//! A real signal.

use std::process::Command;
use std::time::Duration;

use runtime::shutdown;

#[tokio::test]
async fn sigterm_asks_to_stop() {
    let token = shutdown::on_signal();
    assert!(!token.is_cancelled());
    let killed = Command::new("sh").args(["-c", "kill -TERM $PPID"]).status().unwrap();
    assert!(killed.success());
    tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.expect("the token is cancelled");
}
