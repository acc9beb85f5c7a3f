/** The session of this tab, for what is shown of it. */
import { createContext, use, useSyncExternalStore } from 'react';
import type { Session } from './oidc';

export const SessionContext = createContext<Session | null>(null);

export function useSession(): Session {
  const session = use(SessionContext);
  if (session === null) throw new Error('useSession is used outside SessionContext');
  return session;
}

export function useSessionEnded(): boolean {
  const session = useSession();
  return useSyncExternalStore(session.subscribeEnded, session.ended);
}
