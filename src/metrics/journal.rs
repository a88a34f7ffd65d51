//! What the journal does and how much room it takes.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Bytes written to journal segments, heads included. Label: `lane`.
pub const JOURNAL_BYTES: &str = "tapeway_journal_bytes_written_total";
/// Duration of each `fdatasync` of a segment. Label: `lane`.
pub const JOURNAL_FSYNC_SECONDS: &str = "tapeway_journal_fsync_seconds";
/// Segments a lane holds. Label: `lane`.
pub const JOURNAL_SEGMENTS: &str = "tapeway_journal_segments";
/// Bytes a lane's segments take on disk. Label: `lane`.
pub const JOURNAL_LANE_BYTES: &str = "tapeway_journal_lane_disk_bytes";
/// Bytes all lanes take on disk, against `journal.bytes_max`.
pub const JOURNAL_DISK_BYTES: &str = "tapeway_journal_bytes";
/// The limit of [`JOURNAL_DISK_BYTES`]: `journal.bytes_max`.
pub const JOURNAL_BYTES_MAX: &str = "tapeway_journal_bytes_max";
/// Bytes free on the journal's disk, against `journal.free_bytes_min`.
pub const JOURNAL_FREE_BYTES: &str = "tapeway_journal_free_bytes";
/// 1 while the journal is full and sessions do not read.
pub const JOURNAL_FULL: &str = "tapeway_journal_full";
/// 1 while a lane's journal takes nothing because a write or sync failed. Label: `lane`.
pub const JOURNAL_POISONED: &str = "tapeway_journal_poisoned";
/// Segments removed. Labels: `lane`, `reason` (`expired`: committed and old enough; `given_up`: committed, and
/// room was needed before `keep_for`).
pub const JOURNAL_REMOVED: &str = "tapeway_journal_segments_removed_total";
/// Bytes of torn tails cut by recovery: frames after the last sync that a crash took. Label: `lane`.
pub const JOURNAL_TORN_BYTES: &str = "tapeway_journal_torn_bytes_total";
/// Durable frames that can no longer be read. Label: `lane`.
pub const JOURNAL_LOST_FRAMES: &str = "tapeway_journal_lost_frames_total";

/// Gives Prometheus unit and help of the journal metrics.
pub(super) fn describe() {
    describe_counter!(JOURNAL_BYTES, Unit::Bytes, "Bytes written to journal segments.");
    describe_histogram!(JOURNAL_FSYNC_SECONDS, Unit::Seconds, "Duration of each sync of a journal segment.");
    describe_gauge!(JOURNAL_SEGMENTS, Unit::Count, "Journal segments a lane holds.");
    describe_gauge!(JOURNAL_LANE_BYTES, Unit::Bytes, "Bytes a lane's journal takes on disk.");
    describe_gauge!(JOURNAL_DISK_BYTES, Unit::Bytes, "Bytes the journal takes on disk.");
    describe_gauge!(JOURNAL_BYTES_MAX, Unit::Bytes, "Most bytes the journal may take on disk.");
    describe_gauge!(JOURNAL_FREE_BYTES, Unit::Bytes, "Bytes free on the journal's disk.");
    describe_gauge!(JOURNAL_FULL, "1 while the journal is full and sessions do not read.");
    describe_gauge!(JOURNAL_POISONED, "1 while a lane's journal takes nothing after a failed write or sync.");
    describe_counter!(JOURNAL_REMOVED, Unit::Count, "Journal segments removed.");
    describe_counter!(JOURNAL_TORN_BYTES, Unit::Bytes, "Bytes of torn tails cut by recovery.");
    describe_counter!(JOURNAL_LOST_FRAMES, Unit::Count, "Durable frames that can no longer be read.");
}

/// One lane's journal metrics.
pub struct JournalLane {
    /// [`JOURNAL_BYTES`].
    pub bytes: Counter,
    /// [`JOURNAL_FSYNC_SECONDS`].
    pub fsync_seconds: Histogram,
    /// [`JOURNAL_POISONED`].
    pub poisoned: Gauge,
    segments: Gauge,
    disk_bytes: Gauge,
    expired: Counter,
    given_up: Counter,
    torn_bytes: Counter,
    lost_frames: Counter,
}

impl JournalLane {
    /// The handles of one lane.
    #[must_use]
    pub fn new(lane: &str) -> Self {
        let lane = lane.to_owned();
        Self {
            bytes: counter!(JOURNAL_BYTES, "lane" => lane.clone()),
            fsync_seconds: histogram!(JOURNAL_FSYNC_SECONDS, "lane" => lane.clone()),
            poisoned: gauge!(JOURNAL_POISONED, "lane" => lane.clone()),
            segments: gauge!(JOURNAL_SEGMENTS, "lane" => lane.clone()),
            disk_bytes: gauge!(JOURNAL_LANE_BYTES, "lane" => lane.clone()),
            expired: counter!(JOURNAL_REMOVED, "lane" => lane.clone(), "reason" => "expired"),
            given_up: counter!(JOURNAL_REMOVED, "lane" => lane.clone(), "reason" => "given_up"),
            torn_bytes: counter!(JOURNAL_TORN_BYTES, "lane" => lane.clone()),
            lost_frames: counter!(JOURNAL_LOST_FRAMES, "lane" => lane),
        }
    }

    /// Counts what recovery cut and lost.
    pub fn count_recovery(&self, torn_bytes: u64, lost_frames: u64) {
        self.torn_bytes.increment(torn_bytes);
        self.lost_frames.increment(lost_frames);
    }

    /// Counts a removed segment.
    pub fn count_removed(&self, is_expired: bool) {
        if is_expired { &self.expired } else { &self.given_up }.increment(1);
    }

    /// Sets what the lane takes on disk.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn set_usage(&self, segments: u64, bytes: u64) {
        self.segments.set(segments as f64);
        self.disk_bytes.set(bytes as f64);
    }
}

impl std::fmt::Debug for JournalLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalLane")
    }
}

/// Sets how much room the journal takes and has.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn set_journal_room(bytes: u64, bytes_max: u64, free: u64, is_full: bool) {
    gauge!(JOURNAL_DISK_BYTES).set(bytes as f64);
    gauge!(JOURNAL_BYTES_MAX).set(bytes_max as f64);
    gauge!(JOURNAL_FREE_BYTES).set(free as f64);
    gauge!(JOURNAL_FULL).set(f64::from(u8::from(is_full)));
}
