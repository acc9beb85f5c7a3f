/** The place of a chart that is still loading. */
import { useMessages } from '../i18n/messages';

export function ChartSkeleton() {
  const t = useMessages();
  return <div className="chart-skeleton" role="status" aria-label={t.chartLoading} />;
}
