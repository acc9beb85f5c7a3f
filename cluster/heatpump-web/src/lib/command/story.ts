/**
 * The story of a command in the order it happened: accepted, given to the device, and how it ended. Pure; says nothing in words. A step that
 * has not come yet is in it as well, so that the story does not grow under the reader's eyes.
 */
import type { Command } from '../../api/types';

export type Step = 'accepted' | 'sent' | 'confirmed' | 'failed' | 'expired' | 'superseded';

export interface StoryStep {
  readonly step: Step;
  readonly state: 'done' | 'now' | 'ahead';
  /** Milliseconds; null where it has not come or was never noted. */
  readonly at: number | null;
}

const ENDS = ['confirmed', 'failed', 'expired', 'superseded'] as const;
type End = (typeof ENDS)[number];

function endOf(status: string): End | null {
  return ENDS.find((end) => end === status) ?? null;
}

/** Whether the command may still change. A status of a newer server is taken for open: it is asked about again rather than given up. */
export function isOpen(command: Pick<Command, 'status'>): boolean {
  return endOf(command.status) === null;
}

export function storyOf(command: Command): readonly StoryStep[] {
  const end = endOf(command.status);
  const published = instant(command.published_at);
  // A try counts as sent once the broker has it; the agent's word that the device was given it comes later, or never.
  const sent = command.attempts > 0 || published !== null || command.status === 'published';
  const accepted: StoryStep = { step: 'accepted', state: !sent && end === null ? 'now' : 'done', at: instant(command.created_at) };
  if (end === null) {
    return [accepted, { step: 'sent', state: sent ? 'now' : 'ahead', at: published }, { step: 'confirmed', state: 'ahead', at: null }];
  }
  const last: StoryStep = { step: end, state: 'done', at: instant(command.finished_at) };
  return sent ? [accepted, { step: 'sent', state: 'done', at: published }, last] : [accepted, last];
}

function instant(time: string | null | undefined): number | null {
  return time === null || time === undefined ? null : Date.parse(time);
}

/** The reasons homelab-settings-api gives (relay.rs, progress.rs, outbox.rs), which the page says in its own language. */
const REASONS = [
  ['away', 'the device was not connected'],
  ['refused', 'the agent refused'],
  ['unconfirmed', 'the device did not confirm'],
  ['late', 'not confirmed within its time'],
  ['late', 'its time had passed'],
  ['unanswered', 'the agent has not answered'],
  ['replaced', 'by '],
] as const;

export type Reason = (typeof REASONS)[number][0];

/** Null for a reason of a newer server, which is shown as it stands. */
export function reasonOf(text: string): Reason | null {
  return REASONS.find(([, start]) => text.startsWith(start))?.[0] ?? null;
}
