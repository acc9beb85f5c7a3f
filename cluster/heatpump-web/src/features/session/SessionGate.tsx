/**
 * Shows the page to a person who is logged in and the login page to everybody else. A session that ends while the page is open does not
 * take the page away: it stays as it is and says so.
 */
import type { ReactNode } from 'react';
import { useAuth } from 'react-oidc-context';
import { Navigate, useLocation } from 'react-router';
import { useMessages } from './messages';
import { LoginPage } from './LoginPage';
import { CALLBACK_PATH, returnPath } from './oidc';
import { useLoggingOut, useSession, useSessionEnded } from './session-context';

export function SessionGate({ children }: { readonly children: ReactNode }) {
  const auth = useAuth();
  const loggingOut = useLoggingOut();
  const { pathname } = useLocation();
  const t = useMessages();
  if (loggingOut) return <LoginPage busy={t.session.loggingOut} />;
  if (auth.isLoading) return <LoginPage busy={t.session.loggingIn} />;
  const user = auth.user ?? null;
  if (user === null) return auth.error === undefined ? <LoginPage /> : <LoginPage error={auth.error} />;
  if (pathname === CALLBACK_PATH) return <Navigate to={returnPath(user.state)} replace />;
  return children;
}

/** One line above the page, only while a person would otherwise take old values for new ones. */
export function SessionEndedNotice() {
  const ended = useSessionEnded();
  const session = useSession();
  const { pathname, search } = useLocation();
  const t = useMessages();
  if (!ended) return null;
  return (
    <p className="notice session-ended" role="alert">
      <span>{t.session.ended}</span>
      <button type="button" className="button" onClick={() => void session.logIn(pathname + search)}>
        {t.session.logIn}
      </button>
    </p>
  );
}
