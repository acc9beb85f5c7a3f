//! Sessions, routing and wills without a network.

use bytes::Bytes;

use super::{
    super::{
        store::{
            Restored, RestoredSession,
            form::{Now, Number, SessionRecord},
            journal::Task,
        },
        wire::{PublishProperties, QoS, Version, Will},
    },
    *,
};

fn connect(clean_start: bool) -> Connect {
    Connect {
        version: Version::V311,
        client_id: String::new(),
        clean_start,
        keep_alive: 0,
        login: None,
        will: None,
        session_expiry: None,
        receive_maximum: 10,
        max_packet_size: None,
        topic_alias_max: 0,
        enhanced_auth: false,
    }
}

fn message(topic: &str, qos: QoS, retain: bool, payload: &'static str) -> Publish {
    let payload = Bytes::from_static(payload.as_bytes());
    Publish {
        dup: false,
        qos,
        pkid: 0,
        retain,
        topic: topic.into(),
        payload,
        properties: None,
    }
}

fn subscribe(state: &mut State, client: &ClientId, filter: &str, qos: QoS) -> SubscribeVerdict {
    let filter = Filter {
        path: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    };
    let generation = state.sessions[client].attached.as_ref().unwrap().generation;
    let now = Instant::now();
    state.subscribe(client, generation, None, filter, now).0
}

fn next(
    state: &mut State,
    client: &ClientId,
    generation: u64,
    max_bytes: usize,
    now: Instant,
) -> Vec<Outgoing> {
    state.next_outgoing(client, generation, max_bytes, now).0
}

fn payloads(out: &[Outgoing]) -> Vec<(u16, bool, String)> {
    out.iter()
        .map(|packet| match packet {
            Outgoing::Publish(p) => (p.pkid, p.dup, String::from_utf8(p.payload.to_vec()).unwrap()),
            Outgoing::PubRel(pkid, _) => (*pkid, false, "PUBREL".into()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_persistent_session_gets_what_came_while_it_was_away_in_order() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    let first = state
        .connect(&client, connect(false), Admitted::default())
        .unwrap();
    subscribe(&mut state, &client, "a/#", QoS::AtLeastOnce);
    state.publish(None, &message("a/1", QoS::AtLeastOnce, false, "1"), now);
    assert_eq!(
        payloads(&next(&mut state, &client, first.generation, 1000, now)),
        [(1, false, "1".into())]
    );
    state.disconnect(&client, first.generation, None, now);
    state.publish(None, &message("a/2", QoS::AtMostOnce, false, "not kept"), now);
    state.publish(None, &message("a/2", QoS::AtLeastOnce, false, "2"), now);
    let second = state
        .connect(&client, connect(false), Admitted::default())
        .unwrap();
    assert!(second.session_present);
    assert_eq!(
        payloads(&next(&mut state, &client, second.generation, 1000, now)),
        [(1, true, "1".into()), (2, false, "2".into())]
    );
    assert!(
        next(&mut state, &client, first.generation, 1000, now).is_empty(),
        "the old connection gets nothing"
    );
}

#[test]
fn the_window_is_kept_and_qos_2_resends_only_its_release() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    let first = state
        .connect(
            &client,
            Connect {
                receive_maximum: 2,
                ..connect(false)
            },
            Admitted::default(),
        )
        .unwrap();
    subscribe(&mut state, &client, "a", QoS::ExactlyOnce);
    for text in ["1", "2", "3"] {
        state.publish(None, &message("a", QoS::ExactlyOnce, false, text), now);
    }
    assert_eq!(next(&mut state, &client, first.generation, 1000, now).len(), 2);
    assert!(next(&mut state, &client, first.generation, 1000, now).is_empty());
    let (answered, _) = state.received(&client, first.generation, 1, true);
    assert_eq!(answered, Answered::Message);
    let one = Connect {
        receive_maximum: 1,
        ..connect(false)
    };
    let second = state.connect(&client, one, Admitted::default()).unwrap();
    assert_eq!(
        payloads(&next(&mut state, &client, second.generation, 1000, now)),
        [(1, false, "PUBREL".into()), (2, true, "2".into())],
        "PUBREL takes no place in the new window"
    );
    let generation = second.generation;
    assert_eq!(state.completed(&client, generation, 1), Answered::Message);
    assert_eq!(state.completed(&client, generation, 2), Answered::Wrong);
    assert!(next(&mut state, &client, second.generation, 1000, now).is_empty());
    assert_eq!(state.received(&client, generation, 2, true).0, Answered::Message);
    assert_eq!(state.completed(&client, generation, 2), Answered::Message);
    assert_eq!(state.completed(&client, generation, 2), Answered::Nothing);
    assert_eq!(
        payloads(&next(&mut state, &client, second.generation, 1000, now)),
        [(3, false, "3".into())]
    );
}

#[test]
fn retained_messages_are_given_kept_and_cleared() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    state.publish(None, &message("r/1", QoS::AtLeastOnce, true, "old"), now);
    state.publish(None, &message("r/1", QoS::AtLeastOnce, true, "new"), now);
    state.publish(None, &message("r/2", QoS::AtLeastOnce, true, "gone"), now);
    state.publish(None, &message("r/2", QoS::AtLeastOnce, true, ""), now);
    let connected = state
        .connect(&client, connect(true), Admitted::default())
        .unwrap();
    subscribe(&mut state, &client, "r/+", QoS::AtMostOnce);
    let out = next(&mut state, &client, connected.generation, 1000, now);
    assert_eq!(payloads(&out), [(0, false, "new".into())]);
    assert!(matches!(&out[0], Outgoing::Publish(p) if p.retain));
}

#[test]
fn a_session_gets_nothing_that_its_client_may_no_longer_have() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    let first = state
        .connect(&client, connect(false), Admitted::default())
        .unwrap();
    subscribe(&mut state, &client, "#", QoS::AtLeastOnce);
    for topic in ["secret/1", "mine/1"] {
        state.publish(None, &message(topic, QoS::AtLeastOnce, false, "sent"), now);
    }
    assert_eq!(next(&mut state, &client, first.generation, 1000, now).len(), 2);
    state.disconnect(&client, first.generation, None, now);
    // The owner has given it an access list.
    let allowed = Arc::from(vec![TopicFilter::parse("mine/#").unwrap()]);
    let admitted = Admitted {
        allowed: Some(allowed),
        ..Admitted::default()
    };
    let second = state.connect(&client, connect(false), admitted).unwrap();
    assert!(second.session_present);
    for topic in ["secret/2", "mine/2"] {
        state.publish(None, &message(topic, QoS::AtLeastOnce, false, "queued"), now);
    }
    assert_eq!(
        payloads(&next(&mut state, &client, second.generation, 1000, now)),
        [(2, true, "sent".into()), (3, false, "queued".into())]
    );
}

#[test]
fn a_retained_value_that_comes_again_waits_for_the_first() {
    let (mut state, now) = (State::default(), Instant::now());
    let clock = Arc::new(crate::clock::Clock::new(crate::clock::SegmentId(0)));
    state.journal.begin(std::thread::current(), clock);
    let value = message("t", QoS::AtLeastOnce, true, "v");
    let first = state.publish(None, &value, now).stored;
    assert!(first.is_some());
    assert_eq!(
        state.publish(None, &value, now).stored,
        first,
        "nothing new, not on disk"
    );
    let Task::Write(_, version) = state.journal.task(now + Duration::from_secs(1)) else {
        panic!("there is something to write")
    };
    assert_eq!(
        state.publish(None, &value, now).stored,
        first,
        "still being written"
    );
    state.journal.written(version);
    assert_eq!(state.publish(None, &value, now).stored, None, "it is on disk");
    let clear = message("t", QoS::AtLeastOnce, true, "");
    let cleared = state.publish(None, &clear, now).stored;
    assert!(cleared.is_some());
    assert_eq!(state.publish(None, &clear, now).stored, cleared);
}

#[test]
fn a_will_is_published_when_the_connection_is_lost_only() {
    let now = Instant::now();
    let client = ClientId::from("c");
    let with_will = |delay_seconds| {
        let mut state = State::default();
        let will = super::super::wire::Will {
            publish: message("w", QoS::AtMostOnce, false, "bye"),
            delay_seconds,
        };
        let wanted = Connect {
            will: Some(will),
            version: Version::V5,
            session_expiry: Some(100),
            ..connect(true)
        };
        let generation = state
            .connect(&client, wanted, Admitted::default())
            .unwrap()
            .generation;
        (state, generation)
    };
    let goodbye = |with_will| Goodbye {
        with_will,
        session_expiry: None,
    };
    let (mut state, generation) = with_will(0);
    assert!(
        state
            .disconnect(&client, generation, Some(&goodbye(false)), now)
            .is_none()
    );
    let (mut state, generation) = with_will(0);
    assert!(
        state
            .disconnect(&client, generation, Some(&goodbye(true)), now)
            .is_some()
    );
    let (mut state, generation) = with_will(0);
    assert!(state.disconnect(&client, generation, None, now).is_some());
    let (mut state, generation) = with_will(10);
    assert!(state.disconnect(&client, generation, None, now).is_none());
    assert!(state.housekeeping(now + Duration::from_secs(9)).is_empty());
    assert_eq!(state.housekeeping(now + Duration::from_secs(10)).len(), 1);
    let (mut state, generation) = with_will(10);
    state.disconnect(&client, generation, None, now);
    state.connect(
        &client,
        Connect {
            version: Version::V5,
            session_expiry: Some(100),
            ..connect(false)
        },
        Admitted::default(),
    );
    assert!(
        state.housekeeping(now + Duration::from_secs(50)).is_empty(),
        "it came back in time"
    );
}

/// A session with a will, as it was on disk: due then, or of a client that was connected.
fn restored(delay_seconds: u32, due_ms: Option<u64>, wall: Wall, now: Now) -> State {
    let will = Will {
        publish: message("will", QoS::AtLeastOnce, true, "gone"),
        delay_seconds,
    };
    let session = RestoredSession {
        record: SessionRecord {
            number: Number(1),
            client: "c".into(),
            user: None,
            version: Version::V5,
            expiry: Some(Duration::from_secs(1_000)),
            away_since_ms: due_ms.map(|_| now.wall_ms),
        },
        subscriptions: Vec::new(),
        messages: std::collections::BTreeMap::new(),
        outgoing: Vec::new(),
        incoming: Vec::new(),
        will: Some((will, due_ms)),
    };
    let mut state = State::default();
    let restored = Restored {
        sessions: vec![session],
        ..Restored::default()
    };
    state.restore(restored, wall, now);
    state
}

#[test]
fn a_will_goes_on_waiting_over_a_restart_and_a_client_has_time_to_come_back() {
    let now = Now::read();
    let check = |delay, due_ms, wall, seconds: u64| {
        let mut state = restored(delay, due_ms, wall, now);
        let at = |seconds| now.instant + Duration::from_secs(seconds);
        assert!(
            state.housekeeping(at(seconds - 1)).is_empty(),
            "{delay} {due_ms:?}"
        );
        let wills = state.housekeeping(at(seconds));
        assert_eq!(wills.len(), 1, "{delay} {due_ms:?}");
        assert_eq!(&*wills[0].1.topic, "will");
        assert!(state.housekeeping(at(seconds + 999)).is_empty(), "once");
    };
    // Its delay was running: what is left of it, or what is sure to be enough where the clock says nothing.
    check(0, Some(now.wall_ms + 30_000), Wall::Right, 30);
    check(0, Some(now.wall_ms + 30_000), Wall::Unknown, RETURN.as_secs());
    // Its client was connected when the agent died.
    check(0, None, Wall::Right, RETURN.as_secs());
    check(600, None, Wall::Right, 600);
    // The session ends before the delay.
    check(5_000, None, Wall::Right, 1_000);
    // It was kept while nobody knew the time: what is left runs again, whatever the clock says now.
    let unknown = Now {
        wall_is_known: false,
        wall_ms: 7,
        ..now
    };
    let kept = unknown.kept(now.instant + Duration::from_secs(300));
    check(0, Some(kept), Wall::Right, 300);
    // Due while the agent was away.
    let mut state = restored(0, Some(now.wall_ms - 1), Wall::Right, now);
    assert_eq!(state.housekeeping(now.instant).len(), 1);
    // The client is back in time.
    let mut state = restored(0, None, Wall::Right, now);
    let back = Connect {
        version: Version::V5,
        session_expiry: Some(1_000),
        ..connect(false)
    };
    let connected = state.connect(&"c".into(), back, Admitted::default()).unwrap();
    assert!(connected.session_present && connected.will.is_none());
    assert!(
        state
            .housekeeping(now.instant + Duration::from_secs(5_000))
            .is_empty()
    );
}

#[test]
fn a_session_that_was_left_before_the_time_was_known_does_not_end_at_a_restart() {
    let now = Now::read();
    let restored = |away_since_ms| {
        let record = SessionRecord {
            number: Number(1),
            client: "c".into(),
            user: None,
            version: Version::V311,
            expiry: Some(V311_EXPIRY),
            away_since_ms,
        };
        let session = RestoredSession {
            record,
            subscriptions: Vec::new(),
            messages: std::collections::BTreeMap::new(),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            will: None,
        };
        let sessions = vec![session];
        let mut state = State::default();
        state.restore(
            Restored {
                sessions,
                ..Restored::default()
            },
            Wall::Right,
            now,
        );
        state.sizes().0
    };
    let early = Now {
        wall_is_known: false,
        wall_ms: 1_000,
        ..now
    };
    assert_eq!(restored(Some(early.kept_now())), 1);
    let left_long_ago = Now {
        wall_ms: 1_000,
        ..now
    };
    assert_eq!(restored(Some(left_long_ago.kept_now())), 0);
}

#[test]
fn the_agents_stop_is_not_the_death_of_its_clients() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    let with_will = |clean| Connect {
        will: Some(Will {
            publish: message("will", QoS::AtLeastOnce, true, "gone"),
            delay_seconds: 0,
        }),
        ..connect(clean)
    };
    for clean in [true, false] {
        let connected = state
            .connect(&client, with_will(clean), Admitted::default())
            .unwrap();
        state.suspend(&client, connected.generation, now);
        assert!(state.housekeeping(now + RETURN / 2).is_empty());
        assert_eq!(state.housekeeping(now + RETURN).len(), usize::from(!clean));
    }
}

#[test]
fn sessions_end_when_they_were_to_and_leave_nothing() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    let clean = state
        .connect(&client, connect(true), Admitted::default())
        .unwrap();
    assert_eq!(
        subscribe(&mut state, &client, "a/#/b", QoS::AtMostOnce),
        SubscribeVerdict::InvalidFilter
    );
    subscribe(&mut state, &client, "a", QoS::AtMostOnce);
    state.disconnect(&client, clean.generation, None, now);
    assert_eq!(state.sizes(), (0, 0, 0, 0));
    assert_eq!(
        state
            .publish(None, &message("a", QoS::AtLeastOnce, false, "x"), now)
            .sessions,
        0
    );
    let kept = state
        .connect(&client, connect(false), Admitted::default())
        .unwrap();
    assert!(!kept.session_present);
    state.disconnect(&client, kept.generation, None, now);
    state.housekeeping(now + V311_EXPIRY - Duration::from_secs(1));
    assert_eq!(state.sizes().0, 1);
    state.housekeeping(now + V311_EXPIRY);
    assert_eq!(state.sizes().0, 0);
}

#[test]
fn a_full_queue_is_counted_and_the_slow_subscriber_is_cut_off() {
    let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
    let connected = state
        .connect(&client, connect(false), Admitted::default())
        .unwrap();
    subscribe(&mut state, &client, "a", QoS::AtLeastOnce);
    for _ in 0..super::super::session::QUEUE_MESSAGES {
        assert_eq!(
            state
                .publish(None, &message("a", QoS::AtLeastOnce, false, "x"), now)
                .sessions,
            1
        );
    }
    assert_eq!(
        state
            .publish(None, &message("a", QoS::AtLeastOnce, false, "x"), now)
            .sessions,
        0
    );
    assert_eq!(state.counts.queue_full, 1);
    let mut kicked = Box::pin(connected.kick.kicked());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(kicked.as_mut().poll(&mut context).is_ready());
}

#[test]
fn what_waits_is_bounded_for_all_together_but_everybody_has_a_share() {
    let (mut state, now) = (State::default(), Instant::now());
    let properties = PublishProperties {
        user_properties: vec![("k".into(), "v".repeat(60_000))],
        ..PublishProperties::default()
    };
    for n in 0..100 {
        let client = ClientId::from(n.to_string());
        let connected = state
            .connect(&client, connect(false), Admitted::default())
            .unwrap();
        subscribe(&mut state, &client, &n.to_string(), QoS::AtLeastOnce);
        state.disconnect(&client, connected.generation, None, now);
        for _ in 0..100 {
            let heavy = Publish {
                properties: Some(Box::new(properties.clone())),
                ..message(&n.to_string(), QoS::AtLeastOnce, false, "x")
            };
            state.publish(None, &heavy, now);
        }
        state.publish(
            None,
            &message(&n.to_string(), QoS::AtLeastOnce, false, "small"),
            now,
        );
    }
    let held = state.held_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!(held > 60 << 20, "properties count: {held}");
    assert!(held < 68 << 20, "{held}");
    assert!(state.sessions["99"].backlog() == 1, "the small one still fits");
    state.sessions.clear();
    assert_eq!(state.held_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn one_client_cannot_take_all_sessions_or_the_whole_tree() {
    let (mut state, now) = (State::default(), Instant::now());
    let all: Vec<ClientId> = (0..=SESSIONS).map(|n| n.to_string().into()).collect();
    for (n, client) in all.iter().enumerate() {
        let with_will = Connect {
            will: Some(Will {
                publish: message("w", QoS::AtMostOnce, false, "bye"),
                delay_seconds: 1_000_000,
            }),
            ..connect(false)
        };
        let connected = state.connect(client, with_will, Admitted::default()).unwrap();
        // The first stays.
        if n > 0 {
            state.disconnect(
                client,
                connected.generation,
                None,
                now + Duration::from_secs(n as u64),
            );
        }
    }
    assert_eq!(state.sizes().0, SESSIONS);
    assert_eq!(state.counts.sessions_evicted, 1);
    assert!(state.sessions.contains_key("0") && !state.sessions.contains_key("1"));
    let wills = state.housekeeping(now);
    assert_eq!((wills.len(), &*wills[0].0), (1, "1"), "its session is over");
    let client = &all[0];
    let deep = "/".repeat(super::super::MAX_LEVELS - 2);
    let granted = (0..1_000)
        .take_while(|n| {
            let verdict = subscribe(&mut state, client, &format!("{n}{deep}/x"), QoS::AtMostOnce);
            verdict != SubscribeVerdict::QuotaExceeded
        })
        .count();
    assert_eq!(granted, SUBSCRIBED_LEVELS / super::super::MAX_LEVELS);
    let generation = state.sessions[client].attached.as_ref().unwrap().generation;
    let (gone, _) = state.unsubscribe(client, generation, &format!("0{deep}/x"));
    assert_eq!(gone, UnsubAckReason::Success);
    assert_eq!(
        subscribe(&mut state, client, &format!("x{deep}/x"), QoS::AtMostOnce),
        SubscribeVerdict::Granted(QoS::AtMostOnce)
    );
}
