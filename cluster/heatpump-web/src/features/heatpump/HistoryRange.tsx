/** Which time the history shows: one of a few lengths up to now, or any days of one's own. */
import { useId, useState } from 'react';
import type { TimeRange } from '../../lib/chart/range';
import { useServices } from '../../lib/services';
import { addDays, dateText, isBefore, parseDate } from '../../lib/time/period';
import { DAY, type LocalDate, localDate, startOfDate } from '../../lib/time/zone';
import { useMessages } from './messages';

export type Picked = { readonly kind: 'day' | 'week' | 'month' | 'year' } | { readonly kind: 'own'; readonly range: TimeRange };

/** What the API answers at once. */
const LONGEST_DAYS = 366;
const KINDS = ['day', 'week', 'month', 'year', 'own'] as const;

interface HistoryRangeProps {
  readonly picked: Picked;
  readonly now: number;
  readonly onPick: (picked: Picked) => void;
}

export function HistoryRange({ picked, now, onPick }: HistoryRangeProps) {
  const t = useMessages();
  const { config } = useServices();
  const zone = config.householdTimeZone;
  const id = useId();
  const today = localDate(now - 1, zone);
  const [first, setFirst] = useState(() => dateText(addDays(today, -6)));
  const [last, setLast] = useState(() => dateText(today));
  const [fault, setFault] = useState('');
  const own = (from: string, to: string) => {
    setFirst(from);
    setLast(to);
    const range = rangeOf(parseDate(from), parseDate(to), zone);
    setFault(range === 'order' ? t.heatpump.history.faultOrder : range === 'long' ? t.heatpump.history.faultLong : '');
    if (range !== null && typeof range === 'object') onPick({ kind: 'own', range });
  };
  return (
    <div className="history-range">
      <fieldset className="choice">
        <legend className="visually-hidden">{t.heatpump.history.range}</legend>
        <div className="choice-options">
          {KINDS.map((kind) => (
            <label key={kind}>
              <input
                type="radio"
                name={id}
                checked={picked.kind === kind}
                onChange={() => {
                  if (kind === 'own') own(first, last);
                  else onPick({ kind });
                }}
              />
              <span>{t.heatpump.history.ranges[kind]}</span>
            </label>
          ))}
        </div>
      </fieldset>
      {picked.kind === 'own' && (
        <div className="history-dates">
          <label>
            {t.heatpump.history.from}
            <input
              type="date"
              value={first}
              aria-describedby={`${id}-fault`}
              onChange={(event) => {
                own(event.currentTarget.value, last);
              }}
            />
          </label>
          <label>
            {t.heatpump.history.to}
            <input
              type="date"
              value={last}
              aria-describedby={`${id}-fault`}
              onChange={(event) => {
                own(first, event.currentTarget.value);
              }}
            />
          </label>
          <p id={`${id}-fault`} className="setting-fault" role="alert">
            {fault}
          </p>
        </div>
      )}
    </div>
  );
}

/** Whole days of the household, the last included; null while a date is half written. */
function rangeOf(first: LocalDate | null, last: LocalDate | null, zone: string): TimeRange | 'order' | 'long' | null {
  if (first === null || last === null) return null;
  if (isBefore(last, first)) return 'order';
  const range = { from: startOfDate(first, zone), to: startOfDate(addDays(last, 1), zone) };
  return range.to - range.from > LONGEST_DAYS * DAY ? 'long' : range;
}
