//! Who may connect, publish and subscribe.
//!
//! Closed by default: without users only loopback may connect anonymously, and nobody but the agent itself may
//! publish to the topics that command devices, unless an access list says so. The rules can be replaced while
//! the agent runs; connections keep those they came in by.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Deserialize;
use tokio::sync::Semaphore;

use super::users::{Users, fill};
use crate::topic_filter::TopicFilter;

/// Who may connect without a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Clients on the same machine.
    #[default]
    Loopback,
    /// Everybody who reaches the port. For a network of its own.
    Anywhere,
}

/// Topics that make a device do something: `thermiq_heatpump/write` (ThermIQ), `cmnd/...` (Tasmota),
/// `<prefix>/rpc` (Shelly). A compromised plug must not be able to set the heat pump.
const COMMAND_TOPICS: [&str; 3] = ["thermiq_heatpump/write", "cmnd/#", "+/rpc"];

/// Passwords checked at a time: each takes 19 MiB while it is checked, and the box has 1 GB.
const CHECKS: usize = 2;

/// The rules of this agent.
pub struct Access {
    anonymous: Anonymous,
    users: RwLock<Arc<Users>>,
    command_topics: Arc<[TopicFilter]>,
    checks: Semaphore,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It gave no user and anonymous clients are not let in from its address.
    #[error("anonymous clients are not let in from this address; see mqtt.anonymous in the configuration")]
    Anonymous,
    /// User or password is wrong.
    #[error("user or password is wrong")]
    WrongLogin,
}

/// What a client that was let in may do.
#[derive(Clone, Debug)]
pub struct Rights {
    publish: Option<Arc<[TopicFilter]>>,
    subscribe: Option<Arc<[TopicFilter]>>,
    command_topics: Arc<[TopicFilter]>,
}

impl Access {
    /// Rules without users.
    pub fn new(anonymous: Anonymous) -> Self {
        Self::with_users(anonymous, Users::default())
    }

    /// Rules with users and access lists.
    pub fn with_users(anonymous: Anonymous, users: Users) -> Self {
        let command_topics = COMMAND_TOPICS
            .iter()
            .map(|filter| TopicFilter::parse(*filter).expect("the constants are valid filters"))
            .collect();
        let users = RwLock::new(Arc::new(users));
        Self {
            anonymous,
            users,
            command_topics,
            checks: Semaphore::new(CHECKS),
        }
    }

    /// Replaces users and access lists for connections to come.
    pub fn replace_users(&self, users: Users) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }

    /// Whether a client may connect, and what it may do then. A login is always checked where there are users;
    /// without users it is not looked at, so that devices need not be set up anew for a try.
    pub async fn connect(
        &self,
        peer: IpAddr,
        login: Option<&(String, String)>,
        client_id: &str,
    ) -> Result<Rights, Refused> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner).clone();
        let user = match login.filter(|_| users.any()) {
            None => {
                self.anonymous_from(peer)?;
                None
            }
            Some((user, password)) => {
                if !self.is_right(&users, user, password).await {
                    return Err(Refused::WrongLogin);
                }
                Some(user.as_str())
            }
        };
        let list = users.list(user, client_id);
        let filters = |of: Option<&Vec<String>>| {
            of.map(|filters| {
                let filled = filters
                    .iter()
                    .filter_map(|filter| fill(filter, user, client_id)?.ok());
                filled.collect::<Arc<[TopicFilter]>>()
            })
        };
        Ok(Rights {
            publish: filters(list.and_then(|list| list.publish.as_ref())),
            subscribe: filters(list.and_then(|list| list.subscribe.as_ref())),
            command_topics: self.command_topics.clone(),
        })
    }

    fn anonymous_from(&self, peer: IpAddr) -> Result<(), Refused> {
        let allowed = match self.anonymous {
            Anonymous::Never => false,
            Anonymous::Loopback => peer.to_canonical().is_loopback(),
            Anonymous::Anywhere => true,
        };
        if allowed { Ok(()) } else { Err(Refused::Anonymous) }
    }

    async fn is_right(&self, users: &Arc<Users>, user: &str, password: &str) -> bool {
        if users.is_known(user, password) {
            return true;
        }
        // The semaphore is never closed; a panic of the check counts as wrong.
        let Ok(_permit) = self.checks.acquire().await else {
            return false;
        };
        let (users, user, password) = (users.clone(), user.to_owned(), password.to_owned());
        tokio::task::spawn_blocking(move || users.verify(&user, &password))
            .await
            .unwrap_or(false)
    }
}

impl Rights {
    /// Whether the client may publish on `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        if topic.starts_with('$') {
            return false;
        }
        match &self.publish {
            Some(filters) => filters.iter().any(|filter| filter.matches(topic)),
            None => !self.command_topics.iter().any(|filter| filter.matches(topic)),
        }
    }

    /// Whether the client may subscribe to `filter`, shared or not: all that it covers must be allowed.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let shared = filter
            .strip_prefix("$share/")
            .and_then(|rest| rest.split_once('/'));
        let filter = shared.map_or(filter, |(_, filter)| filter);
        match &self.subscribe {
            Some(filters) => filters.iter().any(|allowed| covers(allowed.as_str(), filter)),
            None => true,
        }
    }
}

/// True when every topic `wanted` matches is matched by `allowed`.
fn covers(allowed: &str, wanted: &str) -> bool {
    // A filter that begins with a wildcard never matches topics that begin with `$`.
    if wanted.starts_with('$') && allowed.starts_with(['+', '#']) {
        return false;
    }
    let (mut allowed, mut wanted) = (allowed.split('/'), wanted.split('/'));
    loop {
        match (allowed.next(), wanted.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::users::hash_password;

    fn rights(publish: Option<&[&str]>, subscribe: Option<&[&str]>) -> Rights {
        let filters = |of: Option<&[&str]>| {
            of.map(|filters| {
                filters
                    .iter()
                    .map(|f| TopicFilter::parse(*f).unwrap())
                    .collect::<Arc<[_]>>()
            })
        };
        let command_topics = Access::new(Anonymous::Never).command_topics;
        Rights {
            publish: filters(publish),
            subscribe: filters(subscribe),
            command_topics,
        }
    }

    #[tokio::test]
    async fn anonymous_clients_come_from_where_the_configuration_says() {
        let check = async |anonymous, peer: &str, want: bool| {
            let access = Access::new(anonymous);
            let outcome = access.connect(peer.parse().unwrap(), None, "c").await;
            assert_eq!(outcome.is_ok(), want, "{anonymous:?} {peer}");
        };
        check(Anonymous::Loopback, "127.0.0.1", true).await;
        check(Anonymous::Loopback, "::1", true).await;
        check(Anonymous::Loopback, "::ffff:127.0.0.1", true).await;
        check(Anonymous::Loopback, "192.0.2.7", false).await;
        check(Anonymous::Loopback, "::ffff:192.0.2.7", false).await;
        check(Anonymous::Anywhere, "192.0.2.7", true).await;
        check(Anonymous::Never, "127.0.0.1", false).await;
    }

    #[tokio::test]
    async fn logins_are_checked_and_decide_what_a_client_may_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = hash_password("secret").unwrap();
        let text = format!(
            "[[users]]\nname = \"owner\"\npassword_hash = \"{hash}\"\n\
             [[users]]\nname = \"devices\"\npassword_hash = \"{hash}\"\n\
             [[access]]\nuser = \"owner\"\npublish = [\"#\"]\n\
             [[access]]\nuser = \"devices\"\nclient_id = \"shelly*\"\npublish = [\"%c/#\"]\nsubscribe = [\"%c/rpc\"]\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let access = Access::with_users(Anonymous::Loopback, Users::load(file.path()).unwrap());
        let peer: IpAddr = "192.0.2.7".parse().unwrap();
        let login = |user: &str, password: &str| (user.to_owned(), password.to_owned());

        let wrong = access.connect(peer, Some(&login("owner", "guess")), "c").await;
        assert_eq!(wrong.unwrap_err(), Refused::WrongLogin);
        assert_eq!(
            access.connect(peer, None, "c").await.unwrap_err(),
            Refused::Anonymous
        );
        let loopback = "127.0.0.1".parse().unwrap();
        let wrong = access
            .connect(loopback, Some(&login("nobody", "secret")), "c")
            .await;
        assert_eq!(
            wrong.unwrap_err(),
            Refused::WrongLogin,
            "a wrong login is wrong on loopback too"
        );

        let owner = access
            .connect(peer, Some(&login("owner", "secret")), "phone")
            .await
            .unwrap();
        assert!(owner.may_publish("thermiq_heatpump/write") && owner.may_subscribe("#"));
        let shelly = access
            .connect(peer, Some(&login("devices", "secret")), "shelly-1")
            .await
            .unwrap();
        assert!(shelly.may_publish("shelly-1/events/rpc") && !shelly.may_publish("shelly-2/events/rpc"));
        assert!(shelly.may_subscribe("shelly-1/rpc") && !shelly.may_subscribe("#"));
        let other = access
            .connect(peer, Some(&login("devices", "secret")), "plug")
            .await
            .unwrap();
        assert!(other.may_publish("tele/plug/STATE") && !other.may_publish("cmnd/plug/POWER"));
    }

    #[test]
    fn devices_may_not_command_devices() {
        let rights = rights(None, None);
        for topic in [
            "thermiq_heatpump/write",
            "cmnd/plug/POWER",
            "shellyplugsg3-d0cf13c0ffee/rpc",
            "$SYS/x",
        ] {
            assert!(!rights.may_publish(topic), "{topic}");
        }
        for topic in [
            "thermiq_heatpump/data",
            "stat/plug/POWER",
            "shellyplugsg3-d0cf13c0ffee/events/rpc",
            "a/b/rpc",
        ] {
            assert!(rights.may_publish(topic), "{topic}");
        }
    }

    #[test]
    fn a_subscription_is_allowed_when_all_of_it_is() {
        let check = |allowed: &str, wanted: &str, want: bool| {
            assert_eq!(
                rights(None, Some(&[allowed])).may_subscribe(wanted),
                want,
                "{allowed} {wanted}"
            );
        };
        check("#", "a/b", true);
        check("#", "#", true);
        check("#", "$SYS/#", false);
        check("a/#", "a", true);
        check("a/#", "a/+/c", true);
        check("a/#", "#", false);
        check("a/+", "a/b", true);
        check("a/+", "a/+", true);
        check("a/+", "a/#", false);
        check("a/+", "a/b/c", false);
        check("a/b", "a/+", false);
        check("a/b", "a/b", true);
        check("+/b", "+/b", true);
        check("a/#", "$share/group/a/b", true);
        check("a/#", "$share/a/b", false);
    }
}
