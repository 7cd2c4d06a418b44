//! Everything that a filter lets through, as one stream in bounded memory: pages are read while the client takes them,
//! and no connection or transaction is held in between.
//!
//! The last line says how many rows came before it and their SHA-256, so that an export that was cut off is noticed:
//! by its end, and by the connection, which is broken instead of closed.

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::MySqlPool;
use tokio::sync::mpsc;

use super::{Item, Merge};
use crate::csv::{Cell, line};

/// Bytes of a piece; as many pieces wait for a slow client.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES: usize = 4;
/// Tries of a page, when MySQL is away for a moment.
const TRIES: u32 = 5;
/// Between two tries.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines of cells, neutralised against formulas.
    Csv,
    /// A line of JSON for each item.
    Ndjson,
}

const HEADER: [&str; 14] = [
    "at",
    "source",
    "action",
    "outcome",
    "reason",
    "actor",
    "partner",
    "target",
    "request_id",
    "address",
    "status",
    "duration_us",
    "id",
    "detail",
];

/// Begins to write; what is received is the body. It ends early, with an error, when MySQL stays away.
pub fn start(pool: MySqlPool, merge: Merge, format: Format) -> mpsc::Receiver<Result<Bytes, std::io::Error>> {
    let (pieces, body) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut writer = Writer { format, text: String::new(), sha256: Sha256::new(), rows: 0, pieces };
        // A client that went away ends it.
        if let Err(Some(error)) = writer.write(&pool, merge).await {
            tracing::warn!(error = %error, "an export of the audit was cut off");
            let _ = writer.pieces.send(Err(std::io::Error::other("MySQL"))).await;
        }
    });
    body
}

struct Writer {
    format: Format,
    text: String,
    sha256: Sha256,
    rows: u64,
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

impl Writer {
    /// `Err(None)`: nobody reads any more.
    async fn write(&mut self, pool: &MySqlPool, mut merge: Merge) -> Result<(), Option<sqlx::Error>> {
        if self.format == Format::Csv {
            line(&mut self.text, &HEADER.map(Cell::Plain));
        }
        while let Some(item) = next(pool, &mut merge).await? {
            self.rows += 1;
            self.item(&item);
            if self.text.len() >= PIECE_BYTES {
                self.send().await?;
            }
        }
        self.sha256.update(self.text.as_bytes());
        let sha256 = std::mem::take(&mut self.sha256).finalize();
        let sha256 = sha256.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let rows = self.rows;
        match self.format {
            Format::Csv => {
                let cells = ["end", &rows.to_string(), "rows, SHA-256 of all lines before", &sha256];
                line(&mut self.text, &cells.map(Cell::Plain));
            }
            Format::Ndjson => {
                self.text.push_str(&json!({ "end": { "rows": rows, "sha256": sha256 } }).to_string());
                self.text.push('\n');
            }
        }
        let rest = Bytes::from(std::mem::take(&mut self.text));
        self.pieces.send(Ok(rest)).await.map_err(|_| None)
    }

    fn item(&mut self, item: &Item) {
        if self.format == Format::Ndjson {
            // Text, numbers and JSON alone, so this does not fail.
            self.text.push_str(&serde_json::to_string(item).unwrap_or_default());
            self.text.push('\n');
            return;
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let number = |number: Option<u32>| number.map(|it| it.to_string()).unwrap_or_default();
        let cells = [
            item.at.to_string(),
            item.source.as_str().to_owned(),
            item.action.clone(),
            item.outcome.as_str().to_owned(),
            text(&item.reason),
            text(&item.actor),
            text(&item.partner),
            text(&item.target),
            item.request_id.to_string(),
            item.address.map(|it| it.to_string()).unwrap_or_default(),
            number(item.status.map(u32::from)),
            number(item.duration_us),
            item.id.clone(),
            item.detail.to_string(),
        ];
        line(&mut self.text, &cells.each_ref().map(|cell| Cell::Text(cell)));
    }

    async fn send(&mut self) -> Result<(), Option<sqlx::Error>> {
        self.sha256.update(self.text.as_bytes());
        let piece = Bytes::from(std::mem::take(&mut self.text));
        self.pieces.send(Ok(piece)).await.map_err(|_| None)
    }
}

/// The next item. A read that failed is read again: what was taken before stays taken.
async fn next(pool: &MySqlPool, merge: &mut Merge) -> Result<Option<Item>, sqlx::Error> {
    let mut tries = 1;
    loop {
        match merge.next(pool, u64::MAX).await {
            Ok(item) => return Ok(item),
            Err(error) if tries >= TRIES => return Err(error),
            Err(error) => tracing::debug!(error = %error, "an export reads again"),
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
