//! Which core each writer thread is pinned to.

use core_affinity::CoreId;

use crate::config::Pin;

/// Threads when the configuration does not say: one for every four cores, at least one.
pub(super) fn threads(configured: Option<usize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    configured.unwrap_or_else(|| (cores / CORES_PER_THREAD).max(2).min(cores)).clamp(1, THREADS_MAX)
}

/// The core of each thread; `None` for one that may run anywhere.
pub(super) fn cores(pin: &Pin, threads: usize) -> Vec<Option<CoreId>> {
    choose(pin, threads, &core_affinity::get_core_ids().unwrap_or_default())
}

fn choose(pin: &Pin, threads: usize, available: &[CoreId]) -> Vec<Option<CoreId>> {
    (0..threads)
        .map(|thread| match pin {
            // The first core is left to everything else, and so is every core once the others are taken.
            Pin::Auto => available.iter().skip(1).rev().nth(thread).copied(),
            Pin::Off => None,
            Pin::Cores(list) if list.is_empty() => None,
            Pin::Cores(list) => Some(CoreId { id: list[thread % list.len()] }),
        })
        .collect()
}

/// Two in any case, if there are two cores: while one waits for its server process the other's is busy.
const CORES_PER_THREAD: usize = 4;
/// More writers than this only compete for the database.
const THREADS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pin: &Pin, threads: usize, cores: usize) -> Vec<Option<usize>> {
        let available: Vec<_> = (0..cores).map(|id| CoreId { id }).collect();
        choose(pin, threads, &available).into_iter().map(|core| core.map(|core| core.id)).collect()
    }

    #[test]
    fn auto_takes_the_last_cores_and_leaves_the_first() {
        assert_eq!(ids(&Pin::Auto, 3, 3), [Some(2), Some(1), None]);
        assert_eq!(ids(&Pin::Auto, 1, 1), [None]);
    }

    #[test]
    fn a_list_repeats() {
        assert_eq!(ids(&Pin::Cores(vec![4, 6]), 3, 8), [Some(4), Some(6), Some(4)]);
        assert_eq!(ids(&Pin::Off, 2, 8), [None, None]);
    }
}
