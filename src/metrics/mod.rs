//! Every metric tapeway exports. No other file names one; handles are made once per lane or writer and kept.
//!
//! Names are `tapeway_<noun>_<unit>[_total]` in base units. Labels come from fixed sets: venue, lane, channel, table,
//! cause, reason, writer. Never a symbol, never a URL.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tapeway_exchanges::{
    adapter::CloseKind,
    event::{Cause, Channel, GapEnd},
};

use crate::{status::LaneStatus, store::table::Table};

mod journal;

pub use journal::*;

// --- session ---

/// Frames a lane received, before parsing. Labels: venue, lane.
pub const FRAMES_RECEIVED: &str = "tapeway_frames_received_total";
/// Bytes of those frames, after inflating. Labels: venue, lane.
pub const FRAME_BYTES_RECEIVED: &str = "tapeway_frame_bytes_received_total";
/// Events decoded on the live path. Labels: venue, lane, kind.
pub const EVENTS: &str = "tapeway_events_total";
/// Inputs that could not be decoded, in whole or in part. Labels: venue, reason.
pub const DECODE_ERRORS: &str = "tapeway_decode_errors_total";
/// Gaps found. Labels: venue, channel, cause.
pub const GAPS: &str = "tapeway_gaps_total";
/// Gaps ended. Labels: venue, channel, end.
pub const GAPS_CLOSED: &str = "tapeway_gaps_closed_total";
/// Connections given up or lost. Labels: venue, reason.
pub const RECONNECTS: &str = "tapeway_reconnects_total";
/// Open connections of the lane. Labels: venue, lane.
pub const CONNECTIONS_UP: &str = "tapeway_connections_up";
/// Connections the lane is to have. Labels: venue, lane.
pub const CONNECTIONS_WANTED: &str = "tapeway_connections_wanted";
/// Trades, quotes and book messages that came again, by a lane's other connection or its own, and were not stored
/// again. Labels: venue, lane.
pub const REPEATS_DROPPED: &str = "tapeway_repeats_dropped_total";
/// Holes of one connection that the lane's other one filled before they became gaps. Labels: venue, lane.
pub const HOLES_FILLED: &str = "tapeway_holes_filled_total";
/// Subscriptions by state. Labels: venue, lane, state.
pub const SUBSCRIPTIONS: &str = "tapeway_subscriptions";
/// When the lane last received anything, Unix time. Labels: venue, lane.
pub const LAST_FRAME_TIMESTAMP: &str = "tapeway_last_frame_timestamp_seconds";
/// Venue time of a row to receive time of its frame. Labels: venue.
pub const VENUE_TO_RECEIVE: &str = "tapeway_venue_to_receive_seconds";
/// Rows offered to the queue. Labels: venue, lane.
pub const QUEUE_ROWS_IN: &str = "tapeway_queue_rows_in_total";
/// Rows the full queue refused; the writer reads them from the journal. Labels: venue, lane.
pub const QUEUE_ROWS_DROPPED: &str = "tapeway_queue_rows_dropped_total";

// --- lanes ---

/// Rows a lane's frames have given since the lane's first frame. Labels: venue, lane.
pub const LANE_ROWS_RECEIVED: &str = "tapeway_lane_rows_received";
/// Of those, rows committed. Labels: venue, lane.
pub const LANE_ROWS_COMMITTED: &str = "tapeway_lane_rows_committed";
/// Of those, rows the database refused for their data, or that another daemon of the lane wrote. Labels: venue, lane.
pub const LANE_ROWS_REJECTED: &str = "tapeway_lane_rows_rejected";
/// The rest: received - committed - rejected. Labels: venue, lane.
pub const LANE_ROWS_PENDING: &str = "tapeway_lane_rows_pending";
/// First position not yet appended. Labels: venue, lane.
pub const LANE_APPENDED: &str = "tapeway_lane_appended_position";
/// First position not yet durable. Labels: venue, lane.
pub const LANE_DURABLE: &str = "tapeway_lane_durable_position";
/// First position not yet committed; on standby, that the owner is not yet known to have written. Labels: venue, lane.
pub const LANE_COMMITTED: &str = "tapeway_lane_committed_position";
/// Lanes whose writer reads the journal because the queue was not enough; none that is on standby.
pub const LANES_BEHIND: &str = "tapeway_lanes_behind";
/// Version of the running binary. Labels: version.
pub const BUILD_INFO: &str = "tapeway_build_info";

// --- writer ---

/// Rows committed. Labels: venue, table.
pub const ROWS_COMMITTED: &str = "tapeway_rows_committed_total";
/// Rows refused for their data, or left out. Labels: venue, reason.
pub const ROWS_REJECTED: &str = "tapeway_rows_rejected_total";
/// Receive time of a frame to the commit of its rows. Labels: venue.
pub const RECEIVE_TO_COMMIT: &str = "tapeway_receive_to_commit_seconds";
/// Rows taken from the queue. Labels: venue, lane.
pub const QUEUE_ROWS_OUT: &str = "tapeway_queue_rows_out_total";
/// Rows read from the journal because the queue did not have them. Labels: venue, lane.
pub const CATCH_UP_ROWS: &str = "tapeway_catch_up_rows_total";
/// Frames by which a lane is behind while its journal is read; 0 on the live path. Labels: venue, lane.
pub const LANE_BEHIND_FRAMES: &str = "tapeway_lane_behind_frames";
/// Whether another daemon holds the lane. Labels: venue, lane.
pub const LANE_STANDBY: &str = "tapeway_lane_standby";
/// Rows of a batch. Labels: writer.
pub const BATCH_ROWS: &str = "tapeway_batch_rows";
/// `BEGIN` to the answer to `COMMIT`. Labels: writer.
pub const COMMIT_SECONDS: &str = "tapeway_commit_seconds";
/// Whether the writer has a working connection. Labels: writer.
pub const DATABASE_UP: &str = "tapeway_database_up";
/// Connections to the database given up or lost. Labels: writer, reason.
pub const DATABASE_RECONNECTS: &str = "tapeway_database_reconnects_total";
/// Whether rows are compressed as they arrive. Labels: writer.
pub const DIRECT_COMPRESS_ON: &str = "tapeway_direct_compress_on";
/// How often the server said that it does not compress a COPY directly. Labels: writer.
pub const DIRECT_COMPRESS_WARNINGS: &str = "tapeway_direct_compress_warnings_total";
/// Lanes that another daemon holds. Labels: writer.
pub const LANES_STANDBY: &str = "tapeway_lanes_standby";

/// Installs the recorder and describes every metric.
///
/// # Errors
///
/// A recorder is installed already, or a bucket list is empty.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(RECEIVE_TO_COMMIT.into()), RECEIVE_TO_COMMIT_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_rows".into()), ROWS_BUCKETS)?
        .install_recorder()?;
    describe();
    journal::describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

fn describe() {
    describe_counter!(FRAMES_RECEIVED, Unit::Count, "Frames received, before parsing.");
    describe_counter!(FRAME_BYTES_RECEIVED, Unit::Bytes, "Bytes of received frames.");
    describe_counter!(EVENTS, Unit::Count, "Events decoded on the live path, by kind.");
    describe_counter!(DECODE_ERRORS, Unit::Count, "Inputs that could not be decoded, in whole or in part.");
    describe_counter!(GAPS, Unit::Count, "Gaps found.");
    describe_counter!(GAPS_CLOSED, Unit::Count, "Gaps ended, by how.");
    describe_counter!(RECONNECTS, Unit::Count, "Connections lost or given up.");
    describe_gauge!(CONNECTIONS_UP, Unit::Count, "Open connections of the lane.");
    describe_gauge!(CONNECTIONS_WANTED, Unit::Count, "Connections the lane is to have.");
    describe_counter!(REPEATS_DROPPED, Unit::Count, "Events that came again and were not stored again.");
    describe_counter!(HOLES_FILLED, Unit::Count, "Holes of one connection that the other filled.");
    describe_gauge!(SUBSCRIPTIONS, Unit::Count, "Subscriptions by state.");
    describe_gauge!(LAST_FRAME_TIMESTAMP, Unit::Seconds, "Unix time of the last frame.");
    describe_histogram!(
        VENUE_TO_RECEIVE,
        Unit::Seconds,
        "Venue time of a row to receive time of its frame, for the last row of each chunk and kind."
    );
    describe_counter!(QUEUE_ROWS_IN, Unit::Count, "Rows offered to the queue.");
    describe_counter!(QUEUE_ROWS_DROPPED, Unit::Count, "Rows a full queue refused; read from the journal instead.");
    describe_gauge!(LANE_ROWS_RECEIVED, Unit::Count, "Rows the lane's frames have given since its first frame.");
    describe_gauge!(LANE_ROWS_COMMITTED, Unit::Count, "Rows of the lane that are committed.");
    describe_gauge!(LANE_ROWS_REJECTED, Unit::Count, "Rows of the lane that the database refused for their data.");
    describe_gauge!(LANE_ROWS_PENDING, Unit::Count, "Rows of the lane received and neither committed nor rejected.");
    describe_gauge!(LANE_APPENDED, Unit::Count, "First position not yet appended to the journal.");
    describe_gauge!(LANE_DURABLE, Unit::Count, "First position not yet synced to disk.");
    describe_gauge!(LANE_COMMITTED, Unit::Count, "First position not yet committed.");
    describe_gauge!(LANES_BEHIND, Unit::Count, "Lanes whose writer reads the journal.");
    describe_gauge!(BUILD_INFO, Unit::Count, "Version of the running binary.");
    describe_writer();
}

/// One session's handles.
#[derive(Debug)]
pub struct SessionMetrics {
    venue: &'static str,
    lane: String,
    pub frames: Counter,
    pub frame_bytes: Counter,
    pub trades: Counter,
    pub levels: Counter,
    pub quotes: Counter,
    pub top_books: Counter,
    pub connected: Gauge,
    pub wanted: Gauge,
    pub repeats_dropped: Counter,
    pub holes_filled: Counter,
    pub last_frame: Gauge,
    pub venue_to_receive: Histogram,
    pub queue_rows_in: Counter,
    pub queue_rows_dropped: Counter,
    pub subscriptions: [Gauge; SUBSCRIPTION_STATES.len()],
}

impl SessionMetrics {
    /// The handles of the lane called `lane`.
    pub fn new(venue: &'static str, lane: &str) -> Self {
        let name = lane.to_owned();
        let events = |kind: &'static str| counter!(EVENTS, "venue" => venue, "lane" => name.clone(), "kind" => kind);
        Self {
            venue,
            frames: counter!(FRAMES_RECEIVED, "venue" => venue, "lane" => name.clone()),
            frame_bytes: counter!(FRAME_BYTES_RECEIVED, "venue" => venue, "lane" => name.clone()),
            trades: events("trade"),
            levels: events("level"),
            quotes: events("quote"),
            top_books: events("order_book"),
            connected: gauge!(CONNECTIONS_UP, "venue" => venue, "lane" => name.clone()),
            wanted: gauge!(CONNECTIONS_WANTED, "venue" => venue, "lane" => name.clone()),
            repeats_dropped: counter!(REPEATS_DROPPED, "venue" => venue, "lane" => name.clone()),
            holes_filled: counter!(HOLES_FILLED, "venue" => venue, "lane" => name.clone()),
            last_frame: gauge!(LAST_FRAME_TIMESTAMP, "venue" => venue, "lane" => name.clone()),
            venue_to_receive: histogram!(VENUE_TO_RECEIVE, "venue" => venue),
            queue_rows_in: counter!(QUEUE_ROWS_IN, "venue" => venue, "lane" => name.clone()),
            queue_rows_dropped: counter!(QUEUE_ROWS_DROPPED, "venue" => venue, "lane" => name.clone()),
            subscriptions: SUBSCRIPTION_STATES
                .map(|state| gauge!(SUBSCRIPTIONS, "venue" => venue, "lane" => name.clone(), "state" => state)),
            lane: name,
        }
    }

    /// The lane's session has ended on purpose. A lane that is not meant to be connected is neither up nor down, and
    /// no alert is to fire for it.
    pub fn retire(&self) {
        self.connected.set(f64::NAN);
        self.wanted.set(f64::NAN);
        self.last_frame.set(f64::NAN);
        self.subscriptions.iter().for_each(|gauge| gauge.set(0.0));
    }

    /// Counts a gap. Rare, so the handle is looked up.
    pub fn gap(&self, channel: Option<Channel>, cause: Cause) {
        let channel = channel.map_or("all", Channel::name);
        counter!(GAPS, "venue" => self.venue, "channel" => channel, "cause" => cause.name()).increment(1);
        self.event("gap");
    }

    /// Counts the end of a gap. Rare.
    pub fn gap_closed(&self, channel: Option<Channel>, end: GapEnd) {
        let channel = channel.map_or("all", Channel::name);
        counter!(GAPS_CLOSED, "venue" => self.venue, "channel" => channel, "end" => end.name()).increment(1);
    }

    /// Counts an input that could not be decoded. Rare.
    pub fn reject(&self, reason: &'static str) {
        counter!(DECODE_ERRORS, "venue" => self.venue, "reason" => reason).increment(1);
        self.event("reject");
    }

    /// Counts the end of a connection. Rare.
    pub fn reconnect(&self, kind: CloseKind) {
        counter!(RECONNECTS, "venue" => self.venue, "reason" => kind.name()).increment(1);
    }

    fn event(&self, kind: &'static str) {
        counter!(EVENTS, "venue" => self.venue, "lane" => self.lane.clone(), "kind" => kind).increment(1);
    }
}

/// Values of the `state` label of [`SUBSCRIPTIONS`].
pub const SUBSCRIPTION_STATES: [&str; 4] = ["live", "requested", "refused", "stale"];

/// One lane's gauges, set at every scrape from the lane's progress.
#[derive(Debug)]
pub struct LaneMetrics {
    pub rows_received: Gauge,
    pub rows_committed: Gauge,
    pub rows_rejected: Gauge,
    pub rows_pending: Gauge,
    pub appended: Gauge,
    pub durable: Gauge,
    pub committed: Gauge,
}

impl LaneMetrics {
    /// The gauges of the lane called `lane`.
    pub fn new(venue: &'static str, lane: &str) -> Self {
        let make = |name: &'static str| gauge!(name, "venue" => venue, "lane" => lane.to_owned());
        Self {
            rows_received: make(LANE_ROWS_RECEIVED),
            rows_committed: make(LANE_ROWS_COMMITTED),
            rows_rejected: make(LANE_ROWS_REJECTED),
            rows_pending: make(LANE_ROWS_PENDING),
            appended: make(LANE_APPENDED),
            durable: make(LANE_DURABLE),
            committed: make(LANE_COMMITTED),
        }
    }

    /// Sets all of them.
    pub fn set(&self, status: &LaneStatus) {
        let pairs = [
            (&self.rows_received, status.rows_received),
            (&self.rows_committed, status.rows_committed),
            (&self.rows_rejected, status.rows_rejected),
            (&self.rows_pending, status.rows_pending),
            (&self.appended, status.appended),
            (&self.durable, status.durable),
            (&self.committed, status.committed),
        ];
        for (gauge, value) in pairs {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats; exact below 2^53")]
            gauge.set(value as f64);
        }
    }
}

/// The gauge of lanes whose writer reads the journal.
pub fn lanes_behind() -> Gauge {
    gauge!(LANES_BEHIND)
}

fn describe_writer() {
    describe_counter!(ROWS_COMMITTED, Unit::Count, "Rows committed.");
    describe_counter!(ROWS_REJECTED, Unit::Count, "Rows the database refused for their data.");
    describe_histogram!(RECEIVE_TO_COMMIT, Unit::Seconds, "Receive time of a frame to the commit of its rows.");
    describe_counter!(QUEUE_ROWS_OUT, Unit::Count, "Rows taken from the queue.");
    describe_counter!(CATCH_UP_ROWS, Unit::Count, "Rows read from the journal because the queue did not have them.");
    describe_gauge!(LANE_STANDBY, Unit::Count, "1 while another daemon holds the lane.");
    describe_gauge!(LANE_BEHIND_FRAMES, Unit::Count, "Frames a lane is behind while its journal is read.");
    describe_histogram!(BATCH_ROWS, Unit::Count, "Rows of a batch.");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "BEGIN to the answer to COMMIT of a batch.");
    describe_gauge!(DATABASE_UP, Unit::Count, "Whether the writer has a working connection.");
    describe_counter!(DATABASE_RECONNECTS, Unit::Count, "Connections to the database given up or lost.");
    describe_gauge!(DIRECT_COMPRESS_ON, Unit::Count, "Whether rows are compressed as they arrive.");
    describe_counter!(DIRECT_COMPRESS_WARNINGS, Unit::Count, "COPYs the server would not compress directly.");
    describe_gauge!(LANES_STANDBY, Unit::Count, "Lanes that another daemon holds.");
}

/// One writer thread's handles.
#[derive(Debug)]
pub struct WriterMetrics {
    writer: String,
    pub batch_rows: Histogram,
    pub commit_seconds: Histogram,
    pub database_up: Gauge,
    pub direct_compress_on: Gauge,
    pub direct_compress_warnings: Counter,
    pub lanes_standby: Gauge,
}

impl WriterMetrics {
    /// The handles of writer thread `shard`.
    pub fn new(shard: usize) -> Self {
        let writer = shard.to_string();
        Self {
            batch_rows: histogram!(BATCH_ROWS, "writer" => writer.clone()),
            commit_seconds: histogram!(COMMIT_SECONDS, "writer" => writer.clone()),
            database_up: gauge!(DATABASE_UP, "writer" => writer.clone()),
            direct_compress_on: gauge!(DIRECT_COMPRESS_ON, "writer" => writer.clone()),
            direct_compress_warnings: counter!(DIRECT_COMPRESS_WARNINGS, "writer" => writer.clone()),
            lanes_standby: gauge!(LANES_STANDBY, "writer" => writer.clone()),
            writer,
        }
    }

    /// Counts a connection given up. Rare, so the handle is looked up.
    pub fn reconnect(&self, reason: &'static str) {
        counter!(DATABASE_RECONNECTS, "writer" => self.writer.clone(), "reason" => reason).increment(1);
    }
}

/// One lane's handles on the writer's side.
#[derive(Debug)]
pub struct LaneWriterMetrics {
    venue: &'static str,
    /// By table, in the order of `Table::ALL`.
    pub rows_committed: [Counter; Table::COUNT],
    pub receive_to_commit: Histogram,
    pub queue_rows_out: Counter,
    pub catch_up_rows: Counter,
    pub behind_frames: Gauge,
    pub standby: Gauge,
}

impl LaneWriterMetrics {
    /// The handles of the lane called `lane`.
    pub fn new(venue: &'static str, lane: &str) -> Self {
        let name = lane.to_owned();
        let table = |table: &'static str| counter!(ROWS_COMMITTED, "venue" => venue, "table" => table);
        Self {
            venue,
            rows_committed: Table::ALL.map(Table::name).map(table),
            receive_to_commit: histogram!(RECEIVE_TO_COMMIT, "venue" => venue),
            queue_rows_out: counter!(QUEUE_ROWS_OUT, "venue" => venue, "lane" => name.clone()),
            catch_up_rows: counter!(CATCH_UP_ROWS, "venue" => venue, "lane" => name.clone()),
            standby: gauge!(LANE_STANDBY, "venue" => venue, "lane" => name.clone()),
            behind_frames: gauge!(LANE_BEHIND_FRAMES, "venue" => venue, "lane" => name),
        }
    }

    /// Counts refused or left-out rows. Rare.
    pub fn rejected(&self, reason: &'static str, rows: u64) {
        counter!(ROWS_REJECTED, "venue" => self.venue, "reason" => reason).increment(rows);
    }
}

/// Bucket bounds of every histogram of seconds: 100 µs to a minute.
const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];
/// Bucket bounds of the time to commit: the same, finer where it usually lies.
const RECEIVE_TO_COMMIT_BUCKETS: &[f64] = &[
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0,
    1.5, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Bucket bounds of every histogram of rows.
const ROWS_BUCKETS: &[f64] = &[1.0, 10.0, 100.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5];
