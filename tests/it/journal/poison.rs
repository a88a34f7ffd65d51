//! After a failed sync nothing is retried: the lane's journal says the same error until recovery has written
//! anew what it could read. Other lanes go on.

use std::sync::Arc;

use rand::{SeedableRng, rngs::StdRng};
use tapeway::journal::{Error, disk::sim::SimDisk};

use super::*;

fn poisoned(disk: &SimDisk) -> (Journal, LaneJournal, Vec<Frame>) {
    let journal = journal(disk);
    let (mut lane, _) = lane(&journal);
    begin(&mut lane);
    let mut rng = StdRng::seed_from_u64(5);
    let frames: Vec<Frame> = (0..20).map(|_| small_frame(&mut rng)).collect();
    for frame in &frames[..10] {
        append(&mut lane, frame).unwrap();
    }
    lane.seal().unwrap();
    for frame in &frames[10..] {
        append(&mut lane, frame).unwrap();
    }
    lane.flush().unwrap();
    disk.fail_syncs(1);
    journal.sync();
    (journal, lane, frames)
}

#[test]
fn after_a_failed_sync_every_call_fails_the_same_way_and_the_disk_is_not_asked_again() {
    let disk = SimDisk::new(1);
    let (journal, mut lane, frames) = poisoned(&disk);
    let is_poison = |error: Error| matches!(error, Error::Poisoned { action: "fdatasync", cause, .. } if cause.to_string() == "simulated sync error");
    assert!(is_poison(append(&mut lane, &frames[0]).unwrap_err()));
    assert!(is_poison(lane.flush().unwrap_err()));
    assert!(is_poison(lane.seal().unwrap_err()));
    assert!(is_poison(lane.begin(b"").unwrap_err()));
    journal.sync(); // Would succeed, and would be a lie.
    assert_eq!(lane.progress().durable(), pos(10), "a later sync was believed");
    assert!(is_poison(lane.status().poisoned().unwrap()));
}

#[test]
fn other_lanes_go_on() {
    let disk = SimDisk::new(2);
    let (journal, lane, frames) = poisoned(&disk);
    let (mut other, _) = journal.lane(VENUE, "acme.1").unwrap();
    begin(&mut other);
    append(&mut other, &frames[0]).unwrap();
    other.flush().unwrap();
    journal.sync();
    assert_eq!(other.progress().durable(), pos(1));
    assert_eq!(journal.lanes().iter().filter(|status| status.poisoned().is_some()).count(), 1);
    assert!(lane.status().poisoned().is_some());
}

/// The operating system forgot the bytes that it failed to sync, and shows them all the same.
#[test]
fn a_new_process_does_not_trust_what_it_can_read_after_a_failed_sync() {
    let disk = SimDisk::new(3);
    let (journal, lane, frames) = poisoned(&disk);
    disk.kill();
    drop((journal, lane));
    let journal = super::journal(&disk);
    let (lane, recovered) = super::lane(&journal);
    assert_eq!(recovered.end, pos(20), "what can be read is not thrown away");
    drop(lane);
    disk.power_cut();
    let journal = super::journal(&disk);
    let (_, recovered) = super::lane(&journal);
    assert_eq!(recovered.end, pos(20), "recovery called frames durable that were not");
    let (found, holes) = read(Arc::new(disk), &lane_dir(), pos(0), pos(20));
    assert_eq!(holes, []);
    assert!(found.into_iter().map(|(_, frame)| frame).eq(frames));
}

#[test]
fn recovery_in_the_same_process_never_gives_a_position_twice() {
    let disk = SimDisk::new(4);
    let (_journal, mut lane, frames) = poisoned(&disk);
    let recovered = lane.recover().unwrap();
    assert!(lane.status().poisoned().is_none());
    assert!(recovered.end <= pos(20));
    begin(&mut lane);
    assert_eq!(append(&mut lane, &frames[0]).unwrap(), pos(20));
}
