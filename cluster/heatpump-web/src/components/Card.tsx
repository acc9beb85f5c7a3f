/** A titled part of the page. Its heading names the region for assistive technology. */
import { type ReactNode, useId } from 'react';
import { ErrorBoundary } from './ErrorBoundary';

interface CardProps {
  readonly title: string;
  readonly className: string;
  /** Where the page's heading says the same. */
  readonly titleHidden?: boolean;
  /** Beside the title: age of the values, a total. */
  readonly aside?: ReactNode;
  readonly children: ReactNode;
}

export function Card({ title, className, titleHidden = false, aside, children }: CardProps) {
  const heading = useId();
  return (
    <section className={`card ${className}`} aria-labelledby={heading}>
      <header className={titleHidden ? 'visually-hidden' : 'card-head'}>
        <h2 id={heading}>{title}</h2>
        {aside !== undefined && <div className="card-aside">{aside}</div>}
      </header>
      <ErrorBoundary>{children}</ErrorBoundary>
    </section>
  );
}
