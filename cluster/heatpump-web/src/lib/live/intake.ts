/**
 * Takes each reading once and remembers where to go on. Resumed connections repeat what was on the way when they broke, and a restarted
 * producer repeats a prefix: the id tells. Never orders: whoever keeps a value compares times (see tracked.ts).
 */
import type { LiveRecord, ServerMessage } from './protocol';

/** A repeat comes within seconds; at some tens of readings a second this covers minutes and stays under half a megabyte. */
const REMEMBERED_IDS = 4_096;

export class Intake {
  #cursor: string | null = null;
  /** In order of arrival, oldest first, as a Set keeps them. */
  readonly #seen = new Set<string>();

  /** The last cursor seen, opaque; null before the first. */
  get cursor(): string | null {
    return this.#cursor;
  }

  /** The reading, if the message brings one that is new. The cursor moves on either way. */
  accept(message: ServerMessage): LiveRecord | null {
    if (message.type === 'subscribed') {
      // A resumed subscription's cursor is where it starts; the one already held is never behind it.
      this.#cursor ??= message.cursor;
      return null;
    }
    if (message.type !== 'data') return null;
    if (message.cursor !== null) this.#cursor = message.cursor;
    if (this.#seen.has(message.record.id)) return null;
    this.#seen.add(message.record.id);
    if (this.#seen.size > REMEMBERED_IDS) {
      for (const oldest of this.#seen) {
        this.#seen.delete(oldest);
        break;
      }
    }
    return message.record;
  }

  /** Where to go on is no longer known to the server: start anew from what it gives next. */
  forgetCursor(): void {
    this.#cursor = null;
  }
}
