//! Worlds in which everything holds, and lies that the oracle must see through.

use std::panic::catch_unwind;

use tapeway_sim::{
    mutation::Mutation,
    regressions::{self, Regression},
    scenario::Mix,
    venue::Kind,
    world::{self, Options},
};

fn options(seed: u64) -> Options {
    Options { seed, steps: world::STEPS, mix: Mix::Any, venue: None, mutation: None, tells_frames: false }
}

fn seeds(from: u64, to: u64) {
    let found: Vec<_> = (from..to).filter_map(|seed| world::run(options(seed)).err()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_seed_that_found_something_finds_nothing_any_more() {
    for regression in regressions::ALL {
        let &Regression { seed, steps, mix, venue, .. } = regression;
        let found = world::run(Options { seed, steps, mix, venue, mutation: None, tells_frames: false }).err();
        assert!(found.is_none(), "{}: {}: {}", regression.name, regression.found, found.unwrap());
    }
}

#[test]
fn a_calm_world_loses_nothing() {
    for seed in 0..20 {
        let summary = world::run(Options { mix: Mix::Calm, ..options(seed) }).unwrap();
        assert!(summary.frames > 100 && summary.lives == 1, "{summary:?}");
    }
}

#[test]
fn the_first_hundred_worlds_hold() {
    seeds(0, 100);
}

#[test]
fn the_second_hundred_worlds_hold() {
    seeds(100, 200);
}

#[test]
fn the_third_hundred_worlds_hold() {
    seeds(200, 300);
}

#[test]
fn two_hundred_worlds_with_two_connections_a_lane_hold() {
    let options = |seed| Options { mix: Mix::Twins, ..options(seed) };
    let found: Vec<_> = (0..200).filter_map(|seed| world::run(options(seed)).err()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_hundred_worlds_with_changing_plans_hold() {
    let options = |seed| Options { mix: Mix::Plans, ..options(seed) };
    let found: Vec<_> = (0..100).filter_map(|seed| world::run(options(seed)).err()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_hundred_worlds_with_announced_restarts_hold() {
    let options = |seed| Options { mix: Mix::Restarts, ..options(seed) };
    let found: Vec<_> = (0..100).filter_map(|seed| world::run(options(seed)).err()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn connections_that_are_only_replaced_leave_no_gap_and_no_double() {
    for venue in Kind::ALL {
        let options = |seed| Options { mix: Mix::Handover, venue: Some(venue), ..options(seed) };
        let results = (0..60).map(|seed| world::run(options(seed)));
        let connections: u64 =
            results.map(|result| result.map_or_else(|found| panic!("{found}"), |done| done.connections)).sum();
        assert!(connections > 180, "{venue:?}: {connections} connections in 60 worlds");
    }
}

#[test]
fn sixty_worlds_in_which_each_connection_has_its_own_pieces_hold() {
    let options = |seed, venue| Options { mix: Mix::Batches, venue: Some(venue), ..options(seed) };
    let worlds = (0..30).flat_map(|seed| [options(seed, Kind::Coinbase), options(seed, Kind::Kraken)]);
    let found: Vec<_> = worlds.filter_map(|options| world::run(options).err()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_hundred_worlds_of_okx_hold_with_one_connection_and_with_two() {
    let options = |seed, mix| Options { mix, venue: Some(Kind::Okx), ..options(seed) };
    let worlds = (0..50).flat_map(|seed| [options(seed, Mix::Any), options(seed, Mix::Twins)]);
    let found: Vec<_> = worlds.filter_map(|options| world::run(options).err()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for (seed, mix) in [(3, Mix::Any), (16, Mix::Any), (53, Mix::Any), (4, Mix::Twins)] {
        let options = Options { mix, ..options(seed) };
        assert_eq!(world::run(options).unwrap(), world::run(options).unwrap());
    }
}

/// An oracle that finds nothing proves nothing. Each lie must be found within a few worlds, whether it is told of or
/// breaks something on the way.
#[test]
fn every_lie_is_found() {
    for mutation in Mutation::ALL {
        let is_found = |seed| {
            let options = Options { mutation: Some(mutation), ..options(seed) };
            !matches!(catch_unwind(|| world::run(options)), Ok(Ok(_)))
        };
        assert!((0..40).any(is_found), "{mutation:?} is not found");
    }
}
