/** What the stack tells a command it runs, and a device's way into it. */
import { connectAsync } from 'mqtt';

export interface Stack {
  readonly webUrl: string;
  readonly mqttHost: string;
  readonly mqttPort: number;
  readonly user: string;
  readonly password: string;
}

export const stack: Stack = {
  webUrl: variable('STACK_WEB_URL'),
  mqttHost: variable('STACK_MQTT_HOST'),
  mqttPort: Number(variable('STACK_MQTT_PORT')),
  user: variable('STACK_DEMO_USER'),
  password: variable('STACK_DEMO_PASSWORD'),
};

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
