// Applies the stored theme before the first paint; src/lib/theme changes it afterwards. Never throws: storage may be blocked.
try {
  const theme = localStorage.getItem('homelab.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the system's theme is used.
}
