/**
 * One query in all its states: loading (the given skeleton, of the size of what will replace it), failed, empty, and data, also data that
 * could not be refreshed. A view that goes through here cannot forget one.
 */
import type { ReactNode } from 'react';
import { useMessages } from '../i18n/messages';
import { ApiError } from '../lib/api/client';
import { Problem } from './Problem';

/** The part of a query that is looked at: several may stand together as one. */
export interface Loaded<T> {
  readonly data: T | undefined;
  readonly error: Error | null;
  readonly isFetching: boolean;
  readonly refetch: () => unknown;
}

interface QueryViewProps<T> {
  readonly query: Loaded<T>;
  readonly skeleton: ReactNode;
  readonly isEmpty: (data: T) => boolean;
  readonly empty: string;
  readonly children: (data: T) => ReactNode;
}

export function QueryView<T>({ query, skeleton, isEmpty, empty, children }: QueryViewProps<T>) {
  const t = useMessages();
  const retry = () => void query.refetch();
  if (query.data === undefined) {
    if (query.error === null) return skeleton;
    const forbidden = query.error instanceof ApiError && query.error.status === 403;
    return (
      <Problem
        title={forbidden ? t.problem.forbidden : t.problem.title}
        detail={detailOf(query.error)}
        onRetry={retry}
        retrying={query.isFetching}
      />
    );
  }
  return (
    <>
      {query.error !== null && (
        <p className="notice" role="status">
          <span>
            {t.problem.refresh}: {detailOf(query.error)}
          </span>
          <button type="button" className="button button-quiet" onClick={retry} disabled={query.isFetching}>
            {t.retry}
          </button>
        </p>
      )}
      {isEmpty(query.data) ? <p className="empty">{empty}</p> : children(query.data)}
    </>
  );
}

function detailOf(error: Error): string {
  return error instanceof ApiError && error.detail !== '' ? error.detail : error.message;
}
