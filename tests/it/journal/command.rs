//! `tapeway journal`: what an operator sees of a journal, and that looking changes nothing.

use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
};

use tapeway::journal::{Journal, SegmentFile, disk::RealDisk};
use tapeway_exchanges::input::put_http;

use super::*;

fn tapeway(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tapeway")).arg("journal").args(args).arg("--dir").arg(dir).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Three segments of four frames each, one compressed.
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.is_compressed = true;
    let journal = Journal::on_disk(Arc::new(RealDisk), &config).unwrap();
    let (mut lane, _) = lane(&journal);
    for _ in 0..3 {
        begin(&mut lane);
        lane.append(Kind::Open, Nanos(1), br#"{"url":"wss://acme"}"#).unwrap();
        lane.append(Kind::Text, Nanos(2), br#"{"price":"1.10"}"#).unwrap();
        let mut answer = Vec::new();
        put_http(&mut answer, "book:BTC", 200, b"{\"bids\":[]}");
        lane.append(Kind::Http, Nanos(3), &answer).unwrap();
        lane.append(Kind::Binary, Nanos(4), &[0xFF, 0x00]).unwrap();
        lane.seal().unwrap();
    }
    journal.retain(std::time::SystemTime::now()).unwrap();
    dir
}

fn segments(dir: &Path) -> Vec<SegmentFile> {
    SegmentFile::list(&RealDisk, &dir.join(LANE)).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn ls_shows_positions_segments_and_bytes() {
    let dir = written();
    let output = tapeway(dir.path(), &["ls"]);
    assert!(output.status.success());
    let text = text(&output);
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1]), (LANE, VENUE));
    assert_eq!(row[3..7], ["0", "12", "3", "1"], "first, end, segments, compressed: {text}");
}

#[test]
fn verify_tells_a_whole_journal_from_a_damaged_one() {
    let dir = written();
    let output = tapeway(dir.path(), &["verify"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("acme.0: whole: 12 records in 3 segments, positions 0 to 12"), "{}", text(&output));

    let sealed = &segments(dir.path())[1];
    assert!(!sealed.is_compressed);
    flip(&sealed.path, fs::read(&sealed.path).unwrap().len() - 40);
    let output = tapeway(dir.path(), &["verify"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("positions 6 to 7 (exclusive) cannot be read"), "{}", text(&output));
}

#[test]
fn dump_prints_the_range_asked_for() {
    let dir = written();
    let output = tapeway(dir.path(), &["dump", "--from", "5", "--to", "8"]);
    assert_eq!(
        text(&output),
        concat!(
            r#"{"pos":5,"received_ns":2,"kind":"text","raw":"{\"price\":\"1.10\"}"}"#,
            "\n",
            r#"{"pos":6,"received_ns":3,"kind":"http","tag":"book:BTC","status":200,"raw":"{\"bids\":[]}"}"#,
            "\n",
            r#"{"pos":7,"received_ns":4,"kind":"binary","raw_b64":"/wA="}"#,
            "\n",
        )
    );
}

#[test]
fn dump_in_corpus_form_counts_connections_and_names_answers() {
    let dir = written();
    let output = tapeway(dir.path(), &["dump", "--from", "4", "--to", "9", "--format", "corpus"]);
    assert_eq!(
        text(&output),
        concat!(
            r#"{"ts_recv_ns":1,"conn":0,"dir":"out","note":"open","raw":"{\"url\":\"wss://acme\"}"}"#,
            "\n",
            r#"{"ts_recv_ns":2,"conn":0,"dir":"in","raw":"{\"price\":\"1.10\"}"}"#,
            "\n",
            r#"{"ts_recv_ns":3,"conn":0,"dir":"rest","tag":"book:BTC","status":200,"raw":"{\"bids\":[]}"}"#,
            "\n",
            r#"{"ts_recv_ns":4,"conn":0,"dir":"in","raw_b64":"/wA="}"#,
            "\n",
            r#"{"ts_recv_ns":1,"conn":1,"dir":"out","note":"open","raw":"{\"url\":\"wss://acme\"}"}"#,
            "\n",
        )
    );
}

#[test]
fn repair_cuts_a_tail_into_a_file_beside_and_deletes_nothing() {
    let dir = written();
    let newest = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&newest.path).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(b"half a record");
    fs::write(&newest.path, &torn).unwrap();
    let output = tapeway(dir.path(), &["repair"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(&newest.path).unwrap(), whole);
    let saved = format!("{}.cut-{}", newest.path.display(), whole.len());
    assert_eq!(fs::read(saved).unwrap(), b"half a record");
    let again = tapeway(dir.path(), &["repair"]);
    assert_eq!(text(&again), "acme.0: nothing to repair\n");
}

#[test]
fn repair_is_refused_while_a_daemon_has_the_journal() {
    let dir = written();
    let journal = Journal::open(&config(dir.path())).unwrap();
    let output = tapeway(dir.path(), &["repair"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    drop(journal);
}
