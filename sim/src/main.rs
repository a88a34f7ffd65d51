//! Runs seeds of the simulated world.

use std::{cell::Cell, ops::Range, panic, process::ExitCode, time::Instant};

use clap::{Parser, Subcommand};
use tapeway_sim::{
    mutation::Mutation,
    scenario::Mix,
    venue::Kind,
    world::{self, Options},
};

#[derive(Debug, Parser)]
#[command(about = "The deterministic world of tapeway")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs worlds; exits with 1 when an invariant does not hold.
    Run {
        /// One seed.
        #[arg(long, conflicts_with = "seeds")]
        seed: Option<u64>,
        /// Seeds from the first up to but not including the last: `0..1000`.
        #[arg(long, value_parser = range)]
        seeds: Option<Range<u64>>,
        /// Steps before everything is left to settle.
        #[arg(long, default_value_t = world::STEPS)]
        steps: u64,
        /// Kinds of faults: any, twins (any, with two connections a lane), batches (twins, each in pieces of its own), plans (twins, with changing instruments), restarts (twins, with ends that venues announce), handover (connections are replaced and nothing else happens: no gap may come of it), calm, feed, disk, database.
        #[arg(long, default_value = "any", value_parser = mix)]
        scenario: Mix,
        /// The venue of all lanes, by its name; OKX's worlds only come this way.
        #[arg(long, value_parser = venue)]
        venue: Option<Kind>,
        /// A lie that the oracle must find, by its name.
        #[arg(long, value_parser = mutation)]
        mutation: Option<Mutation>,
        /// Writes the frames of a world that finds something, and what they give, to standard error.
        #[arg(long)]
        frames: bool,
        /// Goes on after a seed that found something, to at most so many.
        #[arg(long, default_value_t = 1)]
        findings: u64,
        /// Writes what happens to standard error: a level (`info`), or a filter as `RUST_LOG` has it.
        #[arg(long)]
        log: Option<String>,
    },
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("two numbers with .. between them")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(from)?..number(to)?)
}

fn mix(text: &str) -> Result<Mix, String> {
    Mix::parse(text)
        .ok_or_else(|| "any, twins, batches, plans, restarts, handover, calm, feed, disk or database".into())
}

fn venue(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| format!("one of {:?}", Kind::ALL.map(Kind::name)))
}

fn mutation(text: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == text);
    found.ok_or_else(|| format!("one of {:?}", Mutation::ALL))
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let Command::Run { seed, seeds, steps, scenario, venue, mutation, frames: tells_frames, findings, log } =
        Arguments::parse().command;
    let seeds = seeds.unwrap_or_else(|| seed.map_or(0..100, |seed| seed..seed.saturating_add(1)));
    if let Some(filter) = log {
        let lines = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
        lines.with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        eprintln!("seed {}: panic", SEED.get());
        before(info);
    }));
    let began = Instant::now();
    let (mut found, mut frames, mut commits, mut lives, mut connections, mut longest) = (0, 0, 0, 0, 0, (0, 0));
    let total = seeds.end.saturating_sub(seeds.start);
    for seed in seeds {
        SEED.set(seed);
        let options = Options { seed, steps, mix: scenario, venue, mutation, tells_frames };
        match panic::catch_unwind(|| world::run(options)) {
            Ok(Ok(summary)) => {
                frames += summary.frames;
                commits += summary.database.commits;
                lives += summary.lives;
                connections += summary.connections;
                longest = longest.max((summary.settling, seed));
            }
            Ok(Err(violation)) => {
                println!("{violation}");
                found += 1;
            }
            Err(_) => found += 1,
        }
        if found >= findings {
            break;
        }
    }
    let took = began.elapsed();
    println!(
        "{total} seeds, {frames} frames, {commits} commits, {lives} lives, {connections} connections, longest settling {} steps (seed {}), {found} findings in {took:.1?}",
        longest.0, longest.1
    );
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
