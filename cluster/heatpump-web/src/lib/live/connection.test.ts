import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LiveConnection, type LiveState, type Socket } from './connection';
import type { LiveRecord, Stream } from './protocol';

class FakeSocket implements Socket {
  onopen: Socket['onopen'] = null;
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  readonly url: string;
  readonly protocols: readonly string[];
  readonly sent: Record<string, unknown>[] = [];
  closed = false;

  constructor(url: string, protocols: string[]) {
    this.url = url;
    this.protocols = protocols;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.closed = true;
  }

  says(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  breaks(code: number): void {
    this.onclose?.({ code, reason: '' });
  }

  /** Opens and is subscribed. */
  goesLive(cursor = 'start'): void {
    this.onopen?.();
    this.says({ type: 'authenticated', expires_at: '2026-01-01T09:00:00Z' });
    this.says({ type: 'subscribed', streams: ['energy'], cursor });
  }
}

function setUp({ token = 'a.b-c_d', renews = true }: { token?: string | null; renews?: boolean } = {}) {
  const sockets: FakeSocket[] = [];
  const states: LiveState[] = [];
  const records: LiveRecord[] = [];
  const batches: number[] = [];
  const missed: (readonly Stream[])[] = [];
  let current = token;
  const renew = vi.fn(() => {
    if (renews) current = 'fresh';
    return Promise.resolve(renews);
  });
  const connection = new LiveConnection(
    {
      url: 'wss://home/ws/energy',
      streams: ['energy', 'temperature'],
      token: () => current,
      renew,
      onRecords: (batch) => {
        batches.push(batch.length);
        records.push(...batch);
      },
      onMissed: (streams) => missed.push(streams),
      onState: (state) => states.push(state),
    },
    {
      open: (url, protocols) => {
        const socket = new FakeSocket(url, protocols);
        sockets.push(socket);
        return socket;
      },
      now: () => Date.now(),
      random: () => 1,
    },
  );
  const last = (): FakeSocket => {
    const socket = sockets.at(-1);
    if (socket === undefined) throw new Error('no socket was opened');
    return socket;
  };
  return { connection, sockets, states, records, batches, missed, renew, last };
}

function reading(sequence: number) {
  return {
    type: 'data',
    stream: 'energy',
    timestamp: '2026-01-01T08:00:13Z',
    id: `p0/1/${sequence}`,
    cursor: `c${sequence}`,
    data: { device_id: 'SE1', agent: 'p0', location: null, clock: 'synced', reading: { power_w: sequence } },
  };
}

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-01-01T08:00:00Z') });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('LiveConnection', () => {
  it('authenticates by subprotocol, subscribes, and goes live', () => {
    const { connection, last, states } = setUp();
    connection.start();
    expect(last().protocols).toEqual(['homelab.v1', 'bearer.a.b-c_d']);
    last().goesLive();
    expect(last().sent).toEqual([{ type: 'subscribe', streams: ['energy', 'temperature'] }]);
    expect(states.at(-1)).toEqual({ phase: 'live' });
  });

  it('sends a token a header cannot carry in a first message', () => {
    const { connection, last } = setUp({ token: 'opaque+/=' });
    connection.start();
    expect(last().protocols).toEqual(['homelab.v1']);
    last().onopen?.();
    expect(last().sent).toEqual([
      { type: 'authenticate', token: 'opaque+/=' },
      { type: 'subscribe', streams: ['energy', 'temperature'] },
    ]);
  });

  it('hands on readings that arrive together in one batch, each once', async () => {
    const { connection, last, records, batches } = setUp();
    connection.start();
    last().goesLive();
    for (const sequence of [1, 2, 2, 1, 3]) last().says(reading(sequence));
    await vi.advanceTimersByTimeAsync(20);
    expect(records.map((record) => record.id)).toEqual(['p0/1/1', 'p0/1/2', 'p0/1/3']);
    expect(batches).toEqual([3]);
  });

  it('resumes after the last cursor it saw', async () => {
    const { connection, last, sockets, states, missed, records } = setUp();
    connection.start();
    last().goesLive();
    last().says(reading(7));
    last().breaks(1006);
    expect(states.at(-1)).toEqual({ phase: 'lost', since: Date.now() });
    await vi.advanceTimersByTimeAsync(500);
    expect(sockets).toHaveLength(2);
    last().goesLive('c7');
    expect(last().sent).toEqual([{ type: 'subscribe', streams: ['energy', 'temperature'], since: 'c7' }]);
    last().says(reading(7));
    last().says(reading(8));
    await vi.advanceTimersByTimeAsync(20);
    expect(records.map((record) => record.id)).toEqual(['p0/1/7', 'p0/1/8']);
    expect(missed).toEqual([]);
  });

  it('backs off, doubling up to 15 s, and keeps the time of the loss', async () => {
    const { connection, last, sockets, states } = setUp();
    connection.start();
    last().goesLive();
    const lostAt = Date.now();
    last().breaks(1001);
    const delays: number[] = [];
    for (let attempt = 0; attempt < 8; attempt += 1) {
      const before = Date.now();
      const count = sockets.length;
      while (sockets.length === count) await vi.advanceTimersByTimeAsync(100);
      delays.push(Date.now() - before);
      last().breaks(1006);
    }
    expect(delays).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
    expect(states.filter((state) => state.phase === 'lost')).toEqual([{ phase: 'lost', since: lostAt }]);
  });

  it('gets a fresh token when the server ends the session, and goes on', async () => {
    const { connection, last, renew, sockets } = setUp();
    connection.start();
    last().goesLive();
    last().breaks(4401);
    await vi.advanceTimersByTimeAsync(500);
    expect(renew).toHaveBeenCalledOnce();
    expect(sockets).toHaveLength(2);
    expect(last().protocols).toContain('bearer.fresh');
  });

  it('stops when the session has ended, and starts again with a new one', async () => {
    const { connection, last, states, sockets } = setUp({ renews: false });
    connection.start();
    last().goesLive();
    last().breaks(4401);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(states.at(-1)).toMatchObject({ phase: 'stopped', reason: 'login' });
    expect(sockets).toHaveLength(1);
    connection.renewed('new');
    await vi.advanceTimersByTimeAsync(0);
    expect(sockets).toHaveLength(2);
  });

  it('does not ask again without a scope', async () => {
    const { connection, last, states, sockets } = setUp();
    connection.start();
    last().breaks(4403);
    await vi.advanceTimersByTimeAsync(120_000);
    expect(sockets).toHaveLength(1);
    expect(states.at(-1)).toMatchObject({ phase: 'stopped', reason: 'forbidden' });
  });

  it('prolongs an open connection with a fresh token', () => {
    const { connection, last } = setUp();
    connection.start();
    last().goesLive();
    connection.renewed('next');
    expect(last().sent.at(-1)).toEqual({ type: 'authenticate', token: 'next' });
  });

  it('says that readings were missed after a gap, and after a loss without a cursor', async () => {
    const { connection, last, missed } = setUp();
    connection.start();
    last().onopen?.();
    last().says({ type: 'subscribed', streams: ['energy'] });
    last().says({ type: 'gap', stream: 'energy', from: 'a', to: 'b', reason: 'window' });
    expect(missed).toEqual([['energy']]);
    last().breaks(1006);
    await vi.advanceTimersByTimeAsync(500);
    last().goesLive();
    expect(missed).toEqual([['energy'], ['energy', 'temperature']]);
  });

  it('notices a connection that died without a word', async () => {
    const { connection, last, sockets, states } = setUp();
    connection.start();
    last().goesLive();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(last().sent.at(-1)).toEqual({ type: 'ping' });
    last().says({ type: 'pong' });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(states.at(-1)).toEqual({ phase: 'live' });
    await vi.advanceTimersByTimeAsync(10_500);
    expect(sockets[0]?.closed).toBe(true);
    expect(sockets).toHaveLength(2);
  });

  it('tries at once after sleep instead of waiting out the delay', async () => {
    const { connection, last, sockets } = setUp();
    connection.start();
    last().goesLive();
    for (let failure = 0; failure < 6; failure += 1) {
      last().breaks(1006);
      await vi.advanceTimersByTimeAsync(15_000);
    }
    last().breaks(1006);
    const before = sockets.length;
    connection.wake();
    await vi.advanceTimersByTimeAsync(0);
    expect(sockets).toHaveLength(before + 1);
  });

  it('gives up a socket that never opens', async () => {
    const { connection, sockets } = setUp();
    connection.start();
    await vi.advanceTimersByTimeAsync(10_500);
    expect(sockets).toHaveLength(2);
    expect(sockets[0]?.closed).toBe(true);
  });

  it('leaves nothing running after stop', async () => {
    const { connection, last, sockets } = setUp();
    connection.start();
    last().goesLive();
    connection.stop();
    expect(last().closed).toBe(true);
    await vi.advanceTimersByTimeAsync(120_000);
    expect(sockets).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });
});
