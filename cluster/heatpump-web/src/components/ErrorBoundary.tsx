/**
 * Keeps a fault in one card from taking the page down: a chunk that could not be loaded, a value nobody thought of. Trying again loads the
 * page anew, because a chunk that failed once is failed for the life of the page.
 */
import { Component, type ReactNode } from 'react';
import { useMessages } from '../i18n/messages';
import { Problem } from './Problem';

interface State {
  readonly error: unknown;
  readonly failed: boolean;
}

export class ErrorBoundary extends Component<{ readonly children: ReactNode }, State> {
  override state: State = { error: null, failed: false };

  static getDerivedStateFromError = (error: unknown): State => {
    return { error, failed: true };
  };

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    return (
      <Crashed
        error={this.state.error}
        onRetry={() => {
          window.location.reload();
        }}
      />
    );
  }
}

function Crashed({ error, onRetry }: { readonly error: unknown; readonly onRetry: () => void }) {
  const t = useMessages();
  return <Problem title={t.problem.crashed} detail={error instanceof Error ? error.message : ''} onRetry={onRetry} />;
}
