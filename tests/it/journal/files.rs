//! The folder: one daemon at a time, and nothing a crash leaves behind is in the way.

use std::fs;

use tapeway::journal::{Error, Journal, Lock, SegmentFile, disk::RealDisk};

use super::*;

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let first = Journal::open(&config).unwrap();
    let error = Journal::open(&config).unwrap_err();
    assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    drop(first);
    drop(Journal::open(&config).unwrap());
    drop(Lock::take(dir.path()).unwrap());
}

#[test]
fn a_restart_goes_on_where_the_last_process_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut id = None;
    for round in 0..5 {
        let journal = Journal::open(&config).unwrap();
        let (mut lane, recovered) = lane(&journal);
        assert_eq!(recovered.end, pos(round * 3));
        assert_eq!(*id.get_or_insert(recovered.journal_id), recovered.journal_id, "a lane's folder keeps its identity");
        begin(&mut lane);
        for value in 0..3 {
            lane.append(Kind::Text, Nanos(value), b"frame").unwrap();
        }
        lane.flush().unwrap(); // Not sealed: as if killed.
    }
    let lane_dir = dir.path().join(LANE);
    assert_eq!(SegmentFile::list(&RealDisk, &lane_dir).unwrap().len(), 5);
    assert_eq!(read(Arc::new(RealDisk), &lane_dir, pos(0), pos(15)).0.len(), 15);
}

#[test]
fn a_folder_of_another_lane_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&config(dir.path())).unwrap();
    drop(lane(&journal));
    fs::rename(dir.path().join(LANE), dir.path().join("acme.7")).unwrap();
    let error = journal.lane(VENUE, "acme.7").unwrap_err();
    assert!(matches!(error, Error::Foreign { what: "lane", .. }), "{error}");
}

#[test]
fn half_made_files_are_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&config(dir.path())).unwrap();
    let (mut open, _) = lane(&journal);
    begin(&mut open);
    let stray = dir.path().join(LANE).join("00000000000000000009.seg.new");
    fs::write(&stray, b"half a head").unwrap();
    drop(open);
    let (_, recovered) = lane(&journal);
    assert_eq!((recovered.end, recovered.segments), (pos(0), 1));
    assert!(!stray.exists());
}
