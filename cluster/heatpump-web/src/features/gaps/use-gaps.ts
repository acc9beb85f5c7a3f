/** The gaps of a range with their reasons in words, for ChartFrame and Plot. Without events (a failure, no scope) there are none. */
import { useQuery } from '@tanstack/react-query';
import { useMemo } from 'react';
import type { Gap } from '../../components/chart/Plot';
import type { TimeRange } from '../../lib/chart/range';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { MINUTE } from '../../lib/time/zone';
import { type Cause, gapsOf } from './gaps';
import { type Messages, useMessages } from './messages';
import { eventsOptions } from './queries';

/** `devices`: those the chart is drawn from, without sensors that sleep. */
export function useGaps(range: TimeRange, devices: readonly string[]): readonly Gap[] {
  const t = useMessages();
  const { api } = useServices();
  const now = useNow(MINUTE);
  const { data } = useQuery(eventsOptions(api, range));
  const known = devices.join(' ');
  return useMemo(() => {
    const gaps = gapsOf(data ?? [], known.split(' '), Math.min(now, range.to));
    return gaps.map(({ from, to, cause }) => ({ from: Math.max(from, range.from), to: Math.min(to, range.to), reason: reasonOf(cause, t) }));
  }, [data, known, now, range.from, range.to, t]);
}

function reasonOf(cause: Cause, t: Messages): string {
  if (cause.kind === 'offline') return t.gaps.offline(cause.deviceId);
  return t.gaps.loss(cause.count, t.gaps.words[cause.word] ?? (cause.word === '' ? t.gaps.noWord : cause.word));
}
