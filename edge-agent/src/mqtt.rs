//! The section `[mqtt]` of the configuration: where clients connect, how, and what one of them may take.
//!
//! Keys and certificates are read when the ports are bound, not here; what is wrong is named by its key.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    broker::{AddressLimits, Anonymous, TlsSettings},
    kafka::WrongSetting,
};

/// Names of the systemd credentials that hold certificate and key.
const CERTIFICATE_CREDENTIAL: &str = "mqtt-certificate";
const KEY_CREDENTIAL: &str = "mqtt-key";

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMqtt {
    listen: SocketAddr,
    pub(crate) anonymous: Anonymous,
    pub(crate) users_file: Option<PathBuf>,
    max_connections: usize,
    tls: Option<RawTls>,
    websocket: Option<RawWebSocket>,
    limits: RawLimits,
}

impl Default for RawMqtt {
    fn default() -> Self {
        // A house has some tens of devices; 1,000 connections cost about 10 MB.
        Self {
            listen: ([127, 0, 0, 1], 1883).into(),
            anonymous: Anonymous::default(),
            users_file: None,
            max_connections: 1_000,
            tls: None,
            websocket: None,
            limits: RawLimits::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    listen: SocketAddr,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    #[serde(default)]
    client_certificate: ClientCertificate,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientCertificate {
    #[default]
    Optional,
    Required,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebSocket {
    listen: SocketAddr,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    allowed_origins: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    connections_per_address: Option<usize>,
    messages_per_second: Option<u32>,
    bytes_per_second: Option<u32>,
}

/// Checked settings of the ports.
#[derive(Debug)]
pub struct Mqtt {
    /// Where MQTT clients connect.
    pub listen: SocketAddr,
    /// Most connections at a time, of all ports.
    pub max_connections: usize,
    /// The port with TLS, and the keys.
    pub tls: Option<(SocketAddr, TlsSettings)>,
    /// The port for WebSocket.
    pub websocket: Option<WebSocket>,
    /// What one address may take.
    pub limits: AddressLimits,
}

/// The port for WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    /// Where it is.
    pub listen: SocketAddr,
    /// In TLS, with the keys of the port with TLS.
    pub tls: bool,
    /// Pages that may connect, besides those of the same host.
    pub allowed_origins: Vec<String>,
}

impl Mqtt {
    /// Checks the section; `credentials` is systemd's folder of credentials.
    pub fn check(raw: RawMqtt, credentials: Option<&Path>) -> Result<Self, WrongSetting> {
        let wrong = |key, message: &str| {
            Err(WrongSetting {
                key,
                message: message.into(),
            })
        };
        if raw.max_connections == 0 {
            return wrong("mqtt.max_connections", "at least 1");
        }
        let limits = AddressLimits {
            connections: raw.limits.connections_per_address,
            messages_per_second: raw.limits.messages_per_second,
            bytes_per_second: raw.limits.bytes_per_second,
        };
        if limits.connections == Some(0) {
            return wrong("mqtt.limits.connections_per_address", "at least 1");
        }
        if limits.messages_per_second == Some(0) {
            return wrong("mqtt.limits.messages_per_second", "at least 1");
        }
        if limits.bytes_per_second == Some(0) {
            return wrong("mqtt.limits.bytes_per_second", "at least 1");
        }
        let tls = match raw.tls {
            None => None,
            Some(tls) => Some(tls.check(credentials)?),
        };
        let websocket = raw.websocket.map(|web| WebSocket {
            listen: web.listen,
            tls: web.tls,
            allowed_origins: web.allowed_origins,
        });
        if websocket.as_ref().is_some_and(|web| web.tls) && tls.is_none() {
            return wrong("mqtt.websocket.tls", "needs the section [mqtt.tls] for its keys");
        }
        Ok(Self {
            listen: raw.listen,
            max_connections: raw.max_connections,
            tls,
            websocket,
            limits,
        })
    }
}

impl RawTls {
    fn check(self, credentials: Option<&Path>) -> Result<(SocketAddr, TlsSettings), WrongSetting> {
        let file = |set: Option<PathBuf>, credential: &str, key| {
            set.or_else(|| Some(credentials?.join(credential)))
                .ok_or_else(|| WrongSetting {
                    key,
                    message: format!("needed with [mqtt.tls], or a systemd credential {credential}"),
                })
        };
        let required = self.client_certificate == ClientCertificate::Required;
        if required && self.client_ca_file.is_none() {
            return Err(WrongSetting {
                key: "mqtt.tls.client_ca_file",
                message: "needed when client certificates are required".into(),
            });
        }
        let settings = TlsSettings {
            certificate: file(
                self.certificate_file,
                CERTIFICATE_CREDENTIAL,
                "mqtt.tls.certificate_file",
            )?,
            key: file(self.key_file, KEY_CREDENTIAL, "mqtt.tls.key_file")?,
            client_ca: self.client_ca_file,
            client_certificate_required: required,
        };
        Ok((self.listen, settings))
    }
}
