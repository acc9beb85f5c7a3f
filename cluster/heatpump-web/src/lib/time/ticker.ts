/**
 * One clock for everything on the page that shows an age. Components re-render once a second at most, all together, and not at all while
 * the page is hidden.
 */
import { useSyncExternalStore } from 'react';
import { serverNow } from './server-clock';
import { localDay, SECOND } from './zone';

const listeners = new Set<() => void>();
let now = serverNow();
let timer: ReturnType<typeof setInterval> | null = null;

function tick(): void {
  now = serverNow();
  for (const listener of listeners) listener();
}

function adjust(): void {
  const wanted = listeners.size > 0 && document.visibilityState === 'visible';
  if (wanted && timer === null) {
    timer = setInterval(tick, SECOND);
    tick();
  } else if (!wanted && timer !== null) {
    clearInterval(timer);
    timer = null;
  }
}

function subscribe(listener: () => void): () => void {
  if (listeners.size === 0) document.addEventListener('visibilitychange', adjust);
  listeners.add(listener);
  adjust();
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) document.removeEventListener('visibilitychange', adjust);
    adjust();
  };
}

/** The present, rounded down to `step` milliseconds: a component re-renders only when the rounded value changes. */
export function useNow(step: number = SECOND): number {
  return useSyncExternalStore(subscribe, () => Math.floor(now / step) * step);
}

/** The household's running day; changes at its midnight. */
export function useToday(zone: string): { start: number; end: number } {
  const minute = useNow(60 * SECOND);
  return localDay(minute, zone);
}
