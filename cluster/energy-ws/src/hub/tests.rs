//! The hub without Kafka and without clients: order, cursors, replays, gaps.

use super::window::WINDOW_BYTES;
use super::*;

const ENERGY: Place = Place {
    stream: Stream::Energy,
    partition: 0,
};
const PLUG: Place = Place {
    stream: Stream::Plug,
    partition: 1,
};

fn body(name: &str) -> Option<Body> {
    Some(Body {
        id: name.into(),
        text: format!("{{\"id\":\"{name}\""),
        device: Some("d".into()),
    })
}

fn hub() -> Hub {
    let hub = Hub::default();
    hub.add(ENERGY, 10, 10);
    hub.add(PLUG, 0, 0);
    hub
}

fn publish(hub: &Hub, place: Place, offsets: std::ops::Range<i64>) {
    for offset in offsets {
        hub.publish(
            place,
            offset,
            offset * 1_000,
            body(&format!("{}/{offset}", place.stream.name())),
        );
    }
}

/// Everything a replay gives: offsets by stream in order, gaps, and the positions at the end.
fn replay(
    hub: &Hub,
    streams: &[Stream],
    mut positions: Positions,
) -> (Vec<(Stream, i64)>, Vec<Gap>, Positions) {
    let (mut offsets, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let step = hub.replay(streams, &mut positions);
        assert!(step.entries.len() <= REPLAY_STEP);
        offsets.extend(
            step.entries
                .iter()
                .map(|entry| (entry.place.stream, entry.offset)),
        );
        gaps.extend(step.gaps);
        if step.complete {
            return (offsets, gaps, positions);
        }
    }
}

fn record_of(live: Live) -> Arc<Entry> {
    match live {
        Live::Record(entry) => entry,
        Live::Break(there) => panic!("{there:?}"),
    }
}

fn at(energy: i64, plug: i64) -> Positions {
    let mut positions = Positions::default();
    positions.set(ENERGY, energy);
    positions.set(PLUG, plug);
    positions
}

#[test]
fn messages_carry_the_cursor_behind_them() {
    let hub = hub();
    let (mut ring, _) = hub.listen();
    publish(&hub, ENERGY, 10..12);
    publish(&hub, PLUG, 0..1);
    let entries: Vec<_> = (0..3).map(|_| record_of(ring.try_recv().unwrap())).collect();
    assert_eq!(entries[0].positions(), at(11, 0));
    assert_eq!(entries[1].positions(), at(12, 0));
    assert_eq!(entries[2].positions(), at(12, 1));
    let other = entries[0].message_at(&at(11, 7));
    assert!(
        other.starts_with("{\"id\":\"energy/10\",\"cursor\":\""),
        "{other}"
    );
    assert!(serde_json::from_str::<serde_json::Value>(&other).is_ok());
    assert_eq!(hub.positions(), (at(12, 1), 3));
}

#[test]
fn a_replay_gives_what_was_missed_once_and_in_order() {
    let hub = hub();
    publish(&hub, ENERGY, 10..12);
    publish(&hub, PLUG, 0..3);
    publish(&hub, ENERGY, 12..400);
    let both = [Stream::Energy, Stream::Plug];
    let (offsets, gaps, end) = replay(&hub, &both, at(11, 1));
    let mut want = vec![(Stream::Energy, 11), (Stream::Plug, 1), (Stream::Plug, 2)];
    want.extend((12..400).map(|offset| (Stream::Energy, offset)));
    assert_eq!((offsets, gaps), (want, vec![]));
    assert_eq!(end, at(400, 3));
    let (offsets, gaps, end) = replay(&hub, &[Stream::Plug], at(11, 2));
    assert_eq!((offsets, gaps), (vec![(Stream::Plug, 2)], vec![]));
    assert_eq!(
        end,
        at(11, 3),
        "streams that were not asked for stay where they are"
    );
    assert_eq!(replay(&hub, &both, at(400, 3)).0, vec![]);
}

#[test]
fn what_is_older_than_the_window_is_a_gap_and_the_rest_follows() {
    let hub = hub();
    let end = 10 + WINDOW_RECORDS as i64 + 5;
    publish(&hub, ENERGY, 10..end);
    let (offsets, gaps, _) = replay(&hub, &[Stream::Energy, Stream::Plug], at(12, 0));
    assert_eq!(offsets.len(), WINDOW_RECORDS);
    assert_eq!(offsets[0], (Stream::Energy, 15));
    assert_eq!(
        gaps,
        vec![Gap {
            stream: Stream::Energy,
            to_ms: Some(15_000),
            reason: GapReason::Window
        }]
    );
    assert_eq!(replay(&hub, &[Stream::Energy], at(15, 0)).1, vec![]);
    // Before the process's own start there is nothing to replay either.
    let fresh = super::tests::hub();
    let (offsets, gaps, end) = replay(&fresh, &[Stream::Energy], at(3, 0));
    assert_eq!(offsets, vec![]);
    assert_eq!(
        gaps,
        vec![Gap {
            stream: Stream::Energy,
            to_ms: None,
            reason: GapReason::Window
        }]
    );
    assert_eq!(end, at(10, 0));
}

#[test]
fn windows_are_bounded_in_bytes() {
    let hub = hub();
    let large = "x".repeat(WINDOW_BYTES / 10);
    for offset in 10..40 {
        hub.publish(ENERGY, offset, 0, body(&format!("{offset}{large}")));
    }
    let (offsets, gaps, _) = replay(&hub, &[Stream::Energy], at(10, 0));
    assert_eq!(offsets.len(), 9);
    assert_eq!(gaps.len(), 1);
}

#[test]
fn a_client_of_a_faster_process_is_not_sent_back() {
    let hub = hub();
    publish(&hub, ENERGY, 10..12);
    hub.high_is(ENERGY, 15);
    assert!(!hub.is_behind(&Stream::ALL, &at(15, 0)) && hub.is_behind(&Stream::ALL, &at(16, 0)));
    let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(14, 0));
    assert_eq!((offsets, gaps, end), (vec![], vec![], at(14, 0)));
    // Beyond the topic's end: of a former life of it. The present one follows from its beginning.
    let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(900, 0));
    assert_eq!(offsets, vec![(Stream::Energy, 10), (Stream::Energy, 11)]);
    assert_eq!(
        gaps,
        vec![Gap {
            stream: Stream::Energy,
            to_ms: Some(10_000),
            reason: GapReason::Reset
        }]
    );
    assert_eq!(end, at(12, 0));
}

#[test]
fn a_gap_reaches_to_where_every_partition_goes_on() {
    let hub = hub();
    let second = Place {
        stream: Stream::Energy,
        partition: 1,
    };
    hub.add(second, 50, 50);
    publish(&hub, ENERGY, 10..12);
    publish(&hub, second, 50..51);
    let of = |to_ms| {
        vec![Gap {
            stream: Stream::Energy,
            to_ms,
            reason: GapReason::Window,
        }]
    };
    let (offsets, gaps, _) = replay(&hub, &[Stream::Energy], at(3, 0));
    assert_eq!((offsets.len(), gaps), (3, of(Some(50_000))));
    let third = Place {
        stream: Stream::Energy,
        partition: 2,
    };
    hub.add(third, 5, 5);
    assert_eq!(replay(&hub, &[Stream::Energy], at(3, 0)).1, of(None));
}

#[test]
fn what_was_deleted_before_it_was_read_is_a_break() {
    let hub = hub();
    let (mut ring, _) = hub.listen();
    publish(&hub, ENERGY, 10..12);
    assert!(hub.publish(ENERGY, 40, 40_000, body("after/40")).broke_off);
    assert!(!hub.publish(ENERGY, 41, 41_000, body("after/41")).broke_off);
    let sequences = [
        record_of(ring.try_recv().unwrap()).sequence,
        record_of(ring.try_recv().unwrap()).sequence,
    ];
    assert_eq!(sequences, [1, 2]);
    match ring.try_recv().unwrap() {
        Live::Break(there) => {
            assert_eq!((there.sequence, there.place, there.next), (3, ENERGY, 40));
            assert_eq!((there.from_ms, there.to_ms), (11_000, 40_000));
            assert_eq!(there.reason, GapReason::Window);
        }
        Live::Record(entry) => panic!("{entry:?}"),
    }
    assert_eq!(record_of(ring.try_recv().unwrap()).positions(), at(41, 0));
    // Who comes back from before it is told as well, and gets what follows it.
    let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(11, 0));
    assert_eq!(offsets, vec![(Stream::Energy, 40), (Stream::Energy, 41)]);
    assert_eq!(
        gaps,
        vec![Gap {
            stream: Stream::Energy,
            to_ms: Some(40_000),
            reason: GapReason::Window
        }]
    );
    assert_eq!(end, at(42, 0));
    assert_eq!(replay(&hub, &[Stream::Energy], at(40, 0)).1, vec![]);
    // One that cannot be shown counts as well.
    assert!(hub.publish(ENERGY, 50, 0, None).broke_off);
}

#[test]
fn records_without_a_message_are_gone_past() {
    let hub = hub();
    publish(&hub, ENERGY, 10..11);
    hub.publish(ENERGY, 11, 0, None);
    let (offsets, _, end) = replay(&hub, &[Stream::Energy], at(10, 0));
    assert_eq!((offsets, end), (vec![(Stream::Energy, 10)], at(12, 0)));
}

#[test]
fn a_topic_that_was_made_anew_starts_over() {
    let hub = hub();
    publish(&hub, ENERGY, 10..12);
    let (mut ring, _) = hub.listen();
    publish(&hub, ENERGY, 0..2);
    assert!(matches!(ring.try_recv().unwrap(), Live::Break(there) if there.reason == GapReason::Reset));
    let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(0, 0));
    assert_eq!(
        (offsets, gaps, end),
        (vec![(Stream::Energy, 0), (Stream::Energy, 1)], vec![], at(2, 0))
    );
}

#[test]
fn a_record_that_kafka_holds_twice_is_sent_once() {
    let hub = hub();
    let (mut ring, _) = hub.listen();
    publish(&hub, ENERGY, 10..12);
    // What a killed agent sends again, and what follows it.
    let again = |offset, name| hub.publish(ENERGY, offset, 0, body(name));
    assert!(!again(12, "energy/10").sent);
    assert!(!again(13, "energy/11").sent);
    assert!(again(14, "energy/12").sent);
    let records: Vec<_> = (0..3).map(|_| record_of(ring.try_recv().unwrap())).collect();
    assert!(ring.try_recv().is_err());
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [10, 11, 14]);
    assert_eq!(records[2].positions(), at(15, 0));
    let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(10, 0));
    let want = vec![(Stream::Energy, 10), (Stream::Energy, 11), (Stream::Energy, 14)];
    assert_eq!((offsets, gaps, end), (want, vec![], at(15, 0)));
    // A gap does not make them new; another topic of the same name does.
    assert!(!again(30, "energy/11").sent);
    assert!(again(0, "energy/11").sent);
}

#[test]
fn a_listener_that_the_ring_left_behind_goes_on_from_the_window() {
    let hub = hub();
    publish(&hub, ENERGY, 10..12);
    let (mut ring, taken) = hub.listen();
    publish(&hub, ENERGY, 12..13);
    publish(&hub, PLUG, 0..RING_RECORDS as i64);
    publish(&hub, ENERGY, 13..14);
    assert!(matches!(
        ring.try_recv(),
        Err(broadcast::error::TryRecvError::Lagged(_))
    ));

    let missed = hub.missed(&[(Stream::Energy, taken)]).unwrap();
    let offsets: Vec<_> = missed.entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, [12, 13], "what it had taken does not come again");
    // What follows comes from the ring, without a hole.
    let mut ring = missed.ring;
    publish(&hub, ENERGY, 14..15);
    let next = ring.try_recv().unwrap();
    assert_eq!(next.sequence(), missed.sequence + 1);

    let both = [(Stream::Energy, taken), (Stream::Plug, taken)];
    assert!(hub.missed(&both).is_none(), "the plug's window is past that");
    let (_, now) = hub.listen();
    assert!(
        hub.missed(&[(Stream::Energy, taken), (Stream::Plug, now)])
            .is_some()
    );
}

#[test]
fn a_listener_that_missed_a_break_is_not_given_the_rest_as_if_it_were_whole() {
    let hub = hub();
    let (_, taken) = hub.listen();
    publish(&hub, ENERGY, 10..12);
    publish(&hub, ENERGY, 20..22);
    assert!(hub.missed(&[(Stream::Energy, taken)]).is_none());
    assert!(hub.missed(&[(Stream::Plug, taken)]).is_some());
}
