/**
 * A view without its data: the same elements in the same places, figures as grey bars. What loads later takes exactly its place, so nothing
 * moves. Says once to assistive technology that it is loading; the rest is for the eye.
 */
import type { ReactNode } from 'react';
import { useMessages } from '../i18n/messages';

export function Blank({ children }: { readonly children: ReactNode }) {
  const t = useMessages();
  return (
    <div className="blank" role="status" aria-label={t.loading}>
      <div className="blank-shape" aria-hidden="true" inert>
        {children}
      </div>
    </div>
  );
}
