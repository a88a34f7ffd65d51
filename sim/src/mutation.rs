//! Lies that the oracle must see through: each breaks one promise, and a test demands that a run with it fails.

/// One way in which the world is not as it says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutation {
    /// The database stores a batch's rows twice.
    RowsTwice,
    /// The database loses one row of a COPY.
    RowLost,
    /// The watermark moves, the rows do not come.
    NoRows,
    /// A price is altered by one digit.
    OtherPrice,
    /// The watermark moves further than the batch.
    WatermarkAhead,
    /// New gaps are not stored.
    GapLost,
    /// Ends of gaps are not stored.
    EndLost,
    /// Rejects are not stored.
    RejectLost,
    /// The disk says that it has synced, and has not.
    SyncLies,
    /// A frame is journaled other than it is decoded.
    JournalDiffers,
    /// The venue's trades are hidden from the lane and from its numbering's check: the decoder forgets its state when
    /// the process starts.
    StateForgotten,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::RowsTwice,
        Self::RowLost,
        Self::NoRows,
        Self::OtherPrice,
        Self::WatermarkAhead,
        Self::GapLost,
        Self::EndLost,
        Self::RejectLost,
        Self::SyncLies,
        Self::JournalDiffers,
        Self::StateForgotten,
    ];
}
