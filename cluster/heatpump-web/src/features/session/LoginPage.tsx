/** The login page: what this is, one button, and what went wrong last time. It never sees a password. */
import { useState } from 'react';
import { useLocation } from 'react-router';
import { AppNotices } from '../../components/AppNotices';
import { HouseMark } from '../../components/HouseMark';
import { LanguageSwitch } from '../../components/LanguageSwitch';
import { ThemeSwitch } from '../../components/ThemeSwitch';
import { useMessages } from './messages';
import { useServices } from '../../lib/services';
import { Dusk } from './Dusk';
import { loginProblem } from './login-problem';
import { CALLBACK_PATH } from './oidc';
import { useSession } from './session-context';
import './session.css';

interface LoginPageProps {
  /** Set while a login or logout is on its way: the button waits and says so. */
  readonly busy?: string;
  readonly error?: Error;
}

export function LoginPage({ busy, error }: LoginPageProps) {
  const t = useMessages();
  const session = useSession();
  const { config } = useServices();
  const { pathname, search } = useLocation();
  const [failure, setFailure] = useState<unknown>(null);
  const [leaving, setLeaving] = useState(false);
  // PKCE needs SubtleCrypto, which browsers give to https and to this machine only.
  const insecure = !window.isSecureContext;
  const problem = failure ?? error ?? null;
  const logIn = () => {
    setLeaving(true);
    setFailure(null);
    session.logIn(pathname === CALLBACK_PATH ? '/' : pathname + search).catch((thrown: unknown) => {
      setFailure(thrown);
      setLeaving(false);
    });
  };
  const waiting = busy ?? (leaving ? t.session.loggingIn : null);
  return (
    <div className="login">
      <Dusk />
      <main className="login-panel">
        <p className="login-brand">
          <HouseMark />
          {t.product}
        </p>
        <h1>{t.session.heading}</h1>
        <p className="login-introduction">{t.session.introduction}</p>
        <AppNotices />
        {problem !== null && waiting === null && (
          <div className="problem" role="alert">
            <p className="problem-title">{t.session.failed}</p>
            <p className="problem-detail">{loginProblem(problem, t)}</p>
          </div>
        )}
        {insecure && (
          <p className="problem" role="alert">
            {t.session.insecure}
          </p>
        )}
        <button type="button" className="button button-primary" onClick={logIn} disabled={waiting !== null || insecure}>
          {waiting ?? t.session.logIn}
        </button>
        <p className="login-hint">{t.session.logInWith(new URL(config.issuer).host)}</p>
        <div className="login-choices">
          <ThemeSwitch />
          <LanguageSwitch />
        </div>
      </main>
    </div>
  );
}
