/** What to tell a person whose login failed. The issuer's own description is shown as text; a stack or a token never is. */
import { ErrorResponse } from 'oidc-client-ts';
import type { Messages } from './messages';

export function loginProblem(error: unknown, t: Messages): string {
  if (error instanceof ErrorResponse) {
    if (error.error === 'access_denied') return error.error_description ?? t.session.denied;
    return error.error_description ?? error.error ?? t.session.failed;
  }
  if (error instanceof TypeError) return t.session.unreachable;
  if (error instanceof Error) return /state/i.test(error.message) ? t.session.stale : error.message;
  return t.session.failed;
}
