/** What is around every page: the mark, the state of the live connection, the way to the other pages, settings and account. */
import { type ReactNode, useEffect, useRef } from 'react';
import { useLocation } from 'react-router';
import { AppNotices } from '../components/AppNotices';
import { HouseMark } from '../components/HouseMark';
import { SessionEndedNotice } from '../features/session/SessionGate';
import { useMessages } from '../i18n/messages';
import { ageOf } from '../lib/format/format';
import { useLiveState } from '../lib/live/state';
import { useNow } from '../lib/time/ticker';
import { Menu } from './Menu';
import { Navigation } from './Navigation';
import './shell.css';

export function Shell({ children }: { readonly children: ReactNode }) {
  const t = useMessages();
  const content = useFocusOnNavigation();
  return (
    <div className="shell">
      <a className="skip" href="#content">
        {t.skip}
      </a>
      <header className="bar">
        <p className="bar-brand">
          <HouseMark />
          <span className="bar-name">{t.product}</span>
        </p>
        <LiveStatus />
        <Menu />
      </header>
      <Navigation />
      <div className="shell-page">
        <AppNotices />
        <SessionEndedNotice />
        <main id="content" tabIndex={-1} ref={content}>
          {children}
        </main>
      </div>
    </div>
  );
}

/** A new page begins at its top, for the eye and for the keyboard; the first one is where the browser put it. */
function useFocusOnNavigation() {
  const content = useRef<HTMLElement>(null);
  const { pathname } = useLocation();
  const shown = useRef(pathname);
  useEffect(() => {
    if (shown.current === pathname) return;
    shown.current = pathname;
    content.current?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }, [pathname]);
  return content;
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
