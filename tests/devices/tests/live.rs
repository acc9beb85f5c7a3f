//! All devices of a house against the agent's own broker and decoders: every one is heard, and those that take
//! commands obey as they are told to.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use devices::{Behaviour, House, Inventory, Options, Pace};
use edge_agent::broker::{
    Access, AddressLimits, Anonymous, Broker, Captured, CapturedPayload, Door, Settings,
};
use edge_agent::clock::{Clock, SegmentId};
use edge_agent::decode::{Decoded, Decoders, Route};
use telemetry::{Heatpump, Plug, Reading};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// No condition of this test takes a second; this is for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

const WRITE: &str = "thermiq_heatpump/write";

struct Running {
    broker: Arc<Broker>,
    readings: mpsc::UnboundedReceiver<(String, Reading)>,
    pump: watch::Sender<Behaviour>,
    plugs: watch::Sender<Behaviour>,
    inventory: Inventory,
    stop: CancellationToken,
    devices: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start() -> anyhow::Result<Running> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let decoders = Arc::new(Decoders::new(&Route::defaults(), &[])?);
    let captures = decoders.clone();
    let settings = Settings {
        access: Access::new(Anonymous::Loopback),
        captures: Box::new(move |topic| captures.captures(topic)),
        max_connections: 100,
        address_limits: AddressLimits::default(),
        store: None,
        alive: Box::new(|| {}),
    };
    let (broker, captured) = Broker::new(settings, Arc::new(Clock::new(SegmentId(0))));
    let stop = CancellationToken::new();
    tokio::spawn(broker.clone().serve(vec![(listener, Door::Plain)], stop.clone()));
    let (sender, readings) = mpsc::unbounded_channel();
    tokio::spawn(decode(captured, decoders, sender));

    let house = Arc::new(House::new(11));
    let (pump, of_the_pump) = watch::channel(Behaviour::Applies);
    let (plugs, of_the_plugs) = watch::channel(Behaviour::Applies);
    let pace = Pace {
        meter: Duration::from_millis(100),
        pump: Duration::from_millis(100),
        room: Duration::from_millis(400),
        plug: Duration::from_millis(200),
    };
    let options = Options {
        pace,
        pump: of_the_pump,
        plugs: of_the_plugs,
        ..Options::new(address, house.clone())
    };
    let devices = tokio::spawn(devices::run(options, stop.child_token()));
    Ok(Running {
        broker,
        readings,
        pump,
        plugs,
        inventory: Inventory::of(&house),
        stop,
        devices,
    })
}

/// Stands for the disk: acknowledges, decodes, hands on.
async fn decode(
    mut captured: mpsc::Receiver<Captured>,
    decoders: Arc<Decoders>,
    readings: mpsc::UnboundedSender<(String, Reading)>,
) {
    while let Some(Captured {
        topic, payload, done, ..
    }) = captured.recv().await
    {
        let CapturedPayload::Whole(payload) = payload else {
            panic!("{topic}: a device sent too much")
        };
        match decoders.decode(&topic, &payload) {
            Ok(Decoded::Readings(all)) => {
                for one in all {
                    // The test may have heard enough.
                    let _ = readings.send((one.device_id.to_string(), one.reading));
                }
            }
            other => panic!("{topic} {}: {other:?}", String::from_utf8_lossy(&payload)),
        }
        if let Some(done) = done {
            let _ = done.send(Ok(()));
        }
    }
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

impl Running {
    /// Waits for a reading of a device that `wanted` accepts.
    async fn reading(&mut self, what: &str, device: &str, wanted: impl Fn(&Reading) -> bool) {
        within(what, async {
            loop {
                let (id, reading) = self.readings.recv().await.expect("the decoder runs");
                if id == device && wanted(&reading) {
                    return;
                }
            }
        })
        .await;
    }

    /// Publishes as the agent does, once somebody listens.
    async fn command(&self, topic: &str, payload: &str) {
        within(topic, async {
            while self
                .broker
                .publish_now(topic, Bytes::copy_from_slice(payload.as_bytes()))
                == 0
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until the pump reports a wanted temperature.
    async fn target(&mut self, celsius: i64) {
        let pump = self.inventory.pump.clone();
        self.reading(&format!("target {celsius}"), &pump, |reading| {
            target_of(reading) == Some(celsius)
        })
        .await;
    }
}

fn target_of(reading: &Reading) -> Option<i64> {
    let Reading::Heatpump(pump) = reading else {
        return None;
    };
    let Heatpump { settings, .. } = pump.as_ref();
    settings.as_ref()?.indoor_target_c
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_is_heard_and_commands_are_obeyed() {
    let mut house = start().await.unwrap();
    let mut missing: Vec<String> = house
        .inventory
        .locations()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    missing.retain(|id| *id != house.inventory.pro3em);
    assert_eq!(missing.len(), 8);
    within("every device", async {
        while !missing.is_empty() {
            let (id, _) = house.readings.recv().await.expect("the decoder runs");
            missing.retain(|missing| *missing != id);
        }
    })
    .await;

    house.target(21).await;
    house.command(WRITE, r#"{"d50":23}"#).await;
    house.target(23).await;

    house.pump.send_replace(Behaviour::Other);
    house.command(WRITE, r#"{"d50":19}"#).await;
    house.target(20).await;

    house
        .pump
        .send_replace(Behaviour::Late(Duration::from_millis(500)));
    house.command(WRITE, r#"{"d50":25}"#).await;
    house.target(20).await;
    house.target(25).await;

    // What is ignored, and what is outside the pump's limits, never shows, though a later write does.
    house.pump.send_replace(Behaviour::Ignores);
    house.command(WRITE, r#"{"d50":17}"#).await;
    while house.readings.try_recv().is_ok() {}
    for _ in 0..10 {
        house.target(25).await;
    }
    house.pump.send_replace(Behaviour::Applies);
    house.command(WRITE, r#"{"d50":99}"#).await;
    house.command(WRITE, r#"{"d52":40}"#).await;
    let pump = house.inventory.pump.clone();
    house
        .reading("curve 40", &pump, |reading| match reading {
            Reading::Heatpump(pump) => {
                assert_eq!(target_of(reading), Some(25));
                pump.settings.as_ref().and_then(|settings| settings.curve) == Some(40)
            }
            _ => false,
        })
        .await;

    // Offline nobody listens; back online it still has its settings.
    house.pump.send_replace(Behaviour::Offline);
    within("the pump is offline", async {
        while house.broker.publish_now(WRITE, Bytes::from_static(b"{}")) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    while house.readings.try_recv().is_ok() {}
    house.pump.send_replace(Behaviour::Applies);
    house.target(25).await;

    let tasmota = house.inventory.tasmota.clone();
    house.command(&format!("cmnd/{tasmota}/POWER"), "OFF").await;
    let is_off = |reading: &Reading| matches!(reading, Reading::Plug(Plug { on: Some(false), .. }));
    house.reading("the Tasmota plug is off", &tasmota, is_off).await;
    let draws_nothing = |reading: &Reading| {
        matches!(
            reading,
            Reading::Plug(Plug {
                power_w: Some(0.0),
                ..
            })
        )
    };
    house
        .reading("the television draws nothing", &tasmota, draws_nothing)
        .await;

    let shelly = house.inventory.shelly_plug.clone();
    let set = r#"{"id":1,"src":"edge-agent","method":"Switch.Set","params":{"id":0,"on":false}}"#;
    house.command(&format!("{shelly}/rpc"), set).await;
    house.reading("the Shelly plug is off", &shelly, is_off).await;

    // Both plugs do as their behaviour says: nothing, the opposite, later; and away they hear nothing.
    let is_on = |reading: &Reading| matches!(reading, Reading::Plug(Plug { on: Some(true), .. }));
    let set_on = set.replace("false", "true");
    // A Shelly tells its state when it changes, and when it is asked.
    let ask = r#"{"id":2,"src":"homelab/p0","method":"Switch.GetStatus","params":{"id":0}}"#;
    for (plug, topic, on) in [
        (&tasmota, format!("cmnd/{tasmota}/POWER"), "ON"),
        (&shelly, format!("{shelly}/rpc"), set_on.as_str()),
    ] {
        let is_asked = *plug == shelly;
        house.plugs.send_replace(Behaviour::Ignores);
        house.command(&topic, on).await;
        while house.readings.try_recv().is_ok() {}
        for _ in 0..5 {
            if is_asked {
                house.command(&topic, ask).await;
            }
            house.reading("ignored", plug, is_off).await;
        }
        house.plugs.send_replace(Behaviour::Other);
        house.command(&topic, on).await;
        if is_asked {
            house.command(&topic, ask).await;
        }
        house.reading("the opposite", plug, is_off).await;
        house
            .plugs
            .send_replace(Behaviour::Late(Duration::from_millis(300)));
        house.command(&topic, on).await;
        house.reading("on at last", plug, is_on).await;
        house.plugs.send_replace(Behaviour::Offline);
        within("the plug is away", async {
            while house.broker.publish_now(&topic, Bytes::from_static(b"")) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        while house.readings.try_recv().is_ok() {}
        house.plugs.send_replace(Behaviour::Applies);
        house.reading("back as it was", plug, is_on).await;
    }

    house.stop.cancel();
    within("the devices stop", house.devices).await.unwrap().unwrap();
}
