//! Kafka as agents meet Redpanda in production: a listener with TLS and SCRAM of its own, users, and the access lists that
//! `gitops/` gives them.
//!
//! The plain listener stays, for the tests themselves: whoever comes through it may do everything.

use std::ffi::CString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;

use crate::kafka::Kafka;
use crate::port;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN_MS: i32 = 30_000;
/// What Kafka itself takes for a new user.
const ITERATIONS: i32 = 4_096;

/// How a password is shown to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// A broker with a second, guarded listener.
#[derive(Debug)]
pub struct Secured {
    /// The broker.
    pub kafka: Kafka,
    /// The guarded listener.
    pub listener: SocketAddr,
    /// The authority that signed the broker's certificate, PEM.
    pub ca_file: PathBuf,
}

impl Secured {
    /// Starts Kafka with the listener and the project's topics, without users.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(folder: &Path) -> Result<Secured> {
        let kafka = Kafka::start(folder).await?;
        let part = kafka.part().context("this Kafka is ours")?;
        let ca_file = folder.join("ca.pem");
        let identity = folder.join("broker.pem");
        write_certificates(&ca_file, &identity)?;
        let listener = port::free()?;
        let file = folder.join("server.properties");
        let mut text = std::fs::read_to_string(&file)?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
                .with_context(|| format!("Kafka's settings have no {key}"))
        };
        // The last line of a key counts.
        let more = format!(
            "listeners={},AGENTS://{listener}
advertised.listeners={},AGENTS://{listener}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,AGENTS:SASL_SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.agents.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.agents.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.agents.ssl.keystore.type=PEM
listener.name.agents.ssl.keystore.location={identity}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
",
            value("listeners")?,
            value("advertised.listeners")?,
            identity = identity.display(),
        );
        text.push_str(&more);
        std::fs::write(&file, text)?;
        part.restart().await?;
        part.ready(READY_WITHIN, async || {
            kafka.create_topics(&telemetry::topic::ALL).await.is_ok()
        })
        .await?;
        Ok(Secured {
            kafka,
            listener,
            ca_file,
        })
    }

    /// Makes a user, or gives one another password. Blocks.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn set_password(&self, user: &str, password: &str, mechanism: Mechanism) -> Result<()> {
        let user = CString::new(user)?;
        let mechanism = match mechanism {
            Mechanism::ScramSha256 => native::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_256,
            Mechanism::ScramSha512 => native::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512,
        };
        let admin = self.admin()?;
        #[expect(unsafe_code, reason = "rdkafka does not wrap this call of librdkafka")]
        // SAFETY: every pointer is checked or librdkafka's own, lives until it is destroyed below, and librdkafka copies
        // user and password.
        unsafe {
            let alteration = native::rd_kafka_UserScramCredentialUpsertion_new(
                user.as_ptr(),
                mechanism,
                ITERATIONS,
                password.as_ptr(),
                password.len(),
                std::ptr::null(),
                0,
            );
            ensure!(!alteration.is_null(), "librdkafka takes no such user");
            let mut alterations = [alteration];
            let event = ask(&admin, |client, queue| {
                native::rd_kafka_AlterUserScramCredentials(
                    client,
                    alterations.as_mut_ptr(),
                    1,
                    std::ptr::null(),
                    queue,
                );
            });
            native::rd_kafka_UserScramCredentialAlteration_destroy(alteration);
            let event = event?;
            let result = native::rd_kafka_event_AlterUserScramCredentials_result(event.0);
            let mut count = 0;
            let answers = native::rd_kafka_AlterUserScramCredentials_result_responses(result, &mut count);
            for n in 0..count {
                let error = native::rd_kafka_AlterUserScramCredentials_result_response_error(*answers.add(n));
                no_error(error)?;
            }
        }
        Ok(())
    }

    /// Gives a principal what `gitops/apps/base/redpanda/access.txt` gives it, and no more. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read or the broker refuses.
    pub fn grant_as_in_production(&self, principal: &str) -> Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gitops/apps/base/redpanda/access.txt");
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut granted = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let [who, resource, name, operations] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                anyhow::bail!("{}: {line}", file.display());
            };
            if who != principal {
                continue;
            }
            for operation in operations.split(',') {
                self.grant(principal, resource, name, operation)
                    .with_context(|| line.to_owned())?;
                granted += 1;
            }
        }
        ensure!(granted > 0, "{} has no line for {principal}", file.display());
        Ok(())
    }

    fn grant(&self, principal: &str, resource: &str, name: &str, operation: &str) -> Result<()> {
        use native::rd_kafka_AclOperation_t as Operation;
        use native::rd_kafka_ResourceType_t as Resource;
        let (resource, name) = match resource {
            "topic" => (Resource::RD_KAFKA_RESOURCE_TOPIC, name),
            "group" => (Resource::RD_KAFKA_RESOURCE_GROUP, name),
            "cluster" => (Resource::RD_KAFKA_RESOURCE_BROKER, "kafka-cluster"),
            other => anyhow::bail!("no such resource: {other}"),
        };
        let operation = match operation {
            "read" => Operation::RD_KAFKA_ACL_OPERATION_READ,
            "write" => Operation::RD_KAFKA_ACL_OPERATION_WRITE,
            "describe" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
            "idempotent_write" => Operation::RD_KAFKA_ACL_OPERATION_IDEMPOTENT_WRITE,
            other => anyhow::bail!("no such operation: {other}"),
        };
        let (name, principal) = (CString::new(name)?, CString::new(format!("User:{principal}"))?);
        let admin = self.admin()?;
        let mut why = [0; 256];
        #[expect(unsafe_code, reason = "rdkafka does not wrap this call of librdkafka")]
        // SAFETY: as above.
        unsafe {
            let binding = native::rd_kafka_AclBinding_new(
                resource,
                name.as_ptr(),
                native::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                principal.as_ptr(),
                c"*".as_ptr(),
                operation,
                native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                why.as_mut_ptr(),
                why.len(),
            );
            ensure!(!binding.is_null(), "librdkafka takes no such access list");
            let mut bindings = [binding];
            let event = ask(&admin, |client, queue| {
                native::rd_kafka_CreateAcls(client, bindings.as_mut_ptr(), 1, std::ptr::null(), queue);
            });
            native::rd_kafka_AclBinding_destroy(binding);
            let event = event?;
            let result = native::rd_kafka_event_CreateAcls_result(event.0);
            let mut count = 0;
            let answers = native::rd_kafka_CreateAcls_result_acls(result, &mut count);
            for n in 0..count {
                no_error(native::rd_kafka_acl_result_error(*answers.add(n)))?;
            }
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        ClientConfig::new()
            .set("bootstrap.servers", self.kafka.bootstrap())
            .create()
            .context("cannot make a Kafka client")
    }
}

/// An answer of librdkafka.
struct Event(*mut native::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "rdkafka does not wrap this call of librdkafka")]
        // SAFETY: the event is ours and destroyed once.
        unsafe {
            native::rd_kafka_event_destroy(self.0);
        }
    }
}

/// Sends a request and waits for its answer.
fn ask(
    admin: &AdminClient<DefaultClientContext>,
    send: impl FnOnce(*mut native::rd_kafka_t, *mut native::rd_kafka_queue_t),
) -> Result<Event> {
    let client = admin.inner().native_ptr();
    #[expect(unsafe_code, reason = "rdkafka does not wrap this call of librdkafka")]
    // SAFETY: the client outlives the call, the queue is ours and destroyed once.
    let event = unsafe {
        let queue = native::rd_kafka_queue_new(client);
        send(client, queue);
        let event = native::rd_kafka_queue_poll(queue, ANSWER_WITHIN_MS);
        native::rd_kafka_queue_destroy(queue);
        event
    };
    ensure!(!event.is_null(), "the broker does not answer");
    let event = Event(event);
    #[expect(unsafe_code, reason = "rdkafka does not wrap this call of librdkafka")]
    // SAFETY: the event lives.
    let code = unsafe { native::rd_kafka_event_error(event.0) };
    ensure!(
        code == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        "the broker refuses: {code:?}"
    );
    Ok(event)
}

fn no_error(error: *const native::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "rdkafka does not wrap this call of librdkafka")]
    // SAFETY: the error lives as long as the event it came with, which the caller holds.
    let code = unsafe { native::rd_kafka_error_code(error) };
    ensure!(
        code == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        "the broker refuses: {code:?}"
    );
    Ok(())
}

/// An authority, and a certificate of it for 127.0.0.1 with its key in one file, as Kafka reads them.
fn write_certificates(ca_file: &Path, identity: &Path) -> Result<()> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::new(Vec::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "homelab test authority");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let key = rcgen::KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate =
        rcgen::CertificateParams::new(names)?.signed_by(&key, &rcgen::Issuer::new(ca, ca_key))?;
    std::fs::write(ca_file, ca_certificate.pem())?;
    std::fs::write(identity, format!("{}{}", key.serialize_pem(), certificate.pem()))?;
    Ok(())
}
