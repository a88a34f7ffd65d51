//! Configuration files with anything in them: `tapeway.yaml | 0xFF | exchanges/coinbase.yaml`.
//!
//! Held: no panic, and problems that name a file, each on one line.

use std::{cell::RefCell, fs};

use tapeway::config::Config;
use tempfile::TempDir;

/// Loads the files.
///
/// # Panics
///
/// When something that is held is not so.
pub fn run(bytes: &[u8]) {
    thread_local!(static FOLDER: RefCell<TempDir> = RefCell::new(folder()));
    // A file that the configuration names is opened: none that never ends.
    if bytes.windows(4).any(|four| four == b"/dev" || four == b"/pro" || four == b"/sys") {
        return;
    }
    let (main, venue) = match bytes.iter().position(|byte| *byte == 0xFF) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b"enabled: false\n"[..]),
    };
    FOLDER.with_borrow(|folder| {
        fs::write(folder.path().join("tapeway.yaml"), main).expect("the folder takes it");
        fs::write(folder.path().join("exchanges/coinbase.yaml"), venue).expect("the folder takes it");
        match Config::load(folder.path()) {
            Ok(config) => assert!(config.is_same_but_venues(&config.clone())),
            Err(problems) => {
                assert!(!problems.list().is_empty(), "refused without a reason");
                for problem in problems.list() {
                    let text = problem.to_string();
                    assert!(text.contains("yaml"), "{text}");
                    assert!(text.len() < 65_536, "{} bytes", text.len());
                }
            }
        }
    });
}

fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary folder");
    fs::create_dir(folder.path().join("exchanges")).expect("a folder in it");
    folder
}
