//! The private listener over real HTTP.

use runtime::config::{ConfigError, PrivateListenConfig};
use runtime::health::Health;
use runtime::private;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn ready(address: std::net::SocketAddr) -> (u16, Value) {
    let (status, body) = get(address, "/health/ready").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn health_says_why_and_metrics_are_served() {
    let address = testkit::free_address();
    let (health, shutdown) = (Health::new(), CancellationToken::new());
    let config = PrivateListenConfig { private_listen: address };
    let task = private::serve(&config, health.clone(), shutdown.clone()).await.unwrap();
    let (mysql, kafka) = (health.component("mysql"), health.component("kafka"));
    mysql.up();
    kafka.down("no broker answers");
    let components = json!({"kafka": "no broker answers", "mysql": "up"});
    assert_eq!(ready(address).await, (503, json!({"ready": false, "components": components})));
    kafka.up();
    assert_eq!(
        ready(address).await,
        (200, json!({"ready": true, "components": {"kafka": "up", "mysql": "up"}}))
    );
    assert_eq!(get(address, "/health/live").await, (200, "{\"live\":true}".to_owned()));
    metrics::counter!("wired_test_things_total").increment(3);
    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "wired_test_things_total 3",
        "wired_component_up{component=\"kafka\"} 1",
        "# TYPE process_cpu_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert_eq!(get(address, "/other").await.0, 404);

    let second = private::serve(&config, Health::new(), shutdown.clone()).await;
    let error = second.expect_err("the port is taken");
    assert!(matches!(error, ConfigError::Listen { variable: "WIRED_PRIVATE_LISTEN", .. }), "{error}");
    shutdown.cancel();
    task.await.unwrap();
}
