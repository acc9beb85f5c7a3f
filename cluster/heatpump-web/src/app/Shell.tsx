/** What is around every page: the mark, the state of the live connection, theme and account. */
import type { ReactNode } from 'react';
import { useAuth } from 'react-oidc-context';
import { HouseMark } from '../components/HouseMark';
import { ThemeSwitch } from '../components/ThemeSwitch';
import { SessionEndedNotice } from '../features/session/SessionGate';
import { useSession } from '../features/session/session-context';
import { useMessages } from '../i18n/messages';
import { ageOf } from '../lib/format/format';
import { useLiveState } from '../lib/live/state';
import { useNow } from '../lib/time/ticker';
import './shell.css';

export function Shell({ children }: { readonly children: ReactNode }) {
  const t = useMessages();
  return (
    <div className="shell">
      <a className="skip" href="#content">
        {t.skip}
      </a>
      <header className="bar">
        <p className="bar-brand">
          <HouseMark />
          {t.product}
        </p>
        <LiveStatus />
        <div className="bar-tools">
          <ThemeSwitch />
          <Account />
        </div>
      </header>
      <SessionEndedNotice />
      <main id="content" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

/** The words change with the state only, not every second: a screen reader hears of a loss once. */
function LiveStatus() {
  const t = useMessages();
  const state = useLiveState();
  switch (state.phase) {
    case 'connecting':
      return (
        <p className="live live-connecting" role="status">
          {t.live.connecting}
        </p>
      );
    case 'live':
      return (
        <p className="live live-live" role="status">
          {t.live.live}
        </p>
      );
    case 'lost':
      return (
        <p className="live live-lost" role="status">
          <LostFor since={state.since} />
        </p>
      );
    case 'stopped':
      return (
        <p className="live live-stopped" role="status">
          {state.reason === 'login' ? t.live.login : t.live.forbidden}
        </p>
      );
  }
}

function LostFor({ since }: { readonly since: number }) {
  const t = useMessages();
  const now = useNow();
  return (
    <>
      <span className="visually-hidden">{t.live.lost}</span>
      <span aria-hidden="true">{t.live.lostSince(t.age(ageOf(since, now)))}</span>
    </>
  );
}

function Account() {
  const t = useMessages();
  const session = useSession();
  const { user } = useAuth();
  const name = user?.profile.name ?? user?.profile.preferred_username ?? user?.profile.email ?? user?.profile.sub ?? '';
  return (
    <button type="button" className="button button-quiet" onClick={() => void session.logOut()} title={t.session.user(name)}>
      {t.session.logOut}
    </button>
  );
}
