/**
 * What somebody typed and has not sent, kept in this tab's session storage: logging in again leaves the page, and must not lose it. Holds no
 * token and nothing of a person.
 */
import { type Draft, draftOf } from './limits';

const PREFIX = 'homelab.draft.';

function keyOf(deviceId: string): string {
  return PREFIX + deviceId;
}

export function storedDraft(deviceId: string): Draft {
  try {
    return draftOf(JSON.parse(sessionStorage.getItem(keyOf(deviceId)) ?? '{}'));
  } catch {
    return {};
  }
}

export function storeDraft(deviceId: string, draft: Draft): void {
  try {
    if (Object.keys(draft).length === 0) sessionStorage.removeItem(keyOf(deviceId));
    else sessionStorage.setItem(keyOf(deviceId), JSON.stringify(draft));
  } catch {
    // Storage is blocked: the draft lives as long as the page.
  }
}

/** Whoever logs out leaves nothing for the next. */
export function forgetDrafts(): void {
  try {
    for (const key of Object.keys(sessionStorage).filter((name) => name.startsWith(PREFIX))) sessionStorage.removeItem(key);
  } catch {
    // Storage is blocked: there are none.
  }
}
