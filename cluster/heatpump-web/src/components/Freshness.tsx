/** How old a value is, counting on by itself, and whether that is too old for its kind. */
import { useMessages } from '../i18n/messages';
import { ageOf } from '../lib/format/format';
import { isStale } from '../lib/live/staleness';
import { useServices } from '../lib/services';
import { useNow } from '../lib/time/ticker';

interface FreshnessProps {
  /** When the value was measured, milliseconds since the epoch. */
  readonly time: number;
  /** From this age on it is stale. */
  readonly limitMs: number;
  /** As reported: synced, corrected or unsynced. */
  readonly clock?: string;
}

export function Freshness({ time, limitMs, clock = 'synced' }: FreshnessProps) {
  const t = useMessages();
  const { format } = useServices();
  const now = useNow();
  const stale = isStale(time, now, limitMs);
  const uncertain = clock === 'unsynced';
  return (
    <time
      className={stale ? 'fresh fresh-stale' : 'fresh'}
      dateTime={new Date(time).toISOString()}
      title={uncertain ? `${format.moment(time)}. ${t.unsynced}` : format.moment(time)}
    >
      {stale && <span className="fresh-word">{t.stale}</span>}
      {t.age(ageOf(time, now))}
      {uncertain && <span className="fresh-uncertain" role="img" aria-label={t.unsynced}>?</span>}
    </time>
  );
}
