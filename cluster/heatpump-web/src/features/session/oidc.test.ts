import { ErrorResponse, InMemoryWebStorage, User, UserManager, WebStorageStateStore } from 'oidc-client-ts';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { returnPath, Session } from './oidc';

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

/** The real manager with its real events; only the way to the issuer is replaced. */
function setUp(first: User | null) {
  const store = new WebStorageStateStore({ store: new InMemoryWebStorage() });
  const settings = { authority: 'https://id.example.org', client_id: 'heatpump-web', redirect_uri: 'https://home/callback' };
  const manager = new UserManager({ ...settings, userStore: store, stateStore: store, automaticSilentRenew: false });
  const silent = vi.spyOn(manager, 'signinSilent');
  const session = new Session(manager, first);
  const tokens: string[] = [];
  session.subscribeToken((token) => tokens.push(token));
  /** The issuer answers the next renewal with a new token. */
  const grant = (token: string) =>
    silent.mockImplementationOnce(async () => {
      const renewed = user(token, 600, 'refresh');
      await manager.events.load(renewed);
      return renewed;
    });
  return { session, silent, tokens, grant };
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

  it('has ended when the issuer refuses, and begins again with a new user', async () => {
    const { session, silent, grant } = setUp(user('old', -1, 'refresh'));
    const changes = vi.fn();
    session.subscribeEnded(changes);
    silent.mockRejectedValueOnce(new ErrorResponse({ error: 'invalid_grant' }));
    expect(await session.renew()).toBe(false);
    expect(session.ended()).toBe(true);
    grant('new');
    expect(await session.renew()).toBe(true);
    expect(session.ended()).toBe(false);
    expect(changes).toHaveBeenCalledTimes(2);
  });

  it('goes on trying while the issuer cannot be reached', async () => {
    const { session, silent, grant } = setUp(user('old', 30, 'refresh'));
    silent.mockRejectedValueOnce(new TypeError('fetch failed'));
    expect(await session.renew()).toBe(false);
    expect(session.ended()).toBe(false);
    expect(session.token()).toBe('old');
    grant('new');
    await vi.advanceTimersByTimeAsync(15_000);
    expect(session.token()).toBe('new');
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
