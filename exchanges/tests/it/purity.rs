//! Nothing in `exchanges/src` reads a clock, a socket, a file, the environment or a random number, logs, or
//! waits: the same input gives the same events, on the live path and on catch-up.

use std::{fs, path::Path};

const FORBIDDEN: [&str; 14] = [
    "Instant",
    "SystemTime",
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "env!",
    "rand::",
    "tokio",
    "tracing",
    "async fn",
    "println!",
    "RandomState",
];

#[test]
fn the_adapters_touch_nothing_outside_their_arguments() {
    let mut found = Vec::new();
    let files = search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(files > 20, "only {files} source files were looked at");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_crate_depends_on_nothing_that_could() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let own = manifest.split("[dev-dependencies]").next().unwrap();
    for word in ["tokio", "tracing", "rand", "reqwest", "hyper", "chrono", "log"] {
        assert!(!own.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(word)), "{word} in Cargo.toml");
    }
}

fn search(folder: &Path, found: &mut Vec<String>) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += search(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//")) {
                for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                    found.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        }
    }
    files
}
