/** Login, logout and the account, in English. */
export const en = {
  session: {
    heading: 'The house, right now',
    introduction: 'Power, energy, temperatures and the heat pump, read from the house itself. For the people who live here.',
    logIn: 'Log in',
    logInWith: (issuer: string) => `You log in at ${issuer} and come back here.`,
    logOut: 'Log out',
    loggingIn: 'Logging in',
    loggingOut: 'Logging out',
    user: (name: string) => `Logged in as ${name}`,
    ended: 'Your session has ended. What you see is from before that.',
    endedKept: 'What you have entered is kept while you log in again.',
    failed: 'Logging in did not work',
    insecure: 'Logging in needs a secure address: open this page with https.',
    stale: 'This login attempt is no longer valid, perhaps because the page was opened from a bookmark. Please log in again.',
    denied: 'The login service refused access for this account.',
    unreachable: 'The login service could not be reached.',
    missingScope: (scope: string) => `Your account lacks the permission ${scope}. Whoever runs the login service can grant it.`,
  },
};
