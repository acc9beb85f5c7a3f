//! The other doors: TLS, certificates of clients, WebSocket; and what one address may take.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest as _};

use super::{
    agent::{Agent, DEADLINE},
    client::Client,
    wire::{self, Connect, Message, Packet, Version},
};

/// An authority and what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("it signs itself"))
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, PEM.
    pub fn sign(&self, name: &str) -> (String, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("it is signed");
        (certificate.pem(), key)
    }
}

pub fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file is written");
    path.to_str().expect("a plain path").to_owned()
}

async fn connect_tls(
    agent: &Agent,
    server: &Authority,
    own: Option<(&str, &KeyPair)>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(server.0.der().clone()).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((pem, key)) => {
            use rustls::pki_types::pem::PemObject as _;
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    let stream = TcpStream::connect(agent.tls.expect("there is such a port")).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// CONNACK's code; `None` when the connection ends without.
async fn greet(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    id: &str,
) -> Option<u8> {
    stream
        .write_all(&Connect::new(Version::V3, id).write())
        .await
        .ok()?;
    let mut answer = [0; 4];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await;
    read.expect("an answer in time").ok()?;
    Some(answer[3])
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_certificate_for_a_user_and_keys_that_are_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (authority, stranger) = (Authority::new("house"), Authority::new("stranger"));
    let (certificate, key) = authority.sign("localhost");
    let certificate_file = write(folder.path(), "server.pem", &certificate);
    let key_file = write(folder.path(), "server.key", &key.serialize_pem());
    let ca_file = write(folder.path(), "ca.pem", &authority.0.pem());
    let users = write(folder.path(), "users.toml", "[[users]]\nname = \"p1.lan\"\n");
    let agent = Agent::start_with(&format!(
        "anonymous = \"never\"\nusers_file = {users:?}\n[mqtt.tls]\nlisten = \"127.0.0.1:0\"\n\
         certificate_file = {certificate_file:?}\nkey_file = {key_file:?}\nclient_ca_file = {ca_file:?}"
    ))
    .await;
    let (own, own_key) = authority.sign("p1.lan");
    let mut stream = connect_tls(&agent, &authority, Some((&own, &own_key)))
        .await
        .expect("TLS");
    assert_eq!(
        greet(&mut stream, "bridge").await,
        Some(0),
        "the certificate is the login"
    );
    let mut stream = connect_tls(&agent, &authority, None).await.expect("TLS");
    assert_eq!(
        greet(&mut stream, "nobody").await,
        Some(5),
        "none is let in without"
    );
    let (foreign, foreign_key) = stranger.sign("p1.lan");
    let refused = match connect_tls(&agent, &authority, Some((&foreign, &foreign_key))).await {
        Ok(mut stream) => greet(&mut stream, "foreign").await,
        Err(_) => None,
    };
    assert_eq!(
        refused, None,
        "one that a stranger signed does not get as far as MQTT"
    );
    // A broken file changes nothing; a sound one is in force for the next connection.
    std::fs::write(&certificate_file, "no certificate").expect("a file is written");
    agent.reload.notify_one();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut stream = connect_tls(&agent, &authority, Some((&own, &own_key)))
        .await
        .expect("TLS");
    assert_eq!(greet(&mut stream, "bridge").await, Some(0));
    let (certificate, key) = stranger.sign("localhost");
    std::fs::write(&certificate_file, certificate).expect("a file is written");
    std::fs::write(&key_file, key.serialize_pem()).expect("a file is written");
    agent.reload.notify_one();
    let until = tokio::time::Instant::now() + DEADLINE;
    while connect_tls(&agent, &stranger, None).await.is_err() {
        assert!(
            tokio::time::Instant::now() < until,
            "the new certificate is not in force"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_over_websocket() {
    let agent = Agent::start_with("[mqtt.websocket]\nlisten = \"127.0.0.1:0\"").await;
    let address = agent.websocket.expect("there is such a port");
    let open = async |protocol: &'static str, origin: Option<&'static str>| {
        let mut request = format!("ws://{address}/mqtt")
            .into_client_request()
            .expect("a request");
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().expect("a header"));
        }
        let stream = TcpStream::connect(address).await.expect("a connection");
        tokio_tungstenite::client_async(request, stream).await
    };
    let (mut socket, response) = open("mqtt", Some("http://127.0.0.1:8080"))
        .await
        .expect("WebSocket");
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    // Packets cut and joined as a client likes.
    let mut bytes = Connect::new(Version::V5, "web").write();
    bytes.extend(wire::subscribe(
        Version::V5,
        1,
        &wire::Props::default(),
        &[("a", 1)],
    ));
    bytes.extend(
        Message::new("a", "x".repeat(100_000), 1)
            .pkid(2)
            .write(Version::V5),
    );
    for part in bytes.chunks(30_000) {
        socket
            .send(tungstenite::Message::binary(part.to_vec()))
            .await
            .expect("it is taken");
    }
    let mut inbox = bytes::BytesMut::new();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match wire::read(Version::V5, &mut inbox) {
            Some(packet) => seen.push(packet),
            None => {
                let next = tokio::time::timeout(DEADLINE, socket.next())
                    .await
                    .expect("in time");
                inbox.extend_from_slice(&next.expect("it goes on").expect("it is sound").into_data());
            }
        }
    }
    // A client may put a packet into one message, so it is told how large that may be.
    match &seen[0] {
        Packet::ConnAck { code: 0, props, .. } => {
            assert_eq!(props.get_number(wire::prop::MAX_PACKET), Some(512 * 1024));
        }
        other => panic!("{other:?}"),
    }
    let message = seen.iter().find_map(|packet| match packet {
        Packet::Publish(message) => Some(message.payload.len()),
        _ => None,
    });
    assert_eq!(message, Some(100_000));
    let larger = Message::new("a", "x".repeat(600_000), 1)
        .pkid(3)
        .write(Version::V5);
    socket
        .send(tungstenite::Message::binary(larger))
        .await
        .expect("it is sent");
    let words = loop {
        if let Some(packet) = wire::read(Version::V5, &mut inbox) {
            if matches!(packet, Packet::Disconnect(_)) {
                break packet;
            }
            continue;
        }
        let next = tokio::time::timeout(DEADLINE, socket.next())
            .await
            .expect("in time");
        inbox.extend_from_slice(&next.expect("it goes on").expect("it is sound").into_data());
    };
    assert!(matches!(words, Packet::Disconnect(0x95)), "{words:?}");
    let (mut socket, _) = open("mqtt", None).await.expect("WebSocket");
    // Text is no MQTT, another subprotocol neither, and a page from elsewhere is not let in.
    socket
        .send(tungstenite::Message::text("hello"))
        .await
        .expect("it is taken");
    while let Some(Ok(_)) = tokio::time::timeout(DEADLINE, socket.next())
        .await
        .expect("in time")
    {}
    assert!(open("chat", None).await.is_err());
    assert!(open("mqtt", Some("https://elsewhere.example")).await.is_err());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_limits() {
    let agent =
        Agent::start_with("[mqtt.limits]\nconnections_per_address = 2\nmessages_per_second = 20").await;
    let mut first = Client::connect(agent.mqtt, Version::V3, "first").await;
    let second = Client::connect(agent.mqtt, Version::V3, "second").await;
    let mut third = Client::open(agent.mqtt, Version::V3).await;
    assert_eq!(third.recv().await, None, "one too many");
    second.disconnect().await;
    agent
        .until("the second has left", |s| s["mqtt"]["connected"] == 1)
        .await;
    let begun = std::time::Instant::now();
    for n in 0..60 {
        first.publish(Message::new("a", n.to_string(), 1)).await;
    }
    // 40 at once, then 20 a second.
    assert!(
        begun.elapsed() > Duration::from_millis(800),
        "{:?}",
        begun.elapsed()
    );
    agent
        .until("it was counted", |s| s["mqtt"]["throttled"].as_u64() > Some(0))
        .await;
    agent.stop().await;
}
