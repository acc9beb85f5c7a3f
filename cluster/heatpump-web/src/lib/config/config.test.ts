import { describe, expect, it } from 'vitest';
import { ConfigError, parseConfig } from './config';

const GOOD = {
  issuer: 'https://id.example.org/',
  client_id: 'heatpump-web',
  scope: 'openid read:energy',
  household_time_zone: 'Europe/Stockholm',
  api_base: '',
  ws_url: '',
};
const ORIGIN = 'https://home.example.org';

describe('parseConfig', () => {
  it('takes the page itself for what is empty', () => {
    expect(parseConfig(GOOD, ORIGIN)).toEqual({
      issuer: 'https://id.example.org/',
      clientId: 'heatpump-web',
      scope: 'openid read:energy',
      resource: null,
      householdTimeZone: 'Europe/Stockholm',
      apiBase: '',
      wsUrl: 'wss://home.example.org/ws/energy',
    });
    expect(parseConfig(GOOD, 'http://127.0.0.1:5000').wsUrl).toBe('ws://127.0.0.1:5000/ws/energy');
  });

  it('takes addresses elsewhere, fields that may be left out, and fields it does not know', () => {
    const config = parseConfig({ ...GOOD, api_base: 'https://api.example.org//', ws_url: 'wss://api.example.org/live', resource: 'urn:homelab', later: 1 }, ORIGIN);
    expect(config).toMatchObject({ apiBase: 'https://api.example.org', wsUrl: 'wss://api.example.org/live', resource: 'urn:homelab' });
    expect(parseConfig({ ...GOOD, api_base: undefined, ws_url: null }, ORIGIN)).toEqual(parseConfig(GOOD, ORIGIN));
  });

  it('asks for openid where it was forgotten, once', () => {
    expect(parseConfig({ ...GOOD, scope: 'read:energy  read:plugs' }, ORIGIN).scope).toBe('openid read:energy read:plugs');
    expect(parseConfig(GOOD, ORIGIN).scope).toBe('openid read:energy');
  });

  it.each([
    ['nothing', null, 'must be an object'],
    ['a list', [], 'must be an object'],
    ['no issuer', { ...GOOD, issuer: undefined }, 'issuer'],
    ['an issuer that is a number', { ...GOOD, issuer: 7 }, 'issuer'],
    ['an issuer that is no address', { ...GOOD, issuer: 'id.example.org' }, 'issuer'],
    ['an issuer that is a script', { ...GOOD, issuer: 'javascript:alert(1)' }, 'issuer'],
    ['no client', { ...GOOD, client_id: '  ' }, 'client_id'],
    ['no scope', { ...GOOD, scope: '' }, 'scope'],
    ['a zone nobody knows', { ...GOOD, household_time_zone: 'Europe/Atlantis' }, 'household_time_zone'],
    ['an API base of another kind', { ...GOOD, api_base: 'ftp://example.org' }, 'api_base'],
    ['a WebSocket over http', { ...GOOD, ws_url: 'http://example.org' }, 'ws_url'],
    ['a WebSocket address that is a number', { ...GOOD, ws_url: 1 }, 'ws_url'],
  ])('names what is wrong: %s', (_, value, named) => {
    expect(() => parseConfig(value, ORIGIN)).toThrow(ConfigError);
    expect(() => parseConfig(value, ORIGIN)).toThrow(named);
  });
});
