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

/// The same for a Shelly whose prefix has several levels (`cottage/plug/rpc`). What it says of itself ends alike and is no
/// command: its frames (`cottage/plug/events/rpc`) and its answers to the agent (`homelab/p0/rpc`).
fn is_rpc_of_a_long_prefix(topic: &str) -> bool {
    topic.ends_with("/rpc") && !topic.ends_with("/events/rpc") && !topic.starts_with("homelab/")
}

/// Passwords checked at a time: each takes 19 MiB while it is checked, and the box has 1 GB.
const CHECKS: usize = 2;
/// Passwords that wait to be checked, some seconds' worth; beyond it clients are told to come again.
const WAITING_CHECKS: usize = 64;

/// The rules of this agent.
pub struct Access {
    anonymous: Anonymous,
    users: RwLock<Arc<Users>>,
    command_topics: Arc<[TopicFilter]>,
    checks: Semaphore,
    waiting: Semaphore,
}

/// Who asks to be let in.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// Its address.
    pub peer: IpAddr,
    /// User and password it gives.
    pub login: Option<&'a (String, String)>,
    /// The user that its certificate proves; counts where it gives no other.
    pub certified: Option<&'a str>,
    /// Passwords from its address are checked at all.
    pub may_log_in: bool,
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
    /// Too many passwords of its address were wrong, or too many wait to be checked; this one was not looked at.
    #[error("too many logins, this one was not checked; the next is in some seconds")]
    TooManyLogins,
}

/// What a client that was let in may do.
#[derive(Clone, Debug)]
pub struct Rights {
    publish: Option<Arc<[TopicFilter]>>,
    subscribe: Option<Arc<[TopicFilter]>>,
    refused: Arc<[TopicFilter]>,
    command_topics: Arc<[TopicFilter]>,
    user: Option<Arc<str>>,
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
            waiting: Semaphore::new(CHECKS + WAITING_CHECKS),
        }
    }

    /// Replaces users and access lists for connections to come.
    pub fn replace_users(&self, users: Users) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }

    /// Whether a client may connect, and what it may do then. A login is always checked where there are users;
    /// without users it is not looked at, so that devices need not be set up anew for a try.
    pub async fn connect(&self, who: Who<'_>, client_id: &str) -> Result<Rights, Refused> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner).clone();
        let user = match (who.login.filter(|_| users.any()), who.certified) {
            (Some((user, password)), _) => {
                self.check(&users, user, password, who.may_log_in).await?;
                Some(user.as_str())
            }
            (None, Some(certified)) => Some(certified),
            (None, None) => {
                self.anonymous_from(who.peer)?;
                None
            }
        };
        let list = users.list(user, client_id);
        let filters = |filters: &Vec<String>| -> Arc<[TopicFilter]> {
            let filled = filters
                .iter()
                .filter_map(|filter| fill(filter, user, client_id)?.ok());
            filled.collect()
        };
        Ok(Rights {
            publish: list.and_then(|list| list.publish.as_ref()).map(filters),
            subscribe: list.and_then(|list| list.subscribe.as_ref()).map(filters),
            refused: list.map_or_else(Arc::default, |list| filters(&list.refuse_subscribe)),
            command_topics: self.command_topics.clone(),
            user: user.map(Into::into),
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

    /// A password that was right before is always right at once: nobody keeps a device out by guessing.
    async fn check(
        &self,
        users: &Arc<Users>,
        user: &str,
        password: &str,
        may_log_in: bool,
    ) -> Result<(), Refused> {
        if users.is_known(user, password) {
            return Ok(());
        }
        let Some(_place) = self.waiting.try_acquire().ok().filter(|_| may_log_in) else {
            return Err(Refused::TooManyLogins);
        };
        // The semaphore is never closed; a panic of the check counts as wrong.
        let Ok(_permit) = self.checks.acquire().await else {
            return Err(Refused::WrongLogin);
        };
        let (users, user, password) = (users.clone(), user.to_owned(), password.to_owned());
        let right = tokio::task::spawn_blocking(move || users.verify(&user, &password)).await;
        match right {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Refused::WrongLogin),
        }
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
            None => {
                let mut commands = self.command_topics.iter();
                !commands.any(|filter| filter.matches(topic)) && !is_rpc_of_a_long_prefix(topic)
            }
        }
    }

    /// The user the client has proven to be.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Topics the client gets by no subscription, however wide.
    pub fn refused(&self) -> Arc<[TopicFilter]> {
        self.refused.clone()
    }

    /// What its subscriptions must lie within; all may be had where there is nothing.
    pub fn allowed(&self) -> Option<Arc<[TopicFilter]>> {
        self.subscribe.clone()
    }

    /// Whether the client may subscribe to `filter`, shared or not: all that it covers must be allowed.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let shared = filter
            .strip_prefix("$share/")
            .and_then(|rest| rest.split_once('/'));
        let filter = shared.map_or(filter, |(_, filter)| filter);
        if self
            .refused
            .iter()
            .any(|refused| covers(refused.as_str(), filter))
        {
            return false;
        }
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

    fn who(peer: &str, login: Option<(&str, &str)>) -> (IpAddr, Option<(String, String)>) {
        let owned = |(user, password): (&str, &str)| (user.to_owned(), password.to_owned());
        (peer.parse().unwrap(), login.map(owned))
    }

    async fn connect(
        access: &Access,
        peer: &str,
        login: Option<(&str, &str)>,
        client_id: &str,
    ) -> Result<Rights, Refused> {
        let (peer, login) = who(peer, login);
        let who = Who {
            peer,
            login: login.as_ref(),
            certified: None,
            may_log_in: true,
        };
        access.connect(who, client_id).await
    }

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
            refused: Arc::default(),
            command_topics,
            user: None,
        }
    }

    #[tokio::test]
    async fn anonymous_clients_come_from_where_the_configuration_says() {
        let check = async |anonymous, peer: &str, want: bool| {
            let access = Access::new(anonymous);
            let outcome = connect(&access, peer, None, "c").await;
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
        let peer = "192.0.2.7";

        let wrong = connect(&access, peer, Some(("owner", "guess")), "c").await;
        assert_eq!(wrong.unwrap_err(), Refused::WrongLogin);
        assert_eq!(
            connect(&access, peer, None, "c").await.unwrap_err(),
            Refused::Anonymous
        );
        let loopback = "127.0.0.1";
        let wrong = connect(&access, loopback, Some(("nobody", "secret")), "c").await;
        assert_eq!(
            wrong.unwrap_err(),
            Refused::WrongLogin,
            "a wrong login is wrong on loopback too"
        );

        let owner = connect(&access, peer, Some(("owner", "secret")), "phone")
            .await
            .unwrap();
        assert!(owner.may_publish("thermiq_heatpump/write") && owner.may_subscribe("#"));
        let shelly = connect(&access, peer, Some(("devices", "secret")), "shelly-1")
            .await
            .unwrap();
        assert!(shelly.may_publish("shelly-1/events/rpc") && !shelly.may_publish("shelly-2/events/rpc"));
        assert!(shelly.may_subscribe("shelly-1/rpc") && !shelly.may_subscribe("#"));
        let other = connect(&access, peer, Some(("devices", "secret")), "plug")
            .await
            .unwrap();
        assert!(other.may_publish("tele/plug/STATE") && !other.may_publish("cmnd/plug/POWER"));
    }

    #[tokio::test]
    async fn a_certificate_is_a_login_and_guessing_keeps_nobody_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = hash_password("secret").unwrap();
        let text = format!(
            "[[users]]\nname = \"owner\"\npassword_hash = \"{hash}\"\n[[users]]\nname = \"p1.lan\"\n\
             [[access]]\nuser = \"p1.lan\"\npublish = [\"bridge/#\"]\nrefuse_subscribe = [\"secret/#\"]\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let access = Access::with_users(Anonymous::Never, Users::load(file.path()).unwrap());
        let login = ("owner".to_owned(), "secret".to_owned());
        let certified = Who {
            peer: "192.0.2.7".parse().unwrap(),
            login: None,
            certified: Some("p1.lan"),
            may_log_in: false,
        };
        let rights = access.connect(certified, "c").await.unwrap();
        assert!(rights.may_publish("bridge/x") && !rights.may_publish("other"));
        assert!(rights.may_subscribe("#") && !rights.may_subscribe("secret/x"));
        assert!(!rights.may_subscribe("$share/g/secret/#") && rights.refused()[0].matches("secret"));
        let mut who = Who {
            login: Some(&login),
            certified: None,
            ..certified
        };
        assert_eq!(
            access.connect(who, "c").await.unwrap_err(),
            Refused::TooManyLogins
        );
        who.may_log_in = true;
        assert_eq!(access.connect(who, "c").await.unwrap().user(), Some("owner"));
        who.may_log_in = false;
        assert!(access.connect(who, "c").await.is_ok(), "it was right before");
        let no_password = ("p1.lan".to_owned(), String::new());
        who = Who {
            login: Some(&no_password),
            may_log_in: true,
            ..who
        };
        assert_eq!(access.connect(who, "c").await.unwrap_err(), Refused::WrongLogin);
    }

    #[test]
    fn devices_may_not_command_devices() {
        let rights = rights(None, None);
        for topic in [
            "thermiq_heatpump/write",
            "cmnd/plug/POWER",
            "shellyplugsg3-d0cf13c0ffee/rpc",
            "cottage/cellar/plug/rpc",
            "$SYS/x",
        ] {
            assert!(!rights.may_publish(topic), "{topic}");
        }
        for topic in [
            "thermiq_heatpump/data",
            "stat/plug/POWER",
            "shellyplugsg3-d0cf13c0ffee/events/rpc",
            "cottage/cellar/plug/events/rpc",
            "homelab/p0/rpc",
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
