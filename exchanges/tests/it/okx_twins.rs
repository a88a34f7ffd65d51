//! Two connections of OKX: books by their chain, whichever connection continues it; quotes by id and time. Each input is
//! also given to a decoder that is restored before it, and says the same.

use tapeway_exchanges::{adapter::CloseKind, conn::Conn};

use crate::harness::{Input, Lane, plan};

const VENUE: &str = "okx";
const A: Conn = Conn::FIRST;
const B: Conn = Conn::SECOND;

/// A lane, and its double that lives only from one input to the next.
struct Twins {
    whole: Lane,
    resumed: Lane,
    clock: i64,
}

impl Twins {
    /// Both connections are open.
    fn open() -> Self {
        let (whole, resumed) = (Lane::new(VENUE), Lane::new(VENUE));
        let mut twins = Self { whole, resumed, clock: 1_700_000_000_000_000_000 };
        twins.reopen(A);
        twins.reopen(B);
        twins
    }

    /// Both are open, and both have delivered the same snapshot.
    fn live() -> Self {
        let mut twins = Self::open();
        assert_eq!(levels(&twins.take(A, &snapshot(100))), ["100 SNAPSHOT"]);
        assert!(twins.take(B, &snapshot(100)).is_empty());
        twins
    }

    fn feed(&mut self, make: impl Fn(i64) -> Input, conn: Conn) -> Vec<String> {
        self.clock += 10_000_000;
        let input = make(self.clock).of(conn);
        self.resumed.restart(VENUE);
        let events =
            |lines: &[String]| lines.iter().filter(|line| !line.starts_with("send ")).cloned().collect::<Vec<_>>();
        let lines = self.whole.feed(&input);
        assert_eq!(events(&self.resumed.feed(&input)), events(&lines), "a restored decoder differs");
        assert_eq!(self.resumed.decoder.state(), self.whole.decoder.state());
        lines
    }

    fn take(&mut self, conn: Conn, text: &str) -> Vec<String> {
        self.feed(|received| Input::text(received, text), conn)
    }

    fn reopen(&mut self, conn: Conn) -> Vec<String> {
        self.feed(|received| Input::open(received, &plan(VENUE, &["BTC-USDT"])), conn)
    }

    fn close(&mut self, conn: Conn) -> Vec<String> {
        self.feed(|received| Input::close(received, CloseKind::Lost), conn)
    }

    /// Feeds updates, each by its connection, id before and id; gives the ids of the rows that come of it.
    fn updates(&mut self, updates: &[(Conn, i64, i64)]) -> Vec<String> {
        updates.iter().flat_map(|(conn, previous, id)| levels(&self.take(*conn, &update(*previous, *id)))).collect()
    }
}

fn book(action: &str, previous: i64, id: i64, bids: &str) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[{bids}],"ts":"{}","checksum":0,"seqId":{id},"prevSeqId":{previous}}}]}}"#,
        1_700_000_000_000 + id % 1_000_000_000
    )
}

fn snapshot(id: i64) -> String {
    book("snapshot", -1, id, r#"["1.0","2","0","1"]"#)
}

fn update(previous: i64, id: i64) -> String {
    book("update", previous, id, r#"["1.0","3","0","1"]"#)
}

fn keep_alive(id: i64) -> String {
    book("update", id, id, "")
}

fn quote(ms: i64, seq: Option<i64>) -> String {
    let seq = seq.map(|seq| format!(r#","seqId":{seq}"#)).unwrap_or_default();
    format!(
        r#"{{"arg":{{"channel":"bbo-tbt","instId":"BTC-USDT"}},"data":[{{"asks":[["3.0","4","0","1"]],"bids":[["1.0","2","0","1"]],"ts":"{}"{seq}}}]}}"#,
        1_700_000_000_000 + ms
    )
}

/// Ids and flags of the rows among these lines.
fn levels(lines: &[String]) -> Vec<String> {
    let rows = lines.iter().filter_map(|line| line.split_once(" seq ").filter(|_| line.contains(" level ")));
    rows.map(|(_, row)| {
        let (seq, rest) = row.split_once(" at ").unwrap();
        [seq]
            .into_iter()
            .chain(rest.split(' ').skip(1))
            .filter(|word| *word != "LAST_IN_FRAME")
            .collect::<Vec<_>>()
            .join(" ")
    })
    .collect()
}

fn live(ids: &[i64]) -> Vec<String> {
    ids.iter().map(i64::to_string).collect()
}

fn after_gap(ids: &[i64]) -> Vec<String> {
    ids.iter().map(|id| format!("{id} AFTER_GAP")).collect()
}

fn gaps(lines: &[String]) -> Vec<String> {
    let gaps = lines.iter().filter_map(|line| line.split_once(" gap ").map(|(_, gap)| gap));
    gaps.map(|gap| gap.split(' ').skip(2).take(4).collect::<Vec<_>>().join(" ")).collect()
}

/// The connections that are asked for a snapshot.
fn asked(lines: &[String]) -> Vec<Conn> {
    let asks = lines.iter().filter(|line| line.contains(r#""op":"unsubscribe""#));
    asks.map(|line| if line.starts_with("send (1) ") { B } else { A }).collect()
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[test]
fn what_one_connection_lacks_and_the_other_has_is_no_gap_in_the_order_of_the_chain() {
    for (one, other) in [(A, B), (B, A)] {
        let mut twins = Twins::live();
        // 105 never comes by `one`, 107 never by `other`.
        assert_eq!(twins.updates(&[(one, 105, 106), (one, 106, 107), (one, 107, 108)]), live(&[]));
        assert_eq!(twins.updates(&[(other, 100, 105)]), live(&[105, 106, 107, 108]));
        assert_eq!(twins.updates(&[(other, 105, 106), (other, 107, 108), (other, 108, 109)]), live(&[109]));
        assert_eq!(twins.updates(&[(one, 108, 109), (one, 109, 112)]), live(&[112]));
        assert!(gaps(&twins.close(one)).is_empty() && gaps(&twins.close(other)).len() == 1);
    }
}

#[test]
fn what_both_connections_lack_is_one_gap_and_one_of_them_is_asked_for_a_snapshot() {
    let mut twins = Twins::live();
    assert!(twins.updates(&[(A, 105, 106), (A, 106, 109)]).is_empty());
    let lines = twins.take(B, &update(105, 106));
    assert_eq!(gaps(&lines), ["book sequence missing 101..105"]);
    assert_eq!(levels(&lines), after_gap(&[106, 109]));
    assert_eq!(asked(&lines), [A], "A is farther: its snapshot will not be older than what was emitted");
    // Until the snapshot, the book is A's alone.
    assert!(twins.updates(&[(B, 106, 109), (B, 109, 111)]).is_empty());
    assert_eq!(twins.updates(&[(A, 109, 111)]), after_gap(&[111]));
    assert!(twins.updates(&[(B, 111, 115), (B, 115, 116)]).is_empty());
    let lines = twins.take(A, &snapshot(115));
    assert!(has(&lines, "closed") && has(&lines, "resynced"), "{lines:?}");
    assert_eq!(levels(&lines), ["115 SNAPSHOT", "116"]);
    assert_eq!(twins.updates(&[(A, 115, 116), (B, 116, 117), (A, 116, 117)]), live(&[117]));
    assert!(gaps(&twins.close(A)).is_empty());
}

#[test]
fn closing_either_connection_in_mid_stream_leaves_no_gap_and_no_double() {
    for (one, other) in [(A, B), (B, A)] {
        let mut twins = Twins::live();
        assert_eq!(twins.updates(&[(one, 100, 105), (one, 105, 106), (other, 100, 105)]), live(&[105, 106]));
        // One of `one`'s is held: what it waits for comes by the other.
        assert!(twins.updates(&[(one, 109, 110)]).is_empty());
        let lines = twins.close(one);
        assert!(gaps(&lines).is_empty() && asked(&lines).is_empty(), "{lines:?}");
        assert_eq!(twins.updates(&[(other, 105, 106), (other, 106, 109)]), live(&[109, 110]));
        assert_eq!(twins.updates(&[(other, 109, 110), (other, 110, 111)]), live(&[111]));
        twins.reopen(one);
        assert!(twins.take(one, &snapshot(111)).is_empty());
        assert_eq!(twins.updates(&[(one, 111, 112), (other, 111, 112)]), live(&[112]));
        let lines = twins.close(other);
        assert!(gaps(&lines).is_empty() && asked(&lines).is_empty(), "{lines:?}");
        assert_eq!(twins.updates(&[(one, 112, 113)]), live(&[113]));
    }
}

#[test]
fn when_a_connection_ends_what_it_alone_would_have_brought_is_missing() {
    let mut twins = Twins::live();
    assert!(twins.updates(&[(A, 105, 106)]).is_empty());
    let lines = twins.close(B);
    assert_eq!(gaps(&lines), ["book sequence missing 101..105"]);
    assert_eq!((levels(&lines), asked(&lines)), (after_gap(&[106]), vec![A]));
}

#[test]
fn a_keep_alive_by_either_connection_follows_and_shows_what_it_has_passed() {
    let mut twins = Twins::live();
    for conn in [A, B, B, A] {
        let lines = twins.take(conn, &keep_alive(100));
        assert!(gaps(&lines).is_empty() && levels(&lines).is_empty(), "{lines:?}");
    }
    assert_eq!(twins.updates(&[(A, 100, 105)]), live(&[105]));
    assert!(gaps(&twins.take(B, &keep_alive(100))).is_empty());
    // Neither has 106, and both say that it was there.
    assert!(gaps(&twins.take(B, &keep_alive(106))).is_empty());
    assert_eq!(gaps(&twins.take(A, &keep_alive(106))), ["book sequence missing 106..106"]);
}

#[test]
fn a_numbering_that_begins_anew_goes_on_whichever_connection_says_so_first() {
    for (one, other) in [(A, B), (B, A)] {
        let mut twins = Twins::live();
        assert_eq!(twins.updates(&[(one, 100, 105), (one, 105, 3), (one, 3, 4)]), live(&[105, 3, 4]));
        // The other is in the old numbering still, or sends the message again.
        assert!(twins.updates(&[(other, 100, 105), (other, 105, 3), (other, 105, 3), (one, 3, 4)]).is_empty());
        assert_eq!(twins.updates(&[(other, 3, 4), (other, 4, 6), (one, 4, 6), (one, 6, 7)]), live(&[6, 7]));
        assert!(gaps(&twins.close(one)).is_empty());
        assert_eq!(twins.updates(&[(other, 6, 7), (other, 7, 2), (other, 2, 8)]), live(&[2, 8]));
        let lines = twins.close(other);
        assert_eq!(gaps(&lines), ["book reconnect missing 9..-"]);
    }
}

#[test]
fn a_new_numbering_is_held_while_the_old_one_lacks_something() {
    let mut twins = Twins::live();
    assert!(twins.updates(&[(A, 105, 106), (A, 106, 3), (A, 3, 4)]).is_empty());
    assert_eq!(twins.updates(&[(B, 100, 105)]), live(&[105, 106, 3, 4]));
    assert_eq!(twins.updates(&[(B, 105, 106), (B, 106, 3), (B, 3, 4), (B, 4, 5)]), live(&[5]));
}

#[test]
fn a_lost_message_that_began_the_numbering_anew_is_no_gap_if_the_other_connection_has_it() {
    for (one, other) in [(A, B), (B, A)] {
        let mut twins = Twins::live();
        assert_eq!(twins.updates(&[(one, 100, 105), (other, 100, 105), (other, 105, 3)]), live(&[105, 3]));
        assert!(twins.updates(&[(one, 3, 4)]) == live(&[4]), "its previous id is known");
        assert_eq!(twins.updates(&[(other, 3, 4), (one, 4, 5), (other, 4, 5)]), live(&[5]));
        assert!(gaps(&twins.close(other)).is_empty());
        assert_eq!(twins.updates(&[(one, 5, 6)]), live(&[6]));
    }
}

#[test]
fn a_lost_message_that_began_the_numbering_anew_is_a_gap_of_unknown_ids_if_nobody_has_it() {
    let mut twins = Twins::live();
    assert!(gaps(&twins.close(B)).is_empty());
    assert_eq!(twins.updates(&[(A, 100, 105)]), live(&[105]));
    let lines = twins.take(A, &update(3, 4));
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book sequence missing -..-".into()], vec![A]));
    assert_eq!(twins.updates(&[(A, 4, 6)]), after_gap(&[6]));

    let mut twins = Twins::live();
    assert_eq!(twins.updates(&[(A, 100, 105), (B, 100, 105)]), live(&[105]));
    assert!(twins.updates(&[(A, 3, 4)]).is_empty(), "the other may know");
    let lines = twins.take(B, &update(3, 4));
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book sequence missing -..-".into()], vec![B]));
}

#[test]
fn the_second_connections_snapshot_is_no_row_wherever_it_stands() {
    // As far as the chain, behind it, and ahead of it.
    for (id, then) in [(110, vec![]), (105, vec![(B, 105, 110)]), (115, vec![(B, 115, 116)])] {
        let mut twins = Twins::open();
        twins.take(A, &snapshot(100));
        assert_eq!(twins.updates(&[(A, 100, 105), (A, 105, 110)]), live(&[105, 110]));
        assert!(twins.take(B, &snapshot(id)).is_empty());
        assert!(twins.updates(&then).is_empty());
        let came = twins.updates(&[(A, 110, 115), (A, 115, 116), (B, 110, 115), (B, 115, 116)]);
        assert_eq!(came, live(&[115, 116]), "a snapshot of {id}");
        let lines = twins.close(A);
        assert!(gaps(&lines).is_empty() && asked(&lines).is_empty(), "a snapshot of {id}: {lines:?}");
        assert_eq!(twins.updates(&[(B, 116, 117)]), live(&[117]));
    }
}

#[test]
fn a_snapshot_that_the_venue_sends_by_itself_is_no_row_while_the_other_connection_is_in_step() {
    let mut twins = Twins::live();
    assert_eq!(twins.updates(&[(A, 100, 105), (B, 100, 105)]), live(&[105]));
    assert!(twins.take(A, &snapshot(107)).is_empty());
    assert_eq!(twins.updates(&[(A, 107, 108), (B, 105, 107)]), live(&[107, 108]));
    assert!(gaps(&twins.close(B)).is_empty());
    assert_eq!(levels(&twins.take(A, &snapshot(109))), ["109 SNAPSHOT"]);
}

#[test]
fn a_connection_that_ends_before_the_other_is_known_to_be_in_step_is_a_gap() {
    let mut twins = Twins::open();
    twins.take(A, &snapshot(100));
    assert!(twins.take(B, &snapshot(115)).is_empty());
    let lines = twins.close(A);
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book reconnect missing 101..-".into()], vec![B]));
    assert_eq!(twins.updates(&[(B, 115, 116)]), after_gap(&[116]));
    assert!(has(&twins.take(B, &snapshot(120)), "reconnect resynced 0 rows last 120"));
    assert_eq!(twins.updates(&[(B, 120, 121)]), live(&[121]));
}

#[test]
fn what_a_connection_brings_of_before_the_end_of_the_one_ahead_is_not_stored_twice() {
    let mut twins = Twins::open();
    twins.take(A, &snapshot(100));
    assert_eq!(twins.updates(&[(A, 100, 110), (A, 110, 120)]), live(&[110, 120]));
    assert_eq!(gaps(&twins.close(A)).len(), 1);
    // It is not known to be in step, and is seen to be behind.
    assert_eq!(twins.updates(&[(B, 100, 110)]), live(&[]));
    assert!(levels(&twins.take(B, &snapshot(115))).is_empty());
    twins.clock += 1_000_000_000;
    let lines = twins.take(B, &update(115, 120));
    assert_eq!((levels(&lines), asked(&lines)), (vec![], vec![B]), "a snapshot of before that is asked for anew");
    assert_eq!(twins.updates(&[(B, 120, 130)]), after_gap(&[130]));
    assert_eq!(levels(&twins.take(B, &snapshot(130))), ["130 SNAPSHOT"]);
    assert_eq!(twins.updates(&[(B, 130, 140)]), live(&[140]));
}

#[test]
fn chains_that_never_join_are_led_by_one_connection_until_it_ends() {
    let mut twins = Twins::open();
    twins.take(A, &snapshot(100));
    assert!(twins.take(B, &snapshot(5_000_000)).is_empty());
    let (mut rows, mut asks) = (0, 0);
    for step in 0..300 {
        let own = twins.take(A, &update(100 + step, 101 + step));
        let other = twins.take(B, &update(5_000_000 + step, 5_000_001 + step));
        assert!(gaps(&own).is_empty() && other.is_empty(), "{own:?} {other:?}");
        rows += levels(&own).len();
        asks += asked(&own).len();
    }
    assert_eq!((rows, asks), (300, 0));
    // What the leader lacks is a gap, and only it is asked.
    let lines = twins.take(A, &update(405, 406));
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book sequence missing 401..405".into()], vec![A]));
    assert!(twins.updates(&[(B, 5_000_300, 5_000_301)]).is_empty());
    assert_eq!(levels(&twins.take(A, &snapshot(407))), ["407 SNAPSHOT"]);
    assert!(twins.updates(&[(B, 5_000_301, 5_000_302)]).is_empty());
    let lines = twins.close(A);
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book reconnect missing 408..-".into()], vec![B]));
    assert_eq!(levels(&twins.take(B, &snapshot(5_000_310))), ["5000310 SNAPSHOT"]);
    // The one that comes back is the other now.
    twins.reopen(A);
    assert!(twins.take(A, &snapshot(500)).is_empty());
    for step in 0..300 {
        let own = twins.take(B, &update(5_000_310 + step, 5_000_311 + step));
        let other = twins.take(A, &update(500 + step, 501 + step));
        assert!(gaps(&own).is_empty() && asked(&own).is_empty() && other.is_empty(), "{own:?} {other:?}");
    }
    assert!(gaps(&twins.close(A)).is_empty());
    let size = twins.whole.decoder.state().len();
    assert!(size < 10_000, "a state of {size} bytes");
}

#[test]
fn ids_that_the_chain_passed_by_put_a_connection_out_of_step_until_one_is_found_again() {
    let mut twins = Twins::live();
    assert_eq!(twins.updates(&[(A, 100, 105), (A, 105, 110)]), live(&[105, 110]));
    // B has other pieces of the same: nothing of it is taken, and nothing is asked for.
    assert!(twins.updates(&[(B, 100, 107), (B, 107, 112)]).is_empty());
    assert_eq!(twins.updates(&[(A, 110, 115), (B, 112, 115), (B, 115, 118), (A, 115, 118)]), live(&[115, 118]));
    assert!(gaps(&twins.close(A)).is_empty());
}

#[test]
fn a_connection_that_stalls_is_waited_for_until_too_much_is_held() {
    let mut twins = Twins::live();
    let mut lines = Vec::new();
    for id in 105..200 {
        lines.extend(twins.take(A, &update(id, id + 1)));
    }
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book sequence missing 101..105".into()], vec![A]));
    assert_eq!(levels(&lines), after_gap(&(106..=200).collect::<Vec<_>>()));
}

#[test]
fn ids_at_the_ends_of_what_there_is_break_nothing_but_their_book() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    for first in ends {
        let mut twins = Twins::open();
        twins.take(A, &snapshot(first));
        for (at, (id, previous)) in ends.iter().flat_map(|id| ends.iter().map(move |other| (*id, *other))).enumerate() {
            let conn = if at % 3 == 0 { B } else { A };
            twins.take(conn, &update(previous, id));
            match at % 11 {
                3 => drop(twins.take(conn, &snapshot(id))),
                7 => {
                    twins.close(conn);
                    twins.reopen(conn);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_lane_of_before_its_connections_could_be_in_step_goes_on_with_its_leader() {
    let mut lane = Lane::new(VENUE);
    let at = |at: i64| 1_700_000_000_000_000_000 + at * 1_000_000;
    for conn in [A, B] {
        lane.feed(&Input::open(at(1), &plan(VENUE, &["BTC-USDT"])).of(conn));
    }
    lane.feed(&Input::text(at(2), &snapshot(100)).of(B));
    lane.feed(&Input::text(at(3), &update(100, 105)).of(B));
    let mut state: serde_json::Value = serde_json::from_slice(&lane.decoder.state()).unwrap();
    let market = state["adapter"]["markets"][0].as_object_mut().unwrap();
    market.insert("leader".into(), 1.into());
    market.remove("quoted");
    let book = market["book"].as_object_mut().unwrap();
    for newer in ["places", "reach", "held"] {
        assert!(book.remove(newer).is_some(), "{newer}");
    }
    let state = serde_json::to_vec(&state).unwrap();
    lane.decoder =
        tapeway_exchanges::decoder::Decoder::restore(crate::harness::spec(VENUE), &state, lane.decoder.next()).unwrap();
    assert!(lane.feed(&Input::text(at(4), &update(100, 105)).of(A)).is_empty());
    assert!(levels(&lane.feed(&Input::text(at(5), &update(105, 110)).of(B))) == live(&[110]));
    assert!(lane.feed(&Input::text(at(6), &update(105, 110)).of(A)).is_empty());
    assert!(levels(&lane.feed(&Input::text(at(7), &update(110, 112)).of(A))) == live(&[112]));
    assert!(gaps(&lane.feed(&Input::close(at(8), CloseKind::Lost).of(B))).is_empty());
}

#[test]
fn a_book_without_ids_is_led_by_the_first_connection_to_deliver_until_it_ends() {
    let bare = |action: &str, price: &str| {
        format!(
            r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[["{price}","2","0","1"]],"ts":"1700000000000","checksum":0}}]}}"#
        )
    };
    let mut twins = Twins::open();
    assert_eq!(levels(&twins.take(B, &bare("snapshot", "1.0"))).len(), 1);
    assert!(twins.take(A, &bare("snapshot", "1.0")).is_empty());
    assert!(twins.take(A, &bare("update", "1.5")).is_empty());
    assert_eq!(levels(&twins.take(B, &bare("update", "1.5"))).len(), 1);
    assert!(gaps(&twins.take(A, &bare("update", "1.5")[..90])).is_empty());
    assert!(gaps(&twins.close(A)).is_empty());
    twins.reopen(A);
    let lines = twins.close(B);
    assert_eq!((gaps(&lines), asked(&lines)), (vec!["book reconnect missing -..-".into()], vec![A]));
    assert!(has(&twins.take(A, &bare("snapshot", "1.0")), "unprovable"));
}

#[test]
fn of_quotes_the_first_to_arrive_is_taken_by_id_and_time() {
    let mut twins = Twins::open();
    let came = |twins: &mut Twins, conn, ms, seq| has(&twins.take(conn, &quote(ms, seq)), " quote ");
    assert!(came(&mut twins, A, 1, Some(10)));
    assert!(!came(&mut twins, B, 1, Some(10)));
    assert!(came(&mut twins, B, 1, Some(11)), "the same time, and a later id");
    assert!(!came(&mut twins, A, 1, Some(11)));
    assert!(came(&mut twins, A, 5, Some(3)), "a numbering that begins anew");
    assert!(!came(&mut twins, B, 2, Some(12)), "older, though its id is higher");
    assert!(!came(&mut twins, B, 5, Some(3)));
    assert!(came(&mut twins, B, 6, Some(4)));
    assert!(came(&mut twins, B, 66, Some(4)), "the venue's reminder, by the same connection");
    assert!(!came(&mut twins, A, 66, Some(4)));
    let lines = twins.close(B);
    assert!(!has(&lines, "quotes"), "{lines:?}");
    twins.reopen(B);
    assert!(!came(&mut twins, B, 66, Some(4)), "what the new connection begins with");
    assert!(came(&mut twins, A, 67, Some(5)));
    twins.close(A);
    assert!(has(&twins.close(B), "quotes reconnect"));
}

#[test]
fn of_quotes_without_ids_only_later_ones_are_taken_of_the_other_connection() {
    let mut twins = Twins::open();
    let mut came = |conn, ms| has(&twins.take(conn, &quote(ms, None)), " quote ");
    assert!(came(A, 1) && came(A, 1));
    assert!(!came(B, 1) && came(B, 2) && !came(A, 2) && came(A, 3));
}
