//! What a command run by `stack run` may do to the stack while it runs, as `POST` requests to `STACK_CONTROL_URL`: begin the simulated
//! house, change what its heat pump and plugs do with what they are told, stop and start parts.
//!
//! It listens on 127.0.0.1 only, for as long as the command runs, and is never part of the page's own origin.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use devices::Behaviour;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::{Devices, Stack};

/// A test gives one order and waits for it; a second one may come from another test at the same time.
const ORDERS: usize = 4;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One order.
#[derive(Debug)]
enum Order {
    House { older_days: u32 },
    Pump(Behaviour),
    Plugs(Behaviour),
    Part { name: String, action: Action },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Stop,
    Start,
    Restart,
}

/// `POST /house`: how far back a record every 15 minutes is wanted, before the usual 26 hours.
#[derive(Deserialize)]
struct HouseBody {
    #[serde(default)]
    older_days: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Applies,
    Ignores,
    Offline,
    Other,
}

impl From<Told> for Behaviour {
    fn from(told: Told) -> Behaviour {
        match told {
            Told::Applies => Behaviour::Applies,
            Told::Ignores => Behaviour::Ignores,
            Told::Offline => Behaviour::Offline,
            Told::Other => Behaviour::Other,
        }
    }
}

type Orders = mpsc::Sender<(Order, oneshot::Sender<Result<()>>)>;
type Answer = (StatusCode, String);

/// Serves orders to `stack` until it is dropped.
///
/// # Errors
/// When the listener is broken.
pub async fn serve(listener: TcpListener, stack: &mut Stack) -> Result<()> {
    let (orders, mut wanted) = mpsc::channel(ORDERS);
    let server = axum::serve(listener, router(orders));
    let carry_out = async {
        while let Some((order, answer)) = wanted.recv().await {
            let outcome = carry_out(stack, order).await;
            // Whoever does not wait for the answer any more does not need it.
            let _unheard = answer.send(outcome);
        }
    };
    tokio::select! {
        ended = server => ended.context("the control endpoint ended"),
        () = carry_out => Ok(()),
    }
}

fn router(orders: Orders) -> Router {
    Router::new()
        .route(
            "/house",
            post(
                async |State(orders): State<Orders>, Json(HouseBody { older_days })| {
                    give(orders, Order::House { older_days }).await
                },
            ),
        )
        .route(
            "/pump/{told}",
            post(async |State(orders): State<Orders>, Path(told): Path<Told>| {
                give(orders, Order::Pump(told.into())).await
            }),
        )
        .route(
            "/plugs/{told}",
            post(async |State(orders): State<Orders>, Path(told): Path<Told>| {
                give(orders, Order::Plugs(told.into())).await
            }),
        )
        .route(
            "/parts/{name}/{action}",
            post(
                async |State(orders): State<Orders>, Path((name, action)): Path<(String, Action)>| {
                    give(orders, Order::Part { name, action }).await
                },
            ),
        )
        .with_state(orders)
}

async fn give(orders: Orders, order: Order) -> Answer {
    let (answer, outcome) = oneshot::channel();
    if orders.send((order, answer)).await.is_err() {
        return (StatusCode::GONE, "the stack is stopping".to_owned());
    }
    match outcome.await {
        Ok(Ok(())) => (StatusCode::NO_CONTENT, String::new()),
        Ok(Err(error)) => (StatusCode::CONFLICT, format!("{error:#}")),
        Err(_) => (StatusCode::GONE, "the stack is stopping".to_owned()),
    }
}

async fn carry_out(stack: &mut Stack, order: Order) -> Result<()> {
    match order {
        Order::House { older_days } => {
            let older = DAY * older_days;
            stack
                .begin_house(Devices {
                    older,
                    ..Devices::default()
                })
                .await
        }
        Order::Pump(behaviour) => stack.tell_pump(behaviour),
        Order::Plugs(behaviour) => stack.tell_plugs(behaviour),
        Order::Part { name, action } => {
            let part = stack
                .parts()
                .into_iter()
                .find(|part| part.name() == name)
                .with_context(|| format!("no part is named {name}"))?;
            match action {
                Action::Stop => part.stop().await,
                Action::Start | Action::Restart => {
                    part.restart().await?;
                    return stack.part_ready(&name).await;
                }
            }
            Ok(())
        }
    }
}

impl Stack {
    /// Waits until the part of that name says that it is ready.
    async fn part_ready(&self, name: &str) -> Result<()> {
        if self.oidc().part().name() == name {
            return self.oidc().ready().await;
        }
        if let Some(agent) = self.agents().iter().find(|agent| agent.part().name() == name) {
            return agent.ready().await;
        }
        match self
            .services()
            .into_iter()
            .find(|service| service.part().name() == name)
        {
            Some(service) => service.ready().await,
            None => bail!("no part is named {name}"),
        }
    }
}
