/** The story of a command, in English. */
import type { Reason, Step } from '../../lib/command/story';

const steps: Readonly<Record<Step, string>> = {
  accepted: 'Accepted',
  sent: 'Sent to the device',
  confirmed: 'Confirmed by the device',
  failed: 'Failed',
  expired: 'Expired',
  superseded: 'Replaced by a later change',
};

const reasons: Readonly<Record<Reason, string>> = {
  away: 'The device was not connected.',
  refused: 'The agent refused: it does not know the device, or its clock is not set.',
  unconfirmed: 'The device was told three times and never reported the value.',
  late: 'Its time ran out before the device reported the value. It is not applied any more.',
  unanswered: 'The agent on the Pi has not answered.',
  replaced: 'A later change wants something else.',
};

export const en = {
  command: {
    status: {
      pending: 'Waiting to be sent',
      published: 'Waiting for the device',
      confirmed: 'Confirmed',
      failed: 'Failed',
      expired: 'Expired',
      superseded: 'Replaced',
    } as Readonly<Record<string, string>>,
    steps,
    reasons,
    ahead: 'not yet',
    attempt: (number: number) => `try ${number} of 3`,
    until: (time: string) => `Given up at ${time} unless it is confirmed.`,
    by: (who: string) => `Asked by ${who}.`,
    bySchedule: 'Asked by a schedule.',
    everyState: 'Every state',
    recent: 'Latest changes',
    none: 'Nothing has been changed from here yet.',
    older: 'Show older changes',
    announce: (what: string, status: string) => `${what}: ${status}`,
  },
};
