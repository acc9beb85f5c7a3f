//! Who wants which topics: a tree by topic level.
//!
//! Matching costs the depth of the topic, not the number of subscriptions. Nothing is sent from here.

use std::{collections::HashMap, sync::Arc};

use rumqttd::protocol::QoS;

/// Deepest topic or filter in levels. Devices use three or four; the limit bounds recursion.
pub const MAX_LEVELS: usize = 64;
/// Longest topic or filter in bytes. Those of devices have some tens; the limit bounds what aliases, subscriptions
/// and queues can cost.
pub const MAX_TOPIC_BYTES: usize = 1_024;
/// Levels in the tree, of all clients together. One costs about half a kilobyte.
const NODES: usize = 200_000;

/// A client id, shared.
pub type ClientId = Arc<str>;

/// What a client asked for with one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Highest QoS wanted.
    pub qos: QoS,
    /// Not the client's own messages.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// Subscription identifier of version 5.
    pub id: Option<usize>,
}

/// A filter taken apart: `$share/<group>/<filter>` or a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedFilter<'a> {
    /// Name of the shared subscription.
    pub group: Option<&'a str>,
    /// The filter itself.
    pub filter: &'a str,
}

/// Takes a filter apart and checks it; `None` when it is malformed or too deep.
pub fn parse_filter(path: &str) -> Option<ParsedFilter<'_>> {
    let parsed = match path.strip_prefix("$share/") {
        Some(rest) => {
            let (group, filter) = rest.split_once('/')?;
            if group.is_empty() || group.contains(['+', '#']) {
                return None;
            }
            ParsedFilter {
                group: Some(group),
                filter,
            }
        }
        None => ParsedFilter {
            group: None,
            filter: path,
        },
    };
    let small = path.len() <= MAX_TOPIC_BYTES && levels(parsed.filter) <= MAX_LEVELS;
    (small && crate::topic_filter::TopicFilter::parse(parsed.filter).is_ok()).then_some(parsed)
}

/// Levels of a topic or filter.
pub fn levels(path: &str) -> usize {
    1 + path.bytes().filter(|b| *b == b'/').count()
}

/// Whether `topic` may be published to.
pub fn sound_topic(topic: &str) -> bool {
    topic.len() <= MAX_TOPIC_BYTES
        && crate::topic_filter::valid_topic_name(topic)
        && levels(topic) <= MAX_LEVELS
}

/// The tree.
#[derive(Default)]
pub struct Subscriptions {
    root: Node,
    nodes: usize,
}

#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    plain: Vec<(ClientId, Subscription)>,
    shared: Vec<Group>,
}

struct Group {
    name: Box<str>,
    members: Vec<(ClientId, Subscription)>,
    next: usize,
}

/// One receiver of a message: its subscriptions that match, merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Highest QoS of them.
    pub qos: QoS,
    /// One of them keeps the retain flag.
    pub retain_as_published: bool,
    /// Their identifiers.
    pub ids: Vec<usize>,
}

impl Subscriptions {
    /// Adds or replaces. Answers whether it is new; `None` when the tree is full.
    pub fn insert(
        &mut self,
        filter: ParsedFilter<'_>,
        client: &ClientId,
        subscription: Subscription,
    ) -> Option<bool> {
        if self.nodes + levels(filter.filter) > NODES {
            return None;
        }
        let nodes = &mut self.nodes;
        let node = filter.filter.split('/').fold(&mut self.root, |node, level| {
            node.children.entry(level.into()).or_insert_with(|| {
                *nodes += 1;
                Node::default()
            })
        });
        let members = match filter.group {
            None => &mut node.plain,
            Some(name) => {
                let at = node
                    .shared
                    .iter()
                    .position(|g| *g.name == *name)
                    .unwrap_or_else(|| {
                        node.shared.push(Group {
                            name: name.into(),
                            members: Vec::new(),
                            next: 0,
                        });
                        node.shared.len() - 1
                    });
                &mut node.shared[at].members
            }
        };
        let old = members.iter_mut().find(|(c, _)| c == client);
        let new = old.is_none();
        match old {
            Some((_, old)) => *old = subscription,
            None => members.push((client.clone(), subscription)),
        }
        Some(new)
    }

    /// Removes. Answers whether it was there. Empty branches are pruned, so that subscribing to ever new filters
    /// leaves nothing behind.
    pub fn remove(&mut self, filter: ParsedFilter<'_>, client: &ClientId) -> bool {
        let levels: Vec<&str> = filter.filter.split('/').collect();
        remove_from(&mut self.root, &levels, filter.group, client, &mut self.nodes)
    }

    /// Everyone who gets a message on `topic` from `publisher`. `online` decides which members of a shared
    /// subscription are preferred.
    pub fn receivers(
        &mut self,
        topic: &str,
        publisher: Option<&str>,
        online: &dyn Fn(&ClientId) -> bool,
    ) -> Vec<(ClientId, Receiver)> {
        let mut found = Found::default();
        let levels: Vec<&str> = topic.split('/').collect();
        let wildcards = !topic.starts_with('$');
        collect(&mut self.root, &levels, wildcards, publisher, online, &mut found);
        found.plain.into_iter().chain(found.shared).collect()
    }
}

/// Receivers so far. Subscriptions of one client that overlap make one message; a shared one makes a message of its own (MQTT 5, 4.8.2).
#[derive(Default)]
struct Found {
    plain: HashMap<ClientId, Receiver>,
    shared: Vec<(ClientId, Receiver)>,
}

fn remove_from(
    node: &mut Node,
    levels: &[&str],
    group: Option<&str>,
    client: &ClientId,
    nodes: &mut usize,
) -> bool {
    let Some((first, rest)) = levels.split_first() else {
        let members = match group {
            None => &mut node.plain,
            Some(name) => match node.shared.iter_mut().find(|g| *g.name == *name) {
                Some(group) => &mut group.members,
                None => return false,
            },
        };
        let before = members.len();
        members.retain(|(c, _)| c != client);
        let removed = members.len() < before;
        node.shared.retain(|g| !g.members.is_empty());
        return removed;
    };
    let Some(child) = node.children.get_mut(*first) else {
        return false;
    };
    let removed = remove_from(child, rest, group, client, nodes);
    if child.plain.is_empty() && child.shared.is_empty() && child.children.is_empty() {
        node.children.remove(*first);
        *nodes -= 1;
    }
    removed
}

fn collect(
    node: &mut Node,
    levels: &[&str],
    wildcards: bool,
    publisher: Option<&str>,
    online: &dyn Fn(&ClientId) -> bool,
    found: &mut Found,
) {
    // "a/#" also covers "a" itself.
    if wildcards && let Some(child) = node.children.get_mut("#") {
        take(child, publisher, online, found);
    }
    let Some((first, rest)) = levels.split_first() else {
        take(node, publisher, online, found);
        return;
    };
    if let Some(child) = node.children.get_mut(*first) {
        collect(child, rest, true, publisher, online, found);
    }
    if wildcards && let Some(child) = node.children.get_mut("+") {
        collect(child, rest, true, publisher, online, found);
    }
}

fn take(node: &mut Node, publisher: Option<&str>, online: &dyn Fn(&ClientId) -> bool, found: &mut Found) {
    for (client, subscription) in &node.plain {
        if subscription.no_local && publisher == Some(&**client) {
            continue;
        }
        let receiver = found.plain.entry(client.clone()).or_insert(Receiver {
            qos: QoS::AtMostOnce,
            retain_as_published: false,
            ids: Vec::new(),
        });
        if subscription.qos > receiver.qos {
            receiver.qos = subscription.qos;
        }
        receiver.retain_as_published |= subscription.retain_as_published;
        receiver.ids.extend(subscription.id);
    }
    for group in &mut node.shared {
        // Round robin over the members that are there; if none is, over those that will come back.
        let count = group.members.len();
        let in_turn = (0..count).map(|n| (group.next + n) % count);
        let chosen = in_turn
            .clone()
            .find(|&n| online(&group.members[n].0))
            .or_else(|| in_turn.clone().next());
        if let Some(n) = chosen {
            group.next = (n + 1) % count;
            let (client, subscription) = &group.members[n];
            let receiver = Receiver {
                qos: subscription.qos,
                retain_as_published: subscription.retain_as_published,
                ids: subscription.id.into_iter().collect(),
            };
            found.shared.push((client.clone(), receiver));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(qos: QoS) -> Subscription {
        Subscription {
            qos,
            no_local: false,
            retain_as_published: false,
            id: None,
        }
    }

    fn tree(entries: &[(&str, &str)]) -> Subscriptions {
        let mut tree = Subscriptions::default();
        for (client, filter) in entries {
            tree.insert(
                parse_filter(filter).unwrap(),
                &(*client).into(),
                subscription(QoS::AtLeastOnce),
            );
        }
        tree
    }

    fn names(tree: &mut Subscriptions, topic: &str) -> Vec<String> {
        let mut names: Vec<_> = tree
            .receivers(topic, None, &|_| true)
            .into_iter()
            .map(|(client, _)| client.to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        let check = |filter: &str, topic: &str, want: bool| {
            let mut tree = tree(&[("c", filter)]);
            assert_eq!(!names(&mut tree, topic).is_empty(), want, "{filter} {topic}");
            let plain = crate::topic_filter::TopicFilter::parse(filter).unwrap();
            assert_eq!(
                plain.matches(topic),
                want,
                "the matcher of capture filters agrees on {filter} {topic}"
            );
        };
        check("a/b", "a/b", true);
        check("a/b", "a/b/c", false);
        check("a/+", "a/b", true);
        check("a/+", "a", false);
        check("a/+", "a/", true);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("a/#", "a", true);
        check("a/#", "a/b/c", true);
        check("#", "a/b", true);
        check("#", "$SYS/x", false);
        check("+/x", "$SYS/x", false);
        check("$SYS/#", "$SYS/x", true);
        check("$SYS/+", "$SYS/x", true);
        check("a/+/c", "a/b/c", true);
        check("a/+/c", "a/b/d", false);
    }

    #[test]
    fn overlapping_subscriptions_give_one_message_at_the_highest_qos() {
        let mut tree = tree(&[("c", "a/#")]);
        tree.insert(
            parse_filter("a/+").unwrap(),
            &"c".into(),
            Subscription {
                id: Some(3),
                ..subscription(QoS::ExactlyOnce)
            },
        );
        let found = tree.receivers("a/b", None, &|_| true);
        let want = Receiver {
            qos: QoS::ExactlyOnce,
            retain_as_published: false,
            ids: vec![3],
        };
        assert_eq!(found, [("c".into(), want)]);
    }

    #[test]
    fn no_local_leaves_out_the_publisher() {
        let mut tree = Subscriptions::default();
        tree.insert(
            parse_filter("a").unwrap(),
            &"c".into(),
            Subscription {
                no_local: true,
                ..subscription(QoS::AtMostOnce)
            },
        );
        assert!(tree.receivers("a", Some("c"), &|_| true).is_empty());
        assert_eq!(tree.receivers("a", Some("d"), &|_| true).len(), 1);
    }

    #[test]
    fn a_shared_subscription_makes_a_message_of_its_own_beside_a_plain_one() {
        let mut tree = tree(&[
            ("c", "a/#"),
            ("c", "a/+"),
            ("c", "$share/g/a/#"),
            ("c", "$share/h/a/b"),
        ]);
        assert_eq!(names(&mut tree, "a/b"), ["c", "c", "c"]);
    }

    #[test]
    fn a_shared_subscription_goes_round_its_members_and_prefers_those_online() {
        let mut tree = tree(&[("c1", "$share/g/a/#"), ("c2", "$share/g/a/#"), ("other", "a/#")]);
        assert_eq!(names(&mut tree, "a/x"), ["c1", "other"]);
        assert_eq!(names(&mut tree, "a/x"), ["c2", "other"]);
        assert_eq!(names(&mut tree, "a/x"), ["c1", "other"]);
        let only_c1 = |client: &ClientId| &**client == "c1";
        for _ in 0..3 {
            let found = tree.receivers("a/x", None, &only_c1);
            assert!(found.iter().any(|(client, _)| &**client == "c1"));
        }
        assert_eq!(tree.receivers("a/x", None, &|_| false).len(), 2);
    }

    #[test]
    fn removal_prunes() {
        let mut tree = tree(&[("c", "a/b/c"), ("c", "$share/g/x/+")]);
        assert!(tree.remove(parse_filter("a/b/c").unwrap(), &"c".into()));
        assert!(!tree.remove(parse_filter("a/b/c").unwrap(), &"c".into()));
        assert!(tree.remove(parse_filter("$share/g/x/+").unwrap(), &"c".into()));
        assert!(tree.root.children.is_empty());
        assert_eq!(tree.nodes, 0);
    }

    #[test]
    fn the_tree_is_bounded() {
        let mut tree = Subscriptions::default();
        let deep = "/".repeat(MAX_LEVELS - 2);
        let filters = (0..).map(|n| format!("{n}{deep}/x"));
        let fit = filters
            .take_while(|f| {
                tree.insert(
                    parse_filter(f).unwrap(),
                    &"c".into(),
                    subscription(QoS::AtMostOnce),
                )
                .is_some()
            })
            .count();
        assert_eq!(fit, NODES / MAX_LEVELS);
    }

    #[test]
    fn malformed_filters_are_refused() {
        for bad in [
            "",
            "a/#/b",
            "a#",
            "a/b+",
            "$share//a",
            "$share/g",
            "$share/g/",
            "$share/+/a",
            &"/".repeat(MAX_LEVELS),
            &"a".repeat(MAX_TOPIC_BYTES + 1),
        ] {
            assert_eq!(parse_filter(bad), None, "{bad}");
        }
        assert_eq!(
            parse_filter("$share/g/a/b"),
            Some(ParsedFilter {
                group: Some("g"),
                filter: "a/b"
            })
        );
    }
}
