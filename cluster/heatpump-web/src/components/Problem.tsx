/** Something failed: what, the detail the server or the program gave, and a way to try again. */
import { useMessages } from '../i18n/messages';

interface ProblemProps {
  readonly title: string;
  readonly detail: string;
  readonly onRetry?: () => void;
  readonly retrying?: boolean;
}

export function Problem({ title, detail, onRetry, retrying = false }: ProblemProps) {
  const t = useMessages();
  return (
    <div className="problem" role="alert">
      <p className="problem-title">{title}</p>
      {detail !== '' && <p className="problem-detail">{detail}</p>}
      {onRetry !== undefined && (
        <button type="button" className="button" onClick={onRetry} disabled={retrying}>
          {t.retry}
        </button>
      )}
    </div>
  );
}
