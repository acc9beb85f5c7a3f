import { afterEach, describe, expect, it, vi } from 'vitest';
import { ApiClient, ApiError, hasItems } from './client';

function json(body: unknown, status = 200, type = 'application/json'): Response {
  return new Response(JSON.stringify(body), { status, headers: { 'content-type': type, date: new Date().toUTCString() } });
}

function setUp(answers: (Response | Error)[], renews = true) {
  const requests: { url: string; authorization: string | undefined }[] = [];
  vi.stubGlobal('fetch', (url: string, init: { headers: Record<string, string> }) => {
    requests.push({ url, authorization: init.headers['authorization'] });
    const answer = answers.shift();
    return answer instanceof Response ? Promise.resolve(answer) : Promise.reject(answer ?? new Error('no more answers'));
  });
  let token: string | null = 'old';
  const renew = vi.fn(() => {
    if (renews) token = 'new';
    return Promise.resolve(renews);
  });
  return { api: new ApiClient('/base', { token: () => token, renew }), requests, renew };
}

const get = (api: ApiClient) => api.get('/api/v1/energy/history', { query: { device_id: 'a b', from: undefined } }, hasItems, new AbortController().signal);

async function failure(promise: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await promise.catch((thrown: unknown) => thrown);
  if (!(error instanceof ApiError)) throw new Error('it did not fail with an ApiError');
  return error;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe('ApiClient', () => {
  it('sends the token in the header and parameters in the query', async () => {
    const { api, requests } = setUp([json({ items: [] })]);
    expect((await get(api)).data).toEqual({ items: [] });
    expect(requests).toEqual([{ url: '/base/api/v1/energy/history?device_id=a+b', authorization: 'Bearer old' }]);
  });

  it('renews once on 401 and asks again', async () => {
    const { api, requests, renew } = setUp([json({}, 401), json({ items: [] })]);
    await get(api);
    expect(renew).toHaveBeenCalledOnce();
    expect(requests.at(-1)?.authorization).toBe('Bearer new');
  });

  it('does not renew a second time', async () => {
    const { api, renew } = setUp([json({}, 401), json({ title: 'Unauthorized' }, 401, 'application/problem+json')]);
    expect(await failure(get(api))).toMatchObject({ status: 401, title: 'Unauthorized' });
    expect(renew).toHaveBeenCalledOnce();
  });

  it('tells what the problem document says', async () => {
    const body = { type: 'about:blank', title: 'Forbidden', status: 403, detail: 'scope read:energy is missing' };
    const { api } = setUp([json(body, 403, 'application/problem+json')]);
    expect(await failure(get(api))).toMatchObject({ status: 403, title: 'Forbidden', detail: 'scope read:energy is missing', transient: false });
  });

  it.each([
    ['an error that is no problem document', new Response('<h1>Bad gateway</h1>', { status: 502 }), { status: 502, transient: true }],
    ['a page instead of the answer', new Response('<!doctype html>', { headers: { 'content-type': 'text/html' } }), { status: 200, title: 'Unexpected answer' }],
    ['JSON that is cut off', new Response('{"items":[', { headers: { 'content-type': 'application/json' } }), { title: 'Unexpected answer' }],
    ['another document', json({ item: 1 }), { title: 'Unexpected answer' }],
    ['no connection', new TypeError('fetch failed'), { status: 0, transient: true }],
    ['no answer in time', new DOMException('late', 'TimeoutError'), { status: 0, title: 'No answer in time' }],
  ])('%s', async (_, answer, expected) => {
    const { api } = setUp([answer]);
    expect(await failure(get(api))).toMatchObject(expected);
  });
});
