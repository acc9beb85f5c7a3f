/**
 * The messages of energy-ws (docs/API.md), parsed from text that may hold anything. Never throws: what is not understood is null, so that
 * a newer server does not break an older page.
 */
import { isObject, type JsonObject, stringOf } from '../json';

export const STREAMS = ['energy', 'temperature', 'heatpump', 'plug', 'events'] as const;

export type Stream = (typeof STREAMS)[number];

/** One reading or event as it came in. Fields of `reading` are checked where they are used; an event's are all there, its `type` among them. */
export interface LiveRecord {
  readonly stream: Stream;
  readonly id: string;
  /** When the agent received it, milliseconds since the epoch. */
  readonly time: number;
  /** Empty for an event of no device. */
  readonly deviceId: string;
  readonly agent: string;
  readonly clock: string;
  readonly location: string | null;
  readonly reading: JsonObject;
}

export type ServerMessage =
  | { readonly type: 'authenticated' }
  | { readonly type: 'subscribed'; readonly cursor: string | null }
  | { readonly type: 'data'; readonly cursor: string | null; readonly record: LiveRecord }
  | { readonly type: 'gap'; readonly stream: Stream }
  | { readonly type: 'pong' }
  | { readonly type: 'error'; readonly code: string; readonly message: string };

export function parseServerMessage(text: string): ServerMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  switch (value['type']) {
    case 'authenticated':
      return { type: 'authenticated' };
    case 'subscribed':
      return { type: 'subscribed', cursor: stringOf(value['cursor']) };
    case 'data': {
      const record = recordOf(value);
      return record === null ? null : { type: 'data', cursor: stringOf(value['cursor']), record };
    }
    case 'gap': {
      const stream = streamOf(value['stream']);
      return stream === null ? null : { type: 'gap', stream };
    }
    case 'pong':
      return { type: 'pong' };
    case 'error':
      return { type: 'error', code: stringOf(value['code']) ?? '', message: stringOf(value['message']) ?? '' };
    default:
      return null;
  }
}

function recordOf(message: JsonObject): LiveRecord | null {
  const stream = streamOf(message['stream']);
  const id = stringOf(message['id']);
  const time = Date.parse(stringOf(message['timestamp']) ?? '');
  const data = message['data'];
  if (stream === null || id === null || Number.isNaN(time) || !isObject(data)) return null;
  const event = stream === 'events';
  const deviceId = stringOf(data['device_id']) ?? (event ? '' : null);
  const reading = event ? data : data['reading'];
  if (deviceId === null || !isObject(reading)) return null;
  return {
    stream,
    id,
    time,
    deviceId,
    agent: stringOf(data['agent']) ?? '',
    clock: stringOf(data['clock']) ?? 'synced',
    location: stringOf(data['location']),
    reading,
  };
}

function streamOf(value: unknown): Stream | null {
  return STREAMS.find((stream) => stream === value) ?? null;
}
