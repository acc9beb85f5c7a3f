import { ErrorResponse, InMemoryWebStorage, User, UserManager, WebStorageStateStore } from 'oidc-client-ts';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { returnPath, Session } from './oidc';
import type { Tabs } from './tabs';

function user(token: string, expiresInSeconds: number, refreshToken?: string): User {
  return new User({
    access_token: token,
    token_type: 'Bearer',
    scope: 'openid read:energy',
    expires_at: Math.floor(Date.now() / 1000) + expiresInSeconds,
    ...(refreshToken !== undefined && { refresh_token: refreshToken }),
    profile: { sub: 'demo', iss: 'https://id.example.org', aud: 'heatpump-web', exp: 0, iat: 0 },
  });
}

/** No other tab, unless one is given that answers with this session. */
function tabs(others: User | null = null) {
  return {
    listen: vi.fn<Tabs['listen']>(),
    ask: vi.fn<Tabs['ask']>().mockResolvedValue(others),
    tell: vi.fn<Tabs['tell']>(),
    ended: vi.fn(),
    alone: <T>(work: () => Promise<T>) => work(),
  };
}

/** The real manager with its real events; only the ways to the issuer and to other tabs are replaced. */
function setUp(first: User | null, others: User | null = null) {
  const store = new WebStorageStateStore({ store: new InMemoryWebStorage() });
  const settings = { authority: 'https://id.example.org', client_id: 'heatpump-web', redirect_uri: 'https://home/callback' };
  const manager = new UserManager({ ...settings, userStore: store, stateStore: store, automaticSilentRenew: false });
  const silent = vi.spyOn(manager, 'signinSilent');
  const beside = tabs(others);
  const session = new Session(manager, first, beside);
  const tokens: string[] = [];
  session.subscribeToken((token) => tokens.push(token));
  /** The issuer answers the next renewal with a new token. */
  const grant = (token: string) =>
    silent.mockImplementationOnce(async () => {
      const renewed = user(token, 600, 'refresh');
      await manager.events.load(renewed);
      return renewed;
    });
  return { session, silent, tokens, grant, beside, manager };
}

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-01-01T08:00:00Z') });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('Session', () => {
  it('gives out a token only while it is valid', () => {
    expect(setUp(user('a', 600)).session.token()).toBe('a');
    expect(setUp(user('a', -1)).session.token()).toBeNull();
    expect(setUp(null).session.token()).toBeNull();
  });

  it('renews once for everybody who asks at the same time, and tells of the new token', async () => {
    const { session, silent, tokens, grant } = setUp(user('old', -1, 'refresh'));
    grant('new');
    expect(await Promise.all([session.renew(), session.renew(), session.renew()])).toEqual([true, true, true]);
    expect(silent).toHaveBeenCalledOnce();
    expect(session.token()).toBe('new');
    expect(tokens).toEqual(['new']);
    expect(session.ended()).toBe(false);
  });

  it('has ended when the issuer refuses, asks it no more, and begins again with a new user', async () => {
    const { session, silent, manager } = setUp(user('old', 20, 'refresh'));
    const changes = vi.fn();
    session.subscribeState(changes);
    silent.mockRejectedValueOnce(new ErrorResponse({ error: 'invalid_grant' }));
    expect(await session.renew()).toBe(false);
    expect(session.ended()).toBe(true);
    // It has some seconds left, in which nothing may be sent behind the person's back.
    expect(session.token()).toBeNull();
    expect(await session.renew()).toBe(false);
    expect(silent).toHaveBeenCalledOnce();
    await manager.events.load(user('new', 600, 'refresh'));
    expect(session.ended()).toBe(false);
    expect(session.token()).toBe('new');
    expect(changes).toHaveBeenCalledTimes(2);
  });

  it.each([
    ['cannot be reached', new TypeError('fetch failed')],
    ['has a trouble of its own', new ErrorResponse({ error: 'temporarily_unavailable' })],
  ])('goes on trying while the issuer %s', async (_, trouble) => {
    const { session, silent, grant } = setUp(user('old', 30, 'refresh'));
    silent.mockRejectedValueOnce(trouble);
    expect(await session.renew()).toBe(false);
    expect(session.ended()).toBe(false);
    expect(session.token()).toBe('old');
    grant('new');
    await vi.advanceTimersByTimeAsync(15_000);
    expect(session.token()).toBe('new');
  });

  it('takes over what another tab has renewed, instead of using up the refresh token a second time', async () => {
    const { session, silent, tokens } = setUp(user('old', 30, 'refresh'), user('renewed elsewhere', 600, 'refresh 2'));
    expect(await session.renew()).toBe(true);
    expect(session.token()).toBe('renewed elsewhere');
    expect(tokens).toEqual(['renewed elsewhere']);
    expect(silent).not.toHaveBeenCalled();
  });

  it('tells other tabs of its renewal at once, and takes theirs over as it comes', async () => {
    const { session, beside, grant, silent } = setUp(user('old', 30, 'refresh'));
    grant('new');
    expect(await session.renew()).toBe(true);
    expect(beside.tell.mock.calls.map(([told]) => told.access_token)).toEqual(['new']);
    beside.listen.mock.calls[0]?.[0].onOthers(user('renewed elsewhere', 900, 'refresh 3'));
    await vi.advanceTimersByTimeAsync(0);
    expect(session.token()).toBe('renewed elsewhere');
    expect(silent).toHaveBeenCalledOnce();
    expect(beside.tell).toHaveBeenCalledOnce();
  });

  it('is not over when a tab that was slow to say so has used the refresh token', async () => {
    const { session, silent, beside } = setUp(user('old', 30, 'refresh'));
    beside.ask.mockImplementation((patiently) => Promise.resolve(patiently === true ? user('slow', 600, 'refresh 2') : null));
    silent.mockRejectedValueOnce(new ErrorResponse({ error: 'invalid_grant' }));
    expect(await session.renew()).toBe(true);
    expect(session.token()).toBe('slow');
    expect(session.ended()).toBe(false);
  });

  it('stays logged out when somebody logs out in another tab while the issuer answers', async () => {
    const { session, silent, beside, manager } = setUp(user('old', 30, 'refresh'));
    silent.mockImplementationOnce(async () => {
      beside.listen.mock.calls[0]?.[0].onEnded();
      const renewed = user('too late', 600, 'refresh');
      await manager.events.load(renewed);
      return renewed;
    });
    expect(await session.renew()).toBe(false);
    expect(session.token()).toBeNull();
    expect(beside.tell).not.toHaveBeenCalled();
  });

  it('renews by itself where the other tab has nothing newer, or is somebody else', async () => {
    const older = setUp(user('old', 30, 'refresh'), user('older', 20, 'refresh'));
    older.grant('new');
    expect(await older.session.renew()).toBe(true);
    expect(older.session.token()).toBe('new');
    const another = user('of another', 600, 'refresh');
    another.profile.sub = 'guest';
    const guest = setUp(user('old', 30, 'refresh'), another);
    guest.grant('own');
    expect(await guest.session.renew()).toBe(true);
    expect(guest.session.token()).toBe('own');
  });

  it('tells other tabs of a log-out, and goes with theirs', async () => {
    const { session, beside, manager } = setUp(user('a', 600, 'refresh'));
    vi.spyOn(manager, 'revokeTokens').mockResolvedValue();
    vi.spyOn(manager, 'signoutRedirect').mockResolvedValue();
    await session.logOut();
    expect(beside.ended).toHaveBeenCalledOnce();
    const events = beside.listen.mock.calls[0]?.[0];
    expect(events?.current()?.access_token).toBe('a');
    events?.onEnded();
    await vi.waitFor(() => {
      expect(session.token()).toBeNull();
    });
    expect(events?.current()).toBeNull();
  });

  it('is on the way out until the issuer has the page, and no longer where the issuer offers no log-out', async () => {
    const { session, manager } = setUp(user('a', 600, 'refresh'));
    vi.spyOn(manager, 'revokeTokens').mockResolvedValue();
    const seen: boolean[] = [];
    session.subscribeState(() => seen.push(session.loggingOut()));
    const leave = vi.spyOn(manager, 'signoutRedirect').mockResolvedValue();
    await session.logOut();
    expect(seen).toEqual([true]);
    leave.mockRejectedValue(new Error('no end_session_endpoint'));
    await session.logOut();
    expect(seen).toEqual([true, true, false]);
    expect(session.token()).toBeNull();
  });

  it('takes part in the session of a tab that answered late, unless it has one of another person or a newer one', async () => {
    const { session, beside } = setUp(null);
    const late = async (of: User) => {
      beside.listen.mock.calls[0]?.[0].onOthers(of);
      await vi.advanceTimersByTimeAsync(0);
    };
    await late(user('theirs', 600, 'refresh'));
    expect(session.token()).toBe('theirs');
    const guest = user('of a guest', 900, 'refresh');
    guest.profile.sub = 'guest';
    await late(guest);
    await late(user('older', 300, 'refresh'));
    expect(session.token()).toBe('theirs');
  });

  it('without a refresh token it lasts until the token ends, and never asks the issuer', async () => {
    const { session, silent } = setUp(user('only', 30));
    expect(await session.renew()).toBe(false);
    expect(session.ended()).toBe(false);
    await vi.advanceTimersByTimeAsync(31_000);
    expect(await session.renew()).toBe(false);
    expect(session.ended()).toBe(true);
    expect(silent).not.toHaveBeenCalled();
  });
});

it.each([
  [{ returnTo: '/energy?range=week' }, '/energy?range=week'],
  [{ returnTo: '/' }, '/'],
  [{ returnTo: '//evil.example' }, '/'],
  [{ returnTo: '/\\evil.example' }, '/'],
  [{ returnTo: 'https://evil.example' }, '/'],
  [{ returnTo: '/callback?code=1' }, '/'],
  [{ returnTo: 7 }, '/'],
  [{}, '/'],
  [null, '/'],
  ['/energy', '/'],
])('after logging in %j leads to %s', (state, path) => {
  expect(returnPath(state)).toBe(path);
});
