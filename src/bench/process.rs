//! What processes and threads use, as Linux tells it.

use std::{collections::HashMap, fs};

/// Seconds this thread has had a core: other processes on the machine do not count.
pub(super) fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds of a thread's life")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

/// Seconds of CPU a process has used, all its threads, to the hundredth.
pub(super) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = Stat::read(pid)?;
    Some(seconds(stat.own_ticks))
}

/// Seconds of CPU a process and its children have used, those included that have ended.
pub(super) fn family_cpu_seconds(parent: u32) -> Option<f64> {
    let mut ticks = Stat::read(parent).map(|stat| stat.own_ticks + stat.ended_children_ticks)?;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // A process may end while this looks at it.
        if let Some(stat) = pid.and_then(Stat::read).filter(|stat| stat.parent == parent) {
            ticks += stat.own_ticks + stat.ended_children_ticks;
        }
    }
    Some(seconds(ticks))
}

/// Memory a process has resident now, in bytes.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let fields: HashMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let kib: u64 = fields.get("VmRSS")?.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// The fields of `/proc/<pid>/stat` that matter here.
struct Stat {
    parent: u32,
    own_ticks: u64,
    ended_children_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in brackets and may hold anything; what follows it is numbers.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_ticks: number(11)? + number(12)?,
            ended_children_ticks: number(13)? + number(14)?,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks are far below 2^53")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

/// USER_HZ, which Linux has fixed at this on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let own = std::process::id();
        let begin = std::time::Instant::now();
        let mut sum = 0u64;
        while begin.elapsed() < std::time::Duration::from_millis(60) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu_seconds() > 0.0);
        let alone = cpu_seconds(own).unwrap(); // First: other threads of the tests go on using it.
        assert!(family_cpu_seconds(own).unwrap() >= alone);
        assert!(resident_bytes(own).unwrap() > 1 << 20);
        assert_eq!(cpu_seconds(u32::MAX), None);
    }
}
