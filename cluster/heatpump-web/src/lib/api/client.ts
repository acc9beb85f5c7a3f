/**
 * Requests to homelab-api and homelab-settings-api: token, time-out, problem+json. Paths, parameters, bodies and answers are typed by the
 * services' OpenAPI documents; no endpoint is named here. A token is put in the Authorization header only, never in an address, a log or
 * a message.
 */
import type { PathsWithMethod, RequestBodyJSON, SuccessResponseJSON } from 'openapi-typescript-helpers';
import type { FieldError, Paths } from '../../api/types';
import { isObject, numberOf, stringOf } from '../json';
import { madeAt, observeServerDate } from '../time/server-clock';

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
  /** For If-Match; null where the endpoint gives none. */
  readonly etag: string | null;
}

export type ReadPath = PathsWithMethod<Paths, 'get'>;

/** Path and query parameters of an operation, each only where the operation has it. */
type Parameters<O> = O extends { parameters: infer P }
  ? (P extends { path: infer Path extends object } ? { readonly path: Path } : { readonly path?: never }) & {
      readonly query?: P extends { query?: infer Query } ? { readonly [K in keyof NonNullable<Query>]?: NonNullable<Query>[K] | undefined } : never;
    }
  : never;

export type ReadParameters<P extends ReadPath> = Parameters<Paths[P]['get']>;

type Success<O> = O extends Record<string | number, unknown> ? SuccessResponseJSON<O> : undefined;

type WriteMethod = 'patch' | 'post' | 'delete';
type WritePath<M extends WriteMethod> = PathsWithMethod<Paths, M>;
type Operation<M extends WriteMethod, P extends WritePath<M>> = NonNullable<Paths[P][M]>;
type Body<O> = [RequestBodyJSON<O>] extends [never] ? { readonly body?: never } : { readonly body: RequestBodyJSON<O> };
type Write<M extends WriteMethod, P extends WritePath<M>> = Parameters<Operation<M, P>> & Body<Operation<M, P>> & WriteOptions;

interface WriteOptions {
  /** Names this wish of the person: sent again after a lost answer it is the same wish, not a second one. */
  readonly idempotencyKey?: string;
  /** The ETag the change is based on; refused with 412 when it is no longer true. */
  readonly ifMatch?: string | null;
  /** A change is not cancelled by leaving the view: without a signal it goes on. */
  readonly signal?: AbortSignal;
}

/** A failed request, with what the server said about it. */
export class ApiError extends Error {
  override name = 'ApiError';
  /** HTTP status; 0 when there was no answer at all. */
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** Fields at fault, where single fields are. */
  readonly fields: readonly FieldError[];

  constructor(status: number, title: string, detail: string, fields: readonly FieldError[] = []) {
    super(detail === '' ? title : `${title}: ${detail}`);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.fields = fields;
  }

  /** Whether the same request may succeed later without a change. */
  get transient(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** The API's word for an answer about the past, which the browser may give again for an hour. */
const MAY_BE_OLD = /max-age=[1-9]/;

/** Longer than any range the API allows should take on the Pi; after that a retry is the better offer. */
const REQUEST_TIMEOUT_MS = 20_000;

interface Sent {
  readonly method: string;
  readonly address: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal | undefined;
}

export class ApiClient {
  readonly #base: string;
  readonly #tokens: TokenSource;

  constructor(base: string, tokens: TokenSource) {
    this.#base = base;
    this.#tokens = tokens;
  }

  /** `isAnswer` looks at the shape: what is not the endpoint's document is an error here, not a crash in a component. */
  async get<P extends ReadPath>(
    path: P,
    parameters: ReadParameters<P>,
    isAnswer: (body: unknown) => boolean,
    signal: AbortSignal,
  ): Promise<Answer<Success<Paths[P]['get']>>> {
    const address = this.#address(path, parameters);
    const { response, servedAt } = await this.#ask({ method: 'GET', address, headers: { accept: 'application/json' }, signal });
    const body = await bodyOf(response);
    if (!isAnswer(body)) throw new ApiError(response.status, 'Unexpected answer', `${path} did not answer with the document it should`);
    return { data: body as Success<Paths[P]['get']>, servedAt, etag: response.headers.get('etag') };
  }

  /** The same as a file of comma-separated values, where the endpoint has one. */
  async csv<P extends ReadPath>(path: P, parameters: ReadParameters<P>): Promise<Blob> {
    const address = this.#address(path, parameters);
    const { response } = await this.#ask({ method: 'GET', address, headers: { accept: 'text/csv' }, signal: undefined });
    if (!(response.headers.get('content-type') ?? '').startsWith('text/csv')) {
      throw new ApiError(response.status, 'Unexpected answer', `${path} did not answer with CSV`);
    }
    return response.blob();
  }

  /** A change. Its answer is undefined where the endpoint answers without a document. */
  async send<M extends WriteMethod, P extends WritePath<M>>(method: M, path: P, write: Write<M, P>): Promise<Answer<Success<Operation<M, P>>>> {
    const { body, idempotencyKey, ifMatch, signal }: WriteOptions & { readonly body?: unknown } = write;
    const headers = {
      accept: 'application/json',
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
      ...(ifMatch !== undefined && ifMatch !== null && { 'if-match': ifMatch }),
    };
    const { response, servedAt } = await this.#ask({
      method: method.toUpperCase(),
      address: this.#address(path, write),
      headers,
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal,
    });
    return { data: (await bodyOf(response)) as Success<Operation<M, P>>, servedAt, etag: response.headers.get('etag') };
  }

  /** Throws ApiError for every answer that is not a success. */
  async #ask(sent: Sent): Promise<{ response: Response; servedAt: number }> {
    let response = await this.#fetch(sent);
    // Once only: a second 401 with a fresh token is an answer, not an accident.
    if (response.status === 401 && (await this.#tokens.renew())) response = await this.#fetch(sent);
    const date = response.headers.get('date');
    // One that may have lain in the browser's cache tells when it was made, and nothing of the time now.
    const servedAt = MAY_BE_OLD.test(response.headers.get('cache-control') ?? '') ? madeAt(date) : observeServerDate(date);
    if (!response.ok) throw problemOf(response, await bodyOf(response));
    return { response, servedAt };
  }

  async #fetch({ method, address, headers, body, signal }: Sent): Promise<Response> {
    let token = this.#tokens.token();
    if (token === null && (await this.#tokens.renew())) token = this.#tokens.token();
    if (token === null) throw new ApiError(401, 'Logged out', 'the session has ended');
    const late = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    try {
      return await fetch(address, {
        method,
        headers: { ...headers, authorization: `Bearer ${token}` },
        ...(body !== undefined && { body }),
        signal: signal === undefined ? late : AbortSignal.any([signal, late]),
      });
    } catch (error) {
      // A query that was cancelled must reach the query cache as what it is.
      if (signal?.aborted === true) throw error;
      const slow = error instanceof DOMException && error.name === 'TimeoutError';
      throw new ApiError(0, slow ? 'No answer in time' : 'No connection', slow ? 'the server took too long to answer' : 'the server could not be reached');
    }
  }

  #address(path: string, parameters: { readonly path?: unknown; readonly query?: unknown }): string {
    const values = isObject(parameters.path) ? parameters.path : {};
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(values[name])));
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters.query ?? {})) {
      if (typeof value === 'string' || typeof value === 'number') query.set(name, String(value));
    }
    return `${this.#base}${filled}${query.size === 0 ? '' : `?${query.toString()}`}`;
  }
}

/** The guard most endpoints need: a document with a list under `items`. What is in the list is the contract's matter. */
export function hasItems(body: unknown): boolean {
  return isObject(body) && Array.isArray(body['items']);
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
  const errors: readonly unknown[] = Array.isArray(problem['errors']) ? problem['errors'] : [];
  const fields = errors.flatMap((error): FieldError[] => {
    if (!isObject(error)) return [];
    const field = stringOf(error['field']);
    return field === null ? [] : [{ field, detail: stringOf(error['detail']) ?? title }];
  });
  return new ApiError(status, title, stringOf(problem['detail']) ?? '', fields);
}
