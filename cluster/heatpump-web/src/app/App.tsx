/** Puts the page together: services, session, queries, live connection, routes. */
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import type { UserManager } from 'oidc-client-ts';
import { Suspense, useEffect, useMemo, useState } from 'react';
import { AuthProvider } from 'react-oidc-context';
import { BrowserRouter, Link, Route, Routes } from 'react-router';
import { forgetDrafts } from '../features/heatpump/draft-store';
import { CALLBACK_PATH, type Session } from '../features/session/oidc';
import { SessionContext } from '../features/session/session-context';
import { SessionGate } from '../features/session/SessionGate';
import { ErrorBoundary } from '../components/ErrorBoundary';
import { useLocale } from '../i18n/language';
import { useMessages } from '../i18n/messages';
import { ApiClient, ApiError } from '../lib/api/client';
import type { Config } from '../lib/config/config';
import { Format } from '../lib/format/format';
import { type Services, ServicesContext } from '../lib/services';
import { LiveBridge } from './live-bridge';
import { PAGES } from './pages';
import { Shell } from './Shell';

interface AppProps {
  readonly config: Config;
  readonly manager: UserManager;
  readonly session: Session;
}

export function App({ config, manager, session }: AppProps) {
  const [api] = useState(() => new ApiClient(config.apiBase, session));
  const locale = useLocale();
  const services = useMemo((): Services => ({ config, api, format: new Format(locale, config.householdTimeZone) }), [config, api, locale]);
  const [client] = useState(createQueryClient);
  // What one person saw must not be there for the next.
  useEffect(
    () =>
      manager.events.addUserUnloaded(() => {
        client.clear();
        forgetDrafts();
      }),
    [manager, client],
  );
  return (
    <ServicesContext value={services}>
      <SessionContext value={session}>
        <AuthProvider userManager={manager} skipSigninCallback={window.location.pathname !== CALLBACK_PATH}>
          <QueryClientProvider client={client}>
            <BrowserRouter>
              <SessionGate>
                <LiveBridge>
                  <Shell>
                    <Routes>
                      {PAGES.map(({ path, Component }) => (
                        <Route
                          key={path}
                          path={path}
                          element={
                            <ErrorBoundary key={path}>
                              <Suspense fallback={<PageLoading />}>
                                <Component />
                              </Suspense>
                            </ErrorBoundary>
                          }
                        />
                      ))}
                      <Route path="*" element={<NotFound />} />
                    </Routes>
                  </Shell>
                </LiveBridge>
              </SessionGate>
            </BrowserRouter>
          </QueryClientProvider>
        </AuthProvider>
      </SessionContext>
    </ServicesContext>
  );
}

function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // Live readings keep queries current; what is asked again on focus is what a sleeping tab may have missed.
        staleTime: 30_000,
        retry: (failures, error) => failures < 2 && error instanceof ApiError && error.transient,
        retryDelay: (failures) => 500 * 2 ** failures,
        // A house's own network may be up while the internet is not: the browser's idea of "offline" is not the house's.
        networkMode: 'always',
      },
    },
  });
}

/** The moment between two pages. Its height keeps what is below from jumping up and down again. */
function PageLoading() {
  const t = useMessages();
  return <div className="page-loading" role="status" aria-label={t.loading} />;
}

function NotFound() {
  const t = useMessages();
  return (
    <div className="empty not-found">
      <h1>{t.notFound.title}</h1>
      <Link to="/">{t.notFound.home}</Link>
    </div>
  );
}
