import { expect, it } from 'vitest';
import { returnPath } from './oidc';

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
