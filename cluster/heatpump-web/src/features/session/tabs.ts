/**
 * What the tabs of one browser tell each other of the session: that it was ended, and the tokens of the newest renewal, so that a new tab
 * need not log in and two tabs never use up one refresh token. Tokens pass from memory to memory; nothing is stored here.
 */
import { User } from 'oidc-client-ts';
import { isObject, stringOf } from '../../lib/json';

const CHANNEL = 'homelab.session';
/** A tab answers within milliseconds; one in the background of a busy machine when it gets to it, see onOthers. */
const ANSWER_WITHIN_MS = 150;
/** Before a session is given up for lost. */
const LAST_ANSWER_WITHIN_MS = 2_000;

type Message = { readonly kind: 'asks' } | { readonly kind: 'has'; readonly user: string } | { readonly kind: 'ended' };

export interface TabEvents {
  /** The session of this tab, for one that asks. */
  readonly current: () => User | null;
  /** Another tab has renewed its tokens, or answered after nobody waited for it any more. */
  readonly onOthers: (user: User) => void;
  /** Somebody logged out in another tab. */
  readonly onEnded: () => void;
}

export class Tabs {
  readonly #channel = new BroadcastChannel(CHANNEL);
  #events: TabEvents | null = null;
  #asking: ((user: User) => void) | null = null;

  constructor() {
    this.#channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      this.#hear(data);
    };
  }

  listen(events: TabEvents): void {
    this.#events = events;
  }

  /** The session of another tab with the longest time to go, if any tab has one. */
  async ask(patiently = false): Promise<User | null> {
    let best: User | null = null;
    this.#asking = (user) => {
      if ((user.expires_at ?? 0) > (best?.expires_at ?? 0)) best = user;
    };
    this.#say({ kind: 'asks' });
    await new Promise((resolve) => setTimeout(resolve, patiently ? LAST_ANSWER_WITHIN_MS : ANSWER_WITHIN_MS));
    this.#asking = null;
    return best;
  }

  /** Gives the other tabs the tokens of a renewal before they can ask for them: whose turn is next must not use up the old one again. */
  tell(user: User): void {
    this.#say({ kind: 'has', user: user.toStorageString() });
  }

  ended(): void {
    this.#say({ kind: 'ended' });
  }

  /** One tab at a time. Browsers without locks have the older risk: two renewals at once. */
  async alone<T>(work: () => Promise<T>): Promise<T> {
    // Only in a secure context; where it is missing nobody can be logged in either.
    const { locks } = navigator as { readonly locks?: LockManager };
    if (locks === undefined) return work();
    return locks.request(CHANNEL, work);
  }

  #say(message: Message): void {
    this.#channel.postMessage(message);
  }

  #hear(data: unknown): void {
    if (!isObject(data)) return;
    switch (data['kind']) {
      case 'asks': {
        const user = this.#events?.current() ?? null;
        if (user !== null) this.tell(user);
        return;
      }
      case 'has': {
        const user = userOf(stringOf(data['user']) ?? '');
        if (user === null || user.expired === true) return;
        if (this.#asking !== null) this.#asking(user);
        else this.#events?.onOthers(user);
        return;
      }
      case 'ended':
        this.#events?.onEnded();
        return;
    }
  }
}

function userOf(text: string): User | null {
  try {
    return User.fromStorageString(text);
  } catch {
    return null;
  }
}
