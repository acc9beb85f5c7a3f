/**
 * How the page is built. The build never holds anything of one home: issuer, addresses and time zone come from
 * /config.json at run time, so there is no config.json in the output on purpose.
 */
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

/** `npm run dev` shows this working copy in front of a running stack: set it to the address the stack prints. */
const backend = process.env['HEATPUMP_WEB_BACKEND'];

export default defineConfig({
  plugins: [react()],
  build: {
    target: 'baseline-widely-available',
    // No data: URLs, so that the Content-Security-Policy needs none.
    assetsInlineLimit: 0,
    // scripts/first-view-size.mjs reads it to add up what the first view transfers.
    manifest: true,
    // An inline polyfill would break the policy for scripts; every browser in the target preloads modules itself.
    modulePreload: { polyfill: false },
  },
  server: {
    host: '127.0.0.1',
    ...(backend !== undefined && {
      proxy: {
        '/config.json': { target: backend, changeOrigin: true },
        '/api': { target: backend, changeOrigin: true },
        '/ws': { target: backend, changeOrigin: true, ws: true },
      },
    }),
  },
});
