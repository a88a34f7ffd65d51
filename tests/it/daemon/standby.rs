//! standby
