/** Login, logout and the account, in Swedish. */
import type { en } from './messages.en';

export const sv: typeof en = {
  session: {
    heading: 'Huset, just nu',
    introduction: 'Effekt, energi, temperaturer och värmepumpen, avlästa direkt i huset. För dem som bor här.',
    logIn: 'Logga in',
    logInWith: (issuer: string) => `Du loggar in hos ${issuer} och kommer tillbaka hit.`,
    logOut: 'Logga ut',
    loggingIn: 'Loggar in',
    loggingOut: 'Loggar ut',
    user: (name: string) => `Inloggad som ${name}`,
    ended: 'Din session är slut. Det du ser är från tiden innan.',
    endedKept: 'Det du har fyllt i finns kvar medan du loggar in igen.',
    failed: 'Inloggningen fungerade inte',
    insecure: 'Inloggningen kräver en säker adress: öppna sidan med https.',
    stale: 'Inloggningsförsöket gäller inte längre, kanske för att sidan öppnades från ett bokmärke. Logga in igen.',
    denied: 'Inloggningstjänsten nekade kontot åtkomst.',
    unreachable: 'Inloggningstjänsten kunde inte nås.',
    missingScope: (scope: string) => `Ditt konto saknar behörigheten ${scope}. Den som sköter inloggningstjänsten kan ge den.`,
  },
};
