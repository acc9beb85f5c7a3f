// Applies the stored theme and language before the first paint; src/lib/theme and src/i18n/language change them afterwards. Never throws:
// storage may be blocked.
function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

const theme = stored('homelab.theme');
if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;

const chosen = stored('homelab.language');
const known = [chosen ?? '', ...navigator.languages].map((tag) => tag.slice(0, 2).toLowerCase());
document.documentElement.lang = known.find((language) => language === 'en' || language === 'sv') ?? 'en';
