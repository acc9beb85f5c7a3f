/** What the stack tells a command it runs, a device's way into it, and what a test may do to it. */
import { connectAsync } from 'mqtt';

export interface Person {
  readonly name: string;
  readonly password: string;
}

export const stack = {
  webUrl: variable('STACK_WEB_URL'),
  mqttHost: variable('STACK_MQTT_HOST'),
  mqttPort: Number(variable('STACK_MQTT_PORT')),
  issuerUrl: variable('STACK_ISSUER_URL'),
  controlUrl: variable('STACK_CONTROL_URL'),
  demo: { name: variable('STACK_DEMO_USER'), password: variable('STACK_DEMO_PASSWORD') },
  /** May see energy and temperatures only. */
  guest: { name: 'guest', password: 'guest' },
  /** May do everything, with access tokens that end after 20 seconds. */
  brief: { name: 'brief', password: 'brief' },
  /** Device ids of the simulated house. */
  meter: variable('STACK_METER'),
  pump: variable('STACK_PUMP'),
  plugs: variable('STACK_PLUGS').split(','),
} as const;

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set: run these tests through the stack, stack run -- npm test`);
  return value;
}

/** Publishes as a device does, and waits for the acknowledgement: the house has it then. */
export async function publish(clientId: string, topic: string, frame: object): Promise<void> {
  const client = await connectAsync({ host: stack.mqttHost, port: stack.mqttPort, clientId, reconnectPeriod: 0, connectTimeout: 10_000 });
  try {
    await client.publishAsync(topic, JSON.stringify(frame), { qos: 1 });
  } finally {
    await client.endAsync();
  }
}

export type Behaviour = 'applies' | 'ignores' | 'other' | 'offline';
export type Part = 'homelab-api' | 'homelab-settings-api' | 'energy-ws' | 'redpanda-sink' | 'edge-agent-p0' | 'oidc';

/** An order to the stack (tests/stack/src/control.rs), done when this returns. */
async function order(path: string, body?: object): Promise<void> {
  const answer = await fetch(`${stack.controlUrl}${path}`, {
    method: 'POST',
    ...(body !== undefined && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
}

/** Begins the simulated house: a day of history, and before that so many days of a thinner one. */
export const beginHouse = (olderDays: number): Promise<void> => order('/house', { older_days: olderDays });
export const tellPump = (behaviour: Behaviour): Promise<void> => order(`/pump/${behaviour}`);
export const tellPlugs = (behaviour: Behaviour): Promise<void> => order(`/plugs/${behaviour}`);
export const stopPart = (part: Part): Promise<void> => order(`/parts/${part}/stop`);
export const startPart = (part: Part): Promise<void> => order(`/parts/${part}/start`);
