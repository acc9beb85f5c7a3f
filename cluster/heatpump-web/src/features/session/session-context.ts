/** The session of this tab, for what is shown of it and what it allows. */
import { createContext, use, useSyncExternalStore } from 'react';
import type { Session } from './oidc';

export const SessionContext = createContext<Session | null>(null);

export function useSession(): Session {
  const session = use(SessionContext);
  if (session === null) throw new Error('useSession is used outside SessionContext');
  return session;
}

export type Scope = 'read:energy' | 'read:heatpump' | 'read:temperature' | 'read:plugs' | 'read:settings' | 'write:settings' | 'write:plugs';

/** Whether the token allows it. An issuer that does not name the granted scopes leaves the decision to the server: yes until it refuses. */
export function useMay(scope: Scope): boolean {
  const session = useSession();
  useSyncExternalStore(session.subscribeToken, session.token);
  const scopes = session.scopes();
  return !scopes.some((granted) => granted.startsWith('read:') || granted.startsWith('write:')) || scopes.includes(scope);
}

export function useSessionEnded(): boolean {
  const session = useSession();
  return useSyncExternalStore(session.subscribeState, session.ended);
}

export function useLoggingOut(): boolean {
  const session = useSession();
  return useSyncExternalStore(session.subscribeState, session.loggingOut);
}
