//! An issuer that is down when the services start, and later: processes of their own, beside those of the stack.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::{WITHIN, with_stack};
use stack::issuer::{ALL_SCOPES, AUDIENCE, TestIssuer};
use stack::part::{Part, eventually, get_is_ok};
use stack::{Stack, binaries, port};
use tokio::process::Command;

use crate::ask;

/// A service that trusts one issuer alone.
struct Own {
    part: Part,
    public: SocketAddr,
    admin: SocketAddr,
}

async fn start(stack: &Stack, program: &str, issuer: &TestIssuer) -> Result<Own> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (public, admin) = (port::free()?, port::free()?);
    let (role, database) = match program {
        "homelab-api" => ("api", "telemetry"),
        _ => ("settings", "homelab_settings"),
    };
    let mut command = Command::new(binaries::folder().await?.join(program));
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    command
        .env_clear()
        .env("DATABASE_URL", stack.database_url(role, database))
        .env("KAFKA_BOOTSTRAP", stack.kafka().bootstrap())
        // Beside the stack's own services, so that they keep their partitions.
        .env("KAFKA_GROUP", format!("tokens-{program}-{number}"))
        .env("OIDC_ISSUERS", issuer.url())
        .env("OIDC_AUDIENCES", AUDIENCE)
        .env("LISTEN_ADDRESS", public.to_string())
        .env("METRICS_ADDRESS", admin.to_string());
    Ok(Own {
        part: Part::start(format!("tokens-{program}-{number}"), command).await?,
        public,
        admin,
    })
}

/// What is not ready, as the admin port says it.
async fn not_ready(admin: SocketAddr) -> Result<String> {
    let answer = stack::http::client()?
        .get(format!("http://{admin}/readyz"))
        .send()
        .await?;
    Ok(answer.text().await?)
}

#[test]
fn an_issuer_that_is_down_at_the_start_and_later() -> Result<()> {
    with_stack(async |stack| {
        for (program, path) in [
            ("homelab-api", "/api/v1/user/info"),
            ("homelab-settings-api", "/api/v1/plugs"),
        ] {
            let mut issuer = TestIssuer::stopped().await?;
            let own = start(stack, program, &issuer).await?;
            eventually(&format!("{program} to live"), WITHIN, async || {
                Ok(get_is_ok(own.admin, "/livez").await.then_some(()))
            })
            .await?;
            let url = format!("http://{}{path}", own.public);
            let token = issuer.good(ALL_SCOPES);
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];

            // Down at the start: not ready and says why, alive, and nobody is taken for somebody meanwhile.
            let (status, _, body) = ask(&url, &headers).await?;
            ensure!(status == 503, "{program} without keys: {status} {body}");
            let said = not_ready(own.admin).await?;
            ensure!(said.contains("issuer"), "{program} is not ready: {said}");

            issuer.restart().await?;
            eventually(&format!("{program} to find the issuer"), WITHIN, async || {
                Ok((ask(&url, &headers).await?.0 == 200).then_some(()))
            })
            .await?;

            // A consumer joins its group in its own time.
            own.part.ready_http(WITHIN, own.admin, "/readyz").await?;

            // Down later: the keys are kept, and a key nobody knows is refused and not waited for.
            issuer.stop().await;
            let (status, _, body) = ask(&url, &headers).await?;
            ensure!(
                status == 200,
                "{program} while the issuer is away: {status} {body}"
            );
            issuer.rotate();
            let unknown = format!("Bearer {}", issuer.good(ALL_SCOPES));
            let (status, _, body) = ask(&url, &[("authorization", &unknown)]).await?;
            ensure!(
                status == 401,
                "{program}, a new key while the issuer is away: {status} {body}"
            );
            let said = not_ready(own.admin).await?;
            ensure!(
                !said.contains("issuer"),
                "an issuer that is away later takes no service out: {said}"
            );

            // Back, with its new keys: they are found within the pace of fetches, and the old ones end.
            issuer.restart().await?;
            eventually(&format!("{program} to take the new key"), WITHIN, async || {
                Ok((ask(&url, &[("authorization", &unknown)]).await?.0 == 200).then_some(()))
            })
            .await?;
            let (status, _, _) = ask(&url, &headers).await?;
            ensure!(
                status == 401,
                "{program}, the old key after the rotation: {status}"
            );
            own.part.stop().await;
            issuer.stop().await;
        }
        Ok(())
    })
    .context("processes beside the stack's own")
}
