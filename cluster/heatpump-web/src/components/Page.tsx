/** One page: its heading, what belongs beside it (a range, a switch), and the title of the browser's tab. */
import type { ReactNode } from 'react';
import { useMessages } from '../i18n/messages';

interface PageProps {
  readonly title: string;
  readonly className: string;
  /** Beside the heading on wide screens, under it on narrow ones. */
  readonly tools?: ReactNode;
  readonly children: ReactNode;
}

export function Page({ title, className, tools, children }: PageProps) {
  const t = useMessages();
  return (
    <div className={`page ${className}`}>
      <title>{`${title} · ${t.product}`}</title>
      <header className="page-head">
        <h1>{title}</h1>
        {tools}
      </header>
      {children}
    </div>
  );
}
