/**
 * The runtime configuration, `/config.json`: what differs from home to home, so that one image serves all. It is read once and checked
 * completely before anything else starts; a mistake in it is named, never papered over with a default.
 */
import { isObject, type JsonObject, stringOf } from '../json';

export const CONFIG_PATH = '/config.json';

export interface Config {
  /** The OpenID Connect issuer, exactly as its tokens name it. */
  readonly issuer: string;
  readonly clientId: string;
  readonly scope: string;
  /** RFC 8707 resource indicator, for issuers that give JWT access tokens only when asked for one. */
  readonly resource: string | null;
  readonly householdTimeZone: string;
  /** Prefix of every API path without a trailing slash; empty is the page's own origin. */
  readonly apiBase: string;
  /** Absolute ws: or wss: address of energy-ws. */
  readonly wsUrl: string;
}

export class ConfigError extends Error {
  override name = 'ConfigError';
}

/** Enough for a slow phone; a server that takes longer is reported rather than waited for. */
const LOAD_TIMEOUT_MS = 10_000;

export async function loadConfig(): Promise<Config> {
  let response: Response;
  try {
    response = await fetch(CONFIG_PATH, { cache: 'no-cache', signal: AbortSignal.timeout(LOAD_TIMEOUT_MS) });
  } catch {
    throw new ConfigError('config.json could not be fetched: the server does not answer');
  }
  if (!response.ok) throw new ConfigError(`config.json could not be fetched: the server answered ${response.status}`);
  let value: unknown;
  try {
    value = await response.json();
  } catch {
    throw new ConfigError('config.json is not JSON');
  }
  return parseConfig(value, window.location.origin);
}

/** Throws ConfigError naming the field at fault. `origin` is the page's own, for the fields that default to it. */
export function parseConfig(value: unknown, origin: string): Config {
  if (!isObject(value)) throw new ConfigError('config.json must be an object');
  const issuer = required(value, 'issuer');
  checkUrl('issuer', issuer, ['https:', 'http:']);
  const apiBase = optional(value, 'api_base');
  if (apiBase !== '') checkUrl('api_base', apiBase, ['https:', 'http:']);
  const wsUrl = optional(value, 'ws_url');
  if (wsUrl !== '') checkUrl('ws_url', wsUrl, ['wss:', 'ws:']);
  const resource = optional(value, 'resource');
  return {
    issuer,
    clientId: required(value, 'client_id'),
    scope: scopes(required(value, 'scope')),
    resource: resource === '' ? null : resource,
    householdTimeZone: timeZone(required(value, 'household_time_zone')),
    apiBase: apiBase.replace(/\/+$/, ''),
    wsUrl: wsUrl === '' ? `${origin.replace(/^http/, 'ws')}/ws/energy` : wsUrl,
  };
}

function required(value: JsonObject, field: string): string {
  const text = stringOf(value[field])?.trim() ?? '';
  if (text === '') throw new ConfigError(`config.json: ${field} must be a text that is not empty`);
  return text;
}

function optional(value: JsonObject, field: string): string {
  const found = value[field];
  if (found === undefined || found === null) return '';
  const text = stringOf(found);
  if (text === null) throw new ConfigError(`config.json: ${field} must be a text`);
  return text.trim();
}

function checkUrl(field: string, text: string, protocols: readonly string[]): void {
  if (!URL.canParse(text) || !protocols.includes(new URL(text).protocol)) {
    throw new ConfigError(`config.json: ${field} must be an address that starts with ${protocols.join('// or ')}//`);
  }
}

/** Without openid there is no identity, only a token. */
function scopes(text: string): string {
  const wanted = text.split(/\s+/);
  return (wanted.includes('openid') ? wanted : ['openid', ...wanted]).join(' ');
}

function timeZone(name: string): string {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
  } catch {
    throw new ConfigError(`config.json: household_time_zone ${JSON.stringify(name)} is not a known time zone`);
  }
  return name;
}
