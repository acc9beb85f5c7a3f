/** Which period, and what to compare it with: spans, one step back and forth, any day, any range. */
import { type ReactNode, useId } from 'react';
import { useServices } from '../../lib/services';
import { type Comparison, dateText, isBefore, parseDate, type Period, periodOf, rangeOf, shifted, SPANS } from '../../lib/time/period';
import { useNow } from '../../lib/time/ticker';
import { localDate, MINUTE } from '../../lib/time/zone';
import { useMessages } from './messages';
import { inSpan, type Shown } from './period-address';

const COMPARISONS: readonly Comparison[] = ['none', 'previous', 'year'];

interface PeriodPickerProps {
  readonly shown: Shown;
  readonly onShow: (shown: Shown) => void;
  /** What else belongs beside it. */
  readonly children: ReactNode;
}

export function PeriodPicker({ shown, onShow, children }: PeriodPickerProps) {
  const t = useMessages();
  const { config } = useServices();
  const today = localDate(useNow(MINUTE), config.householdTimeZone);
  const span = useId();
  const compare = useId();
  const { period, comparison } = shown;
  return (
    <div className="period">
      <fieldset className="choice">
        <legend className="visually-hidden">{t.energy.span}</legend>
        <div className="choice-options">
          {SPANS.map((one) => (
            <label key={one}>
              <input
                type="radio"
                name={span}
                checked={period.span === one}
                onChange={() => {
                  onShow(inSpan(shown, one, today));
                }}
              />
              <span>{t.energy.spans[one]}</span>
            </label>
          ))}
        </div>
      </fieldset>
      <Steps shown={shown} onShow={onShow} />
      <div className="period-tools">
        <label htmlFor={compare}>{t.energy.compareWith}</label>
        <select
          id={compare}
          className="field"
          value={comparison}
          onChange={(event) => {
            const chosen = COMPARISONS.find((one) => one === event.target.value);
            onShow({ period, comparison: chosen ?? 'none' });
          }}
        >
          {COMPARISONS.map((one) => (
            <option key={one} value={one}>
              {t.energy.comparisons[one]}
            </option>
          ))}
        </select>
        {children}
      </div>
    </div>
  );
}

function Steps({ shown, onShow }: Pick<PeriodPickerProps, 'shown' | 'onShow'>) {
  const t = useMessages();
  const { config, format } = useServices();
  const zone = config.householdTimeZone;
  const now = useNow(MINUTE);
  const { period, comparison } = shown;
  const show = (next: Period) => {
    onShow({ period: next, comparison });
  };
  const latest = now < rangeOf(period, zone).to;
  const day = (label: string, value: Period['first'], pick: (date: Period['first']) => Period) => (
    <input
      type="date"
      className="field"
      aria-label={label}
      value={dateText(value)}
      min="2000-01-01"
      max={dateText(localDate(now, zone))}
      required
      onChange={(event) => {
        // Half typed it is no date yet.
        const date = parseDate(event.target.value);
        if (date !== null) show(pick(date));
      }}
    />
  );
  const { span } = period;
  return (
    <div className="period-steps">
      <button type="button" className="button period-step" aria-label={t.energy.earlier} title={t.energy.earlier} onClick={() => { show(shifted(period, -1)); }}>
        <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
          <path d="M14.5 6 8.5 12l6 6" />
        </svg>
      </button>
      {span === 'range' ? (
        <>
          {day(t.energy.firstDay, period.first, (first) => ({ span, first, last: isBefore(period.last, first) ? first : period.last }))}
          <span aria-hidden="true">–</span>
          {day(t.energy.lastDay, period.last, (last) => ({ span, first: isBefore(last, period.first) ? last : period.first, last }))}
        </>
      ) : (
        <>
          <p className="period-name" aria-live="polite">
            {periodName(period, t.energy.week, format, zone)}
          </p>
          {day(t.energy.goTo, period.first, (date) => periodOf(span, date))}
        </>
      )}
      <button
        type="button"
        className="button period-step"
        aria-label={t.energy.later}
        title={t.energy.later}
        aria-disabled={latest}
        onClick={() => {
          if (!latest) show(shifted(period, 1));
        }}
      >
        <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
          <path d="m9.5 6 6 6-6 6" />
        </svg>
      </button>
    </div>
  );
}

function periodName(period: Period, week: string, format: ReturnType<typeof useServices>['format'], zone: string): string {
  const { from, to } = rangeOf(period, zone);
  // Noon of a day is on that day whatever the clocks do.
  const noon = from + 12 * 60 * MINUTE;
  switch (period.span) {
    case 'day':
      return format.longDate(noon);
    case 'week':
      return `${week} ${format.days(noon, to - 12 * 60 * MINUTE)}`;
    case 'month':
      return format.month(noon);
    case 'year':
      return format.year(noon);
    case 'range':
      return format.days(noon, to - 12 * 60 * MINUTE);
  }
}
