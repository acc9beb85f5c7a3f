/**
 * GET requests to homelab-api and homelab-settings-api: token, time-out, problem+json. Knows no endpoint. A token is put in the
 * Authorization header only, never in an address, a log or a message.
 */
import { isObject, type JsonObject, numberOf, stringOf } from '../json';
import { observeServerDate } from '../time/server-clock';

/** Where the client takes its tokens from; the session implements it. */
export interface TokenSource {
  /** The current access token, or null when there is none that is still valid. */
  token(): string | null;
  /** Gets a fresh token; false when that needs the person. */
  renew(): Promise<boolean>;
}

export interface Answer<T> {
  readonly data: T;
  /** When the server made the answer, milliseconds since the epoch. */
  readonly servedAt: number;
}

export type ParameterValue = string | number | undefined;

/** A failed request, with what the server said about it. */
export class ApiError extends Error {
  override name = 'ApiError';
  /** HTTP status; 0 when there was no answer at all. */
  readonly status: number;
  readonly title: string;
  readonly detail: string;

  constructor(status: number, title: string, detail: string) {
    super(detail === '' ? title : `${title}: ${detail}`);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }

  /** Whether the same request may succeed later without a change. */
  get transient(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** Longer than any range the API allows should take on the Pi; after that a retry is the better offer. */
const REQUEST_TIMEOUT_MS = 20_000;

export class ApiClient {
  readonly #base: string;
  readonly #tokens: TokenSource;

  constructor(base: string, tokens: TokenSource) {
    this.#base = base;
    this.#tokens = tokens;
  }

  /** `isAnswer` guards the shape: what is not the endpoint's document is an error here, not a crash in a component. */
  async get<T>(
    path: string,
    parameters: Readonly<Record<string, ParameterValue>>,
    isAnswer: (body: unknown) => body is T,
    signal: AbortSignal,
  ): Promise<Answer<T>> {
    const address = `${this.#base}${path}${queryOf(parameters)}`;
    let response = await this.#send(address, signal);
    // Once only: a second 401 with a fresh token is an answer, not an accident.
    if (response.status === 401 && (await this.#tokens.renew())) response = await this.#send(address, signal);
    const servedAt = observeServerDate(response.headers.get('date'));
    const body = await bodyOf(response);
    if (!response.ok) throw problemOf(response, body);
    if (!isAnswer(body)) throw new ApiError(response.status, 'Unexpected answer', `${path} did not answer with the document it should`);
    return { data: body, servedAt };
  }

  async #send(address: string, signal: AbortSignal): Promise<Response> {
    let token = this.#tokens.token();
    if (token === null && (await this.#tokens.renew())) token = this.#tokens.token();
    if (token === null) throw new ApiError(401, 'Logged out', 'the session has ended');
    const headers = { accept: 'application/json', authorization: `Bearer ${token}` };
    try {
      return await fetch(address, { headers, signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]) });
    } catch (error) {
      // A query that was cancelled must reach the query cache as what it is.
      if (signal.aborted) throw error;
      const late = error instanceof DOMException && error.name === 'TimeoutError';
      throw new ApiError(0, late ? 'No answer in time' : 'No connection', late ? 'the server took too long to answer' : 'the server could not be reached');
    }
  }
}

/** The guard most endpoints need: a document with a list under `items`. What is in the list is the contract's matter. */
export function hasItems(body: unknown): body is JsonObject & { readonly items: readonly unknown[] } {
  return isObject(body) && Array.isArray(body['items']);
}

function queryOf(parameters: Readonly<Record<string, ParameterValue>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) query.set(name, String(value));
  }
  return query.size === 0 ? '' : `?${query.toString()}`;
}

async function bodyOf(response: Response): Promise<unknown> {
  if (!/\bjson\b/.test(response.headers.get('content-type') ?? '')) return undefined;
  try {
    return await response.json();
  } catch {
    return undefined;
  }
}

function problemOf(response: Response, body: unknown): ApiError {
  const problem = isObject(body) ? body : {};
  const status = numberOf(problem['status']) ?? response.status;
  const title = stringOf(problem['title']) ?? `Error ${status}`;
  return new ApiError(status, title, stringOf(problem['detail']) ?? '');
}
