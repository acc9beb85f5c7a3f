/** The place of something that is still loading. Says so once to assistive technology; the shapes are for the eye. */
import { useMessages } from '../i18n/messages';

interface SkeletonProps {
  /** A class that gives it the height of what will come. */
  readonly className: string;
  /** Number of bars. */
  readonly lines?: number;
}

export function Skeleton({ className, lines = 1 }: SkeletonProps) {
  const t = useMessages();
  return (
    <div className={`skeleton ${className}`} role="status" aria-label={t.boot.loading}>
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} className="skeleton-bar" />
      ))}
    </div>
  );
}
