/** What was lost, and which device came or went: the reasons of the gaps that charts draw. */
import { useQuery } from '@tanstack/react-query';
import type { HouseEvent } from '../../api/types';
import { Card } from '../../components/Card';
import { QueryView } from '../../components/QueryView';
import { booleanOf, numberOf, stringOf } from '../../lib/json';
import { useServices } from '../../lib/services';
import { DAY } from '../../lib/time/zone';
import { type Messages, useMessages } from './messages';
import { eventsOptions } from './queries';

const DAYS = 7;
/** What a person reads; the whole list is in the API. */
const ROWS = 20;

export function EventList({ until }: { readonly until: number }) {
  const t = useMessages();
  const { api, format } = useServices();
  const query = useQuery({ ...eventsOptions(api, { from: until - DAYS * DAY, to: until }), select: changesOf });
  return (
    <Card title={t.devices.events} className="device-events">
      <QueryView query={query} skeleton={<div className="device-events-blank" />} isEmpty={(events) => events.length === 0} empty={t.devices.noEvents}>
        {(events) => (
          <ul>
            {events.map((event) => (
              <li key={event.id}>
                <time dateTime={event.time}>{format.moment(Date.parse(event.time))}</time>
                <span>{event.device_id ?? event.agent}</span>
                <span>{textOf(event, t, (value) => format.number(value, 0))}</span>
              </li>
            ))}
          </ul>
        )}
      </QueryView>
    </Card>
  );
}

/**
 * Losses, clock steps, and devices that came or went, newest first. A sensor that sleeps connects anew for every reading, and an
 * agent says so each time: only what differs from the device's event before is a change. Of the first that is known, going away is one:
 * a device that goes was there.
 */
function changesOf(events: readonly HouseEvent[]): readonly HouseEvent[] {
  const online = new Map<string, boolean>();
  return [...events]
    .sort((a, b) => Date.parse(a.time) - Date.parse(b.time))
    .filter((event) => {
      if (event.type !== 'device_online') return event.type === 'buffer_loss' || event.type === 'clock_step';
      const device = event.device_id ?? '';
      const now = booleanOf(event.details['online']) === true;
      const before = online.get(device);
      online.set(device, now);
      return before === undefined ? !now : before !== now;
    })
    .reverse()
    .slice(0, ROWS);
}

function textOf(event: HouseEvent, t: Messages, number: (value: number) => string): string {
  switch (event.type) {
    case 'buffer_loss':
      return t.devices.loss(number(numberOf(event.details['count']) ?? 0), stringOf(event.details['reason']) ?? '');
    case 'clock_step':
      return t.devices.clockStep;
    default:
      return booleanOf(event.details['online']) === true ? t.devices.came : t.devices.went;
  }
}
