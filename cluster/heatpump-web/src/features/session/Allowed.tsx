/** What needs a scope the token lacks is explained in its place rather than shown and refused. The server decides in any case. */
import type { ReactNode } from 'react';
import { useMessages } from './messages';
import { type Scope, useMay } from './session-context';

export function Allowed({ scope, children }: { readonly scope: Scope; readonly children: ReactNode }) {
  const t = useMessages();
  if (useMay(scope)) return children;
  return (
    <p className="forbidden" data-scope={scope}>
      {t.session.missingScope(scope)}
    </p>
  );
}
