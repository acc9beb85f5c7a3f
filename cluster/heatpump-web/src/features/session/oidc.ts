/**
 * The OpenID Connect client: authorization code with PKCE, tokens in this tab's session storage and nowhere else. Never uses an iframe:
 * renewal is by refresh token, and where the issuer gives none the person logs in again.
 */
import { ErrorResponse, type User, UserManager, WebStorageStateStore } from 'oidc-client-ts';
import type { TokenSource } from '../../lib/api/client';
import type { Config } from '../../lib/config/config';
import { SECOND } from '../../lib/time/zone';
import type { Tabs } from './tabs';

export const CALLBACK_PATH = '/callback';

/** Renewal starts this long before a token ends: time for a slow issuer and a retry. Of a short token it is the last third. */
const RENEW_BEFORE_SECONDS = 60;
/** After a renewal that failed for want of a network. */
const RENEW_RETRY_MS = 15 * SECOND;
/** What an issuer says of itself, not of the session (RFC 6749, 4.1.2.1). Like a network that fails it passes. */
const PASSING_ERRORS: readonly string[] = ['temporarily_unavailable', 'server_error'];
/** A longer timer would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** Revoking is a courtesy to the issuer; logging out does not wait for it longer than this. */
const REVOKE_TIMEOUT_MS = 2 * SECOND;

export function createUserManager(config: Config): UserManager {
  const { origin } = window.location;
  const store = new WebStorageStateStore({ store: window.sessionStorage });
  return new UserManager({
    authority: config.issuer,
    client_id: config.clientId,
    scope: config.scope,
    ...(config.resource !== null && { resource: config.resource }),
    redirect_uri: `${origin}${CALLBACK_PATH}`,
    post_logout_redirect_uri: `${origin}/`,
    response_type: 'code',
    userStore: store,
    stateStore: store,
    automaticSilentRenew: false,
    // What the page shows of a person is in the ID token.
    loadUserInfo: false,
    monitorSession: false,
    requestTimeoutInSeconds: 10,
  });
}

/** What a session needs of the other tabs. */
type OtherTabs = Pick<Tabs, 'listen' | 'ask' | 'tell' | 'ended' | 'alone'>;

/** The session's tokens, for the API client and the live connection. One renewal at a time, whoever asks. */
export class Session implements TokenSource {
  readonly #manager: UserManager;
  readonly #tabs: OtherTabs;
  #user: User | null;
  #renewal: Promise<boolean> | null = null;
  #retry: ReturnType<typeof setTimeout> | null = null;
  #ended = false;
  #loggingOut = false;
  /** In other tabs, so far. */
  #logOuts = 0;
  readonly #stateListeners = new Set<() => void>();
  readonly #tokenListeners = new Set<(token: string) => void>();

  constructor(manager: UserManager, user: User | null, tabs: OtherTabs) {
    this.#manager = manager;
    this.#user = user;
    this.#tabs = tabs;
    tabs.listen({
      current: () => (this.token() === null ? null : this.#user),
      onOthers: (others) => {
        // A page that asked when it was opened, and where nobody has logged in meanwhile, takes part in the session after all.
        if (this.#user === null || isRenewalOf(others, this.#user)) void this.#take(others);
      },
      onEnded: () => {
        this.#logOuts += 1;
        void manager.removeUser();
      },
    });
    this.#scheduleRenewal();
    manager.events.addUserLoaded((loaded) => {
      this.#user = loaded;
      this.#scheduleRenewal();
      this.#setEnded(false);
      for (const listener of this.#tokenListeners) listener(loaded.access_token);
    });
    manager.events.addUserUnloaded(() => {
      this.#user = null;
      if (this.#retry !== null) clearTimeout(this.#retry);
    });
    manager.events.addAccessTokenExpired(() => void this.renew());
  }

  /** The access token. None once the session has ended, though services would still take the last one: what the person is told is true at once. */
  readonly token = (): string | null => {
    return this.#user === null || this.#user.expired === true || this.#ended ? null : this.#user.access_token;
  };

  /** Scopes that were granted, which may be fewer than were asked for. */
  scopes(): readonly string[] {
    return this.#user?.scopes ?? [];
  }

  renew(): Promise<boolean> {
    this.#renewal ??= this.#renew().finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  /** Whether the session is over and only the person can begin a new one. */
  readonly ended = (): boolean => this.#ended;

  /** Whether the person is on the way out: the tokens are gone, the issuer's page is not there yet. */
  readonly loggingOut = (): boolean => this.#loggingOut;

  /** Called when `ended` or `loggingOut` changes. */
  readonly subscribeState = (listener: () => void): (() => void) => {
    this.#stateListeners.add(listener);
    return () => this.#stateListeners.delete(listener);
  };

  /** Called with every new access token. */
  readonly subscribeToken = (listener: (token: string) => void): (() => void) => {
    this.#tokenListeners.add(listener);
    return () => this.#tokenListeners.delete(listener);
  };

  async logIn(returnTo: string): Promise<void> {
    await this.#manager.signinRedirect({ state: { returnTo } });
  }

  /** Ends the session in every tab and at the issuer; where the issuer offers no log-out, here only. */
  async logOut(): Promise<void> {
    this.#setLoggingOut(true);
    this.#tabs.ended();
    await Promise.race([
      this.#manager.revokeTokens(['refresh_token']).catch(() => undefined),
      new Promise((resolve) => setTimeout(resolve, REVOKE_TIMEOUT_MS)),
    ]);
    try {
      await this.#manager.signoutRedirect();
    } catch {
      await this.#manager.removeUser();
      this.#setLoggingOut(false);
    }
  }

  async #renew(): Promise<boolean> {
    const user = this.#user;
    if (user?.refresh_token === undefined) {
      // Without a refresh token there is nothing to do before the end.
      if (user === null || user.expired === true) this.#setEnded(true);
      return false;
    }
    if (this.#retry !== null) clearTimeout(this.#retry);
    return this.#tabs.alone(async () => {
      // A refresh token serves once: where another tab has used it, what it got is taken over. It may have come while this one waited.
      if (this.#user !== null && isRenewalOf(this.#user, user)) return true;
      if (await this.#takeFromOthers(user)) return true;
      // What the issuer refused once it refuses again.
      return this.#ended ? false : this.#renewAtIssuer(user);
    });
  }

  async #takeFromOthers(user: User, patiently = false): Promise<boolean> {
    const others = await this.#tabs.ask(patiently);
    if (others === null || !isRenewalOf(others, user)) return false;
    await this.#take(others);
    return true;
  }

  /** Goes on with what another tab has. */
  async #take(others: User): Promise<void> {
    await this.#manager.storeUser(others);
    await this.#manager.events.load(others);
  }

  async #renewAtIssuer(user: User): Promise<boolean> {
    const logOuts = this.#logOuts;
    try {
      const renewed = await this.#manager.signinSilent();
      if (renewed === null) return false;
      if (this.#logOuts !== logOuts) {
        // Somebody logged out while the issuer answered.
        await this.#manager.removeUser();
        return false;
      }
      this.#tabs.tell(renewed);
      return true;
    } catch (error) {
      if (!(error instanceof ErrorResponse) || PASSING_ERRORS.includes(error.error ?? '')) {
        this.#retry = setTimeout(() => void this.renew(), RENEW_RETRY_MS);
        return false;
      }
      // The issuer's refusal is final, unless a tab that was slow to say so has used the refresh token.
      if (await this.#takeFromOthers(user, true)) return true;
      this.#setEnded(true);
      return false;
    }
  }

  #scheduleRenewal(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    const left = this.#user?.expires_in;
    // One that is over is renewed by whoever needs it.
    if (left === undefined || left <= 0) return;
    const wait = left - Math.min(RENEW_BEFORE_SECONDS, left / 3);
    this.#retry = setTimeout(() => void this.renew(), Math.min(wait * SECOND, LONGEST_TIMER_MS));
  }

  #setEnded(ended: boolean): void {
    if (this.#ended === ended) return;
    this.#ended = ended;
    this.#tellState();
  }

  #setLoggingOut(loggingOut: boolean): void {
    this.#loggingOut = loggingOut;
    this.#tellState();
  }

  #tellState(): void {
    for (const listener of this.#stateListeners) listener();
  }
}

/** Whether `newer` is of the same person and ends later. */
function isRenewalOf(newer: User, user: User): boolean {
  return newer.profile.sub === user.profile.sub && (newer.expires_at ?? 0) > (user.expires_at ?? 0);
}

/** Where to go after logging in: a path of this page, whatever the stored state holds. */
export function returnPath(state: unknown): string {
  const path: unknown = typeof state === 'object' && state !== null && 'returnTo' in state ? state.returnTo : null;
  // A second slash or a backslash would name another host.
  return typeof path === 'string' && /^\/(?![/\\])/.test(path) && !path.startsWith(CALLBACK_PATH) ? path : '/';
}
