/** What every feature needs and app makes once: configuration, API client, formats. Reached through context, so that tests can replace it. */
import { createContext, use } from 'react';
import type { ApiClient } from './api/client';
import type { Config } from './config/config';
import type { Format } from './format/format';

export interface Services {
  readonly config: Config;
  readonly api: ApiClient;
  readonly format: Format;
}

export const ServicesContext = createContext<Services | null>(null);

export function useServices(): Services {
  const services = use(ServicesContext);
  if (services === null) throw new Error('useServices is used outside ServicesContext');
  return services;
}
