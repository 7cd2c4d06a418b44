//! Where a benchmark runs, and that durability is not relaxed there.

use std::fs;

use anyhow::bail;
use sqlx::{MySqlPool, Row as _};

/// Says what the machine is; refuses a MySQL that would lose commits with the power.
pub(super) async fn describe(pool: &MySqlPool) -> anyhow::Result<String> {
    let row = sqlx::query(
        "SELECT CAST(VERSION() AS CHAR), CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), \
         CAST(@@sync_binlog AS SIGNED), CAST(@@log_bin AS SIGNED), \
         CAST(@@innodb_buffer_pool_size DIV 1048576 AS SIGNED), \
         CAST(@@innodb_redo_log_capacity DIV 1048576 AS SIGNED)",
    )
    .fetch_one(pool)
    .await?;
    let runtime::mysql::Text(version) = row.try_get(0)?;
    let [flush, sync, binlog, pool_mib, redo_mib]: [i64; 5] =
        [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
    if (flush, sync, binlog) != (1, 1, 1) {
        bail!(
            "MySQL is not durable (innodb_flush_log_at_trx_commit={flush}, sync_binlog={sync}, log_bin={binlog}; \
             all must be 1): figures would mean nothing"
        );
    }
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!(
        "{cpus} x {}, {} GiB memory, Linux {}; MySQL {version} (buffer pool {pool_mib} MiB, redo log {redo_mib} MiB, \
         flush_log_at_trx_commit=1, sync_binlog=1), Kafka with acks=all; all processes and the load on this machine",
        field("/proc/cpuinfo", "model name"),
        memory_gib(),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
    ))
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
}

fn memory_gib() -> u64 {
    let kib: u64 = field("/proc/meminfo", "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or(0);
    kib / 1_048_576
}
