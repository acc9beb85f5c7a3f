/** The story of a command, in Swedish. */
import type { en } from './messages.en';

export const sv: typeof en = {
  command: {
    status: {
      pending: 'Väntar på att skickas',
      published: 'Väntar på enheten',
      confirmed: 'Bekräftad',
      failed: 'Misslyckades',
      expired: 'Tiden gick ut',
      superseded: 'Ersatt',
    },
    steps: {
      accepted: 'Mottagen',
      sent: 'Skickad till enheten',
      confirmed: 'Bekräftad av enheten',
      failed: 'Misslyckades',
      expired: 'Tiden gick ut',
      superseded: 'Ersatt av en senare ändring',
    },
    reasons: {
      away: 'Enheten var inte ansluten.',
      refused: 'Agenten vägrade: den känner inte enheten, eller så är dess klocka inte ställd.',
      unconfirmed: 'Enheten fick värdet tre gånger och rapporterade det aldrig.',
      late: 'Tiden gick ut innan enheten rapporterade värdet. Det införs inte längre.',
      unanswered: 'Agenten på Pi:n har inte svarat.',
      replaced: 'En senare ändring vill något annat.',
    },
    ahead: 'inte än',
    attempt: (number) => `försök ${number} av 3`,
    until: (time) => `Ges upp ${time} om det inte har bekräftats.`,
    by: (who) => `Begärt av ${who}.`,
    bySchedule: 'Begärt av ett schema.',
    everyState: 'Alla steg',
    recent: 'Senaste ändringar',
    none: 'Inget har ändrats härifrån ännu.',
    older: 'Visa äldre ändringar',
    announce: (what, status) => `${what}: ${status}`,
  },
};
