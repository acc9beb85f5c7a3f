// MQTT.js against a running edge-agent.
//
// usage: mqttjs_client.js all|begin|end PORT [TLS_PORT WEBSOCKET_PORT CA_FILE]
//
// `all` tries what people use of MQTT 3.1.1 and 5; `begin` leaves a session behind with messages waiting, `end` expects both after
// the agent was killed in between. Ends with 0, or with what was not as it should be. It never waits without a limit.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

// A busy machine needs seconds for what takes milliseconds.
const WITHIN = 30_000;
// How long nothing more may come.
const SILENCE = 500;
const VERSIONS = [4, 5];

const [what, port, tlsPort, webPort, caFile] = process.argv.slice(2);

function within(promise, name) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: nothing within ${WITHIN} ms`)), WITHIN);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, name) {
  const begin = Date.now();
  while (!condition()) {
    if (Date.now() - begin > WITHIN) throw new Error(`${name}: not within ${WITHIN} ms`);
    await sleep(10);
  }
}

/** A client that collects what comes from its first moment on. */
async function connect(version, clientId, { url = `mqtt://127.0.0.1:${port}`, keep = false, ...more } = {}) {
  const client = mqtt.connect(url, {
    protocolVersion: version,
    clientId,
    clean: !keep,
    reconnectPeriod: 0,
    keepalive: 30,
    connectTimeout: WITHIN,
    ...(version === 5 && keep ? { properties: { sessionExpiryInterval: 1000 } } : {}),
    ...more,
  });
  client.texts = [];
  client.packets = [];
  client.on("message", (topic, payload, packet) => {
    client.texts.push(payload.toString());
    client.packets.push(packet);
  });
  const connack = await within(
    new Promise((resolve, reject) => {
      client.once("connect", resolve);
      client.once("error", reject);
      client.once("close", () => reject(new Error(`${clientId}: closed before CONNACK`)));
    }),
    `${clientId}: CONNACK`,
  );
  client.sessionPresent = connack.sessionPresent;
  return client;
}

/** As many messages as wanted, and no more. */
async function texts(client, count, name) {
  await until(() => client.texts.length >= count, name);
  await sleep(SILENCE);
  const got = client.texts.splice(0);
  assert.equal(got.length, count, `${name}: ${got}`);
  return got.sort();
}

const subscribe = async (client, topic, qos) => {
  const granted = await within(client.subscribeAsync(topic, { qos }), `SUBACK for ${topic}`);
  assert.equal(granted[0].qos, qos);
};
const publish = (client, topic, text, options) =>
  within(client.publishAsync(topic, text, options), `${text} on ${topic}`);

async function three(client, topic, name) {
  await subscribe(client, topic, 2);
  for (const qos of [0, 1, 2]) await publish(client, topic, `qos ${qos}`, { qos });
  assert.deepEqual(await texts(client, 3, name), ["qos 0", "qos 1", "qos 2"], name);
  assert.deepEqual(client.packets.splice(0).map((packet) => packet.qos).sort(), [0, 1, 2], name);
}

async function everything(version) {
  const base = `mqttjs/${version}`;
  const client = await connect(version, `mqttjs-${version}`);
  await three(client, `${base}/basic`, `${version}: publish and subscribe`);
  // A device's topic: the acknowledgement means that it is on disk.
  await publish(client, "mqttjs-device/events/rpc", "{}", { qos: 1 });
  await publish(client, "mqttjs-device/events/rpc", "[]", { qos: 2 });

  await publish(client, `${base}/kept`, "kept", { qos: 1, retain: true });
  const late = await connect(version, `mqttjs-late-${version}`);
  await subscribe(late, `${base}/kept`, 1);
  assert.deepEqual(await texts(late, 1, `${version}: retained`), ["kept"]);
  assert.equal(late.packets[0].retain, true);
  await publish(client, `${base}/kept`, "", { qos: 1, retain: true });
  await late.endAsync();

  await subscribe(client, `${base}/gone`, 1);
  const dying = await connect(version, `mqttjs-dying-${version}`, {
    will: { topic: `${base}/gone`, payload: Buffer.from("bye"), qos: 1, retain: false },
  });
  dying.stream.destroy();
  assert.deepEqual(await texts(client, 1, `${version}: will`), ["bye"]);

  const members = [];
  for (const n of [0, 1]) {
    const member = await connect(version, `mqttjs-member-${version}-${n}`);
    await subscribe(member, `$share/group/${base}/shared`, 1);
    members.push(member);
  }
  const want = [...Array(10).keys()].map(String);
  for (const text of want) await publish(client, `${base}/shared`, text, { qos: 1 });
  const got = () => members.flatMap((member) => member.texts).sort();
  await until(() => got().length >= want.length, `${version}: shared`);
  await sleep(SILENCE);
  assert.deepEqual(got(), want, `${version}: shared, each once`);
  for (const member of members) await member.endAsync();
  await client.endAsync();

  const secret = await connect(version, `mqttjs-tls-${version}`, {
    url: `mqtts://127.0.0.1:${tlsPort}`,
    ca: readFileSync(caFile),
  });
  await three(secret, `${base}/tls`, `${version}: TLS`);
  await secret.endAsync();
  const web = await connect(version, `mqttjs-web-${version}`, { url: `ws://127.0.0.1:${webPort}/mqtt` });
  await three(web, `${base}/web`, `${version}: WebSocket`);
  await web.endAsync();
}

async function begin(version) {
  const kept = await connect(version, `mqttjs-kept-${version}`, { keep: true });
  assert.equal(kept.sessionPresent, false, `${version}: a session nobody made`);
  await subscribe(kept, `mqttjs/${version}/wait`, 2);
  await kept.endAsync();
  const other = await connect(version, `mqttjs-other-${version}`);
  for (const qos of [1, 2]) await publish(other, `mqttjs/${version}/wait`, `qos ${qos}`, { qos });
  await other.endAsync();
}

async function end(version) {
  const kept = await connect(version, `mqttjs-kept-${version}`, { keep: true });
  assert.equal(kept.sessionPresent, true, `${version}: the session after the kill`);
  const name = `${version}: what waited over the kill`;
  assert.deepEqual(await texts(kept, 2, name), ["qos 1", "qos 2"], name);
  await kept.endAsync();
}

for (const version of VERSIONS) await { all: everything, begin, end }[what](version);
