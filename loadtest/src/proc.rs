//! What the kernel knows of a process: CPU time and memory.

use std::fs;

use anyhow::Context as _;

/// Seconds of CPU, user and system, that a process has used with all its threads.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a measured process is gone")?;
    parse_cpu(&stat).context("/proc/<pid>/stat has another form")
}

/// Most memory that a process has had resident, in bytes.
pub(crate) fn rss_max_bytes(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a measured process is gone")?;
    parse_rss_max(&status).context("/proc/<pid>/status has no VmHWM")
}

/// The kernel's unit of CPU time is a hundredth of a second on every Linux that has this file.
const TICKS_PER_SECOND: f64 = 100.0;

fn parse_cpu(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th field behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn parse_rss_max(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(parse_cpu(stat), Some(3.0));
        assert_eq!(parse_rss_max("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2_097_152.0));
        assert!(cpu_seconds(std::process::id()).is_ok());
        assert!(rss_max_bytes(std::process::id()).unwrap() > 1e6);
    }
}
