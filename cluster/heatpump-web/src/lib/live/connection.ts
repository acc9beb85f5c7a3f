/**
 * One WebSocket to energy-ws, kept alive: authenticate, subscribe, resume after the last cursor, back off when it fails. Tells its owner
 * about readings, gaps and its own state; never touches the query cache or the page. Time, randomness and sockets come in from outside so
 * that tests are exact.
 */
import { Intake } from './intake';
import { type LiveRecord, parseServerMessage, type ServerMessage, type Stream } from './protocol';

export type LiveState =
  /** The first connection is being made. */
  | { readonly phase: 'connecting' }
  | { readonly phase: 'live' }
  /** Lost, and trying again; `since` is when it was lost. */
  | { readonly phase: 'lost'; readonly since: number }
  /** Given up, until the person does something about it. */
  | { readonly phase: 'stopped'; readonly since: number; readonly reason: StopReason; readonly detail: string };


/** `login`: the session has ended. `forbidden`: the token has no scope for anything that is streamed. */
export type StopReason = 'login' | 'forbidden';

/** The part of WebSocket that is used, so that a test can stand in for it. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

export interface Surroundings {
  open(url: string, protocols: string[]): Socket;
  now(): number;
  /** 0 to 1. */
  random(): number;
}

export interface LiveOptions {
  readonly url: string;
  readonly streams: readonly Stream[];
  /** The current access token, or null when there is none that is valid. */
  readonly token: () => string | null;
  /** Gets a fresh token; false when that needs the person. */
  readonly renew: () => Promise<boolean>;
  readonly onRecords: (records: readonly LiveRecord[]) => void;
  /** Readings of these streams were missed: what is shown of them must be fetched again. */
  readonly onMissed: (streams: readonly Stream[]) => void;
  readonly onState: (state: LiveState) => void;
}

const FIRST_RETRY_MS = 500;
/** A server that restarts is found again within this, and a dead one is not asked more often. */
const LONGEST_RETRY_MS = 15_000;
/** Connected and subscribed takes a fraction of a second; a socket that hangs longer is given up. */
const OPEN_TIMEOUT_MS = 10_000;
const PING_EVERY_MS = 20_000;
/** Anything the server sends counts as a sign of life; after a ping its answer must come within this. */
const SILENCE_MS = 10_000;
/** Readings that arrive together are handed on together: a backlog of thousands is a few renderings, a single one waits for a frame. */
const BATCH_MS = 16;
/** What a header value can carry; any other token goes in a first message instead. */
const HEADER_TOKEN = /^[A-Za-z0-9\-._~]+$/;

type Timer = ReturnType<typeof setTimeout>;

export class LiveConnection {
  readonly #options: LiveOptions;
  readonly #around: Surroundings;
  readonly #intake = new Intake();
  #state: LiveState = { phase: 'connecting' };
  #socket: Socket | null = null;
  #subscribed = false;
  #failures = 0;
  /** Since the last ping. No clock decides whether a connection lives: the server's, as seen from here, may jump. */
  #heard = false;
  #retry: Timer | null = null;
  #deadline: Timer | null = null;
  #ping: Timer | null = null;
  #flush: Timer | null = null;
  #batch: LiveRecord[] = [];
  #everLive = false;
  #stopped = false;

  constructor(options: LiveOptions, around: Surroundings) {
    this.#options = options;
    this.#around = around;
  }

  start(): void {
    this.#stopped = false;
    void this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    this.#flushNow();
    this.#drop();
  }

  /** Back from sleep or from another network: try at once, and do not trust a connection that only looks open. */
  wake(): void {
    if (this.#stopped || this.#state.phase === 'stopped') return;
    if (this.#retry !== null) {
      this.#failures = 0;
      void this.#connect();
    } else if (this.#subscribed) {
      this.#probe();
    }
  }

  /** The session has a fresh token: an open connection is prolonged with it, a stopped one starts again. */
  renewed(token: string): void {
    if (this.#stopped) return;
    if (this.#subscribed) {
      this.#send({ type: 'authenticate', token });
    } else if (this.#state.phase === 'stopped' && this.#state.reason === 'login') {
      void this.#connect();
    }
  }

  async #connect(): Promise<void> {
    this.#drop();
    let token = this.#options.token();
    if (token === null) {
      const renewed = await this.#options.renew();
      if (this.#isStopped() || this.#socket !== null) return;
      token = this.#options.token();
      if (!renewed || token === null) {
        this.#giveUp('login', '');
        return;
      }
    }
    const inHeader = HEADER_TOKEN.test(token);
    const socket = this.#around.open(this.#options.url, inHeader ? ['homelab.v1', `bearer.${token}`] : ['homelab.v1']);
    this.#socket = socket;
    socket.onopen = () => {
      if (!inHeader) this.#send({ type: 'authenticate', token });
      this.#subscribe();
    };
    socket.onmessage = (event) => {
      this.#receive(event.data);
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) void this.#closed(event.code, event.reason);
    };
    this.#deadline = setTimeout(() => void this.#closed(1006, ''), OPEN_TIMEOUT_MS);
  }

  #subscribe(): void {
    const since = this.#intake.cursor;
    this.#send({ type: 'subscribe', streams: this.#options.streams, ...(since !== null && { since }) });
  }

  #receive(data: unknown): void {
    this.#heard = true;
    const message = typeof data === 'string' ? parseServerMessage(data) : null;
    if (message === null) return;
    const resumed = this.#intake.cursor !== null;
    const record = this.#intake.accept(message);
    if (record !== null) this.#hand(record);
    this.#react(message, resumed);
  }

  #react(message: ServerMessage, resumed: boolean): void {
    switch (message.type) {
      case 'subscribed':
        clear(this.#deadline);
        this.#deadline = null;
        this.#subscribed = true;
        this.#failures = 0;
        this.#schedulePing();
        // Without a cursor the time between was not replayed. The first connection of all has nothing to make up for.
        if (!resumed && this.#everLive) this.#options.onMissed(this.#options.streams);
        this.#everLive = true;
        this.#become({ phase: 'live' });
        return;
      case 'gap':
        this.#options.onMissed([message.stream]);
        return;
      case 'error':
        // A cursor the server does not know would be refused for ever.
        if (message.code === 'invalid_cursor') {
          this.#intake.forgetCursor();
          this.#subscribe();
        }
        return;
      case 'authenticated':
      case 'data':
      case 'pong':
        return;
    }
  }

  async #closed(code: number, reason: string): Promise<void> {
    this.#drop();
    if (this.#isStopped()) return;
    switch (code) {
      case 4403:
        this.#giveUp('forbidden', reason);
        return;
      case 1008:
      case 1009:
        // Ours to mend, not the network's: asking again in the same way would only repeat it, so it is tried slowly.
        this.#failures = Math.max(this.#failures, 5);
        break;
      case 4401: {
        this.#lose();
        const renewed = await this.#options.renew();
        if (this.#isStopped() || this.#socket !== null) return;
        if (!renewed) {
          this.#giveUp('login', reason);
          return;
        }
        break;
      }
      default:
        break;
    }
    this.#lose();
    this.#retryLater();
  }

  #retryLater(): void {
    const limit = Math.min(FIRST_RETRY_MS * 2 ** this.#failures, LONGEST_RETRY_MS);
    this.#failures += 1;
    // Between half and the whole: a house full of tabs does not come back in the same instant.
    const delay = limit * (0.5 + 0.5 * this.#around.random());
    clear(this.#retry);
    this.#retry = setTimeout(() => void this.#connect(), delay);
  }

  #schedulePing(): void {
    clear(this.#ping);
    this.#ping = setTimeout(() => {
      this.#probe();
    }, PING_EVERY_MS);
  }

  #probe(): void {
    this.#heard = false;
    this.#send({ type: 'ping' });
    clear(this.#ping);
    this.#ping = setTimeout(() => {
      if (this.#heard) this.#schedulePing();
      else void this.#closed(1006, '');
    }, SILENCE_MS);
  }

  #hand(record: LiveRecord): void {
    this.#batch.push(record);
    this.#flush ??= setTimeout(() => {
      this.#flushNow();
    }, BATCH_MS);
  }

  #flushNow(): void {
    clear(this.#flush);
    this.#flush = null;
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#options.onRecords(batch);
  }

  #send(message: object): void {
    this.#socket?.send(JSON.stringify(message));
  }

  /** Lets go of the socket and of every timer that belongs to it. */
  #drop(): void {
    clear(this.#retry);
    clear(this.#deadline);
    clear(this.#ping);
    this.#retry = this.#deadline = this.#ping = null;
    this.#subscribed = false;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  #lose(): void {
    if (this.#state.phase !== 'lost') this.#become({ phase: 'lost', since: this.#around.now() });
  }

  #giveUp(reason: StopReason, detail: string): void {
    const since = this.#state.phase === 'lost' ? this.#state.since : this.#around.now();
    this.#become({ phase: 'stopped', since, reason, detail });
  }

  #become(state: LiveState): void {
    this.#state = state;
    this.#options.onState(state);
  }

  /** A method, because the compiler takes a field checked before an await for unchanged after it. */
  #isStopped(): boolean {
    return this.#stopped;
  }
}

function clear(timer: Timer | null): void {
  if (timer !== null) clearTimeout(timer);
}
