/**
 * How the page is built. The build never holds anything of one home: issuer, addresses and time zone come from
 * /config.json at run time, so there is no config.json in the output on purpose.
 */
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';
import { VitePWA } from 'vite-plugin-pwa';

/** `npm run dev` shows this working copy in front of a running stack: set it to the address the stack prints. */
const backend = process.env['HEATPUMP_WEB_BACKEND'];

export default defineConfig({
  plugins: [
    react(),
    VitePWA({
      filename: 'service-worker.js',
      // src/lib/worker registers it: an inline script or an address that is no TrustedScriptURL would break the policy.
      injectRegister: false,
      // A new version waits until the person says so.
      registerType: 'prompt',
      manifestFilename: 'app.webmanifest',
      manifest: {
        id: '/',
        name: 'Homelab',
        short_name: 'Homelab',
        description: 'Live power, energy, temperatures and the heat pump of this house.',
        start_url: '/',
        scope: '/',
        display: 'standalone',
        background_color: '#12352e',
        theme_color: '#12352e',
        icons: [
          { src: '/icon.svg', sizes: 'any', type: 'image/svg+xml', purpose: 'any' },
          { src: '/icon-192.png', sizes: '192x192', type: 'image/png', purpose: 'any' },
          { src: '/icon-512.png', sizes: '512x512', type: 'image/png', purpose: 'any' },
          { src: '/icon-512.png', sizes: '512x512', type: 'image/png', purpose: 'maskable' },
        ],
      },
      includeAssets: ['before-paint.js', 'favicon.svg', 'icon-180.png'],
      workbox: {
        globPatterns: ['**/*.{html,js,css,woff2}'],
        // Names under assets/ carry a hash of their content.
        dontCacheBustURLsMatching: /^assets\//,
        // One file: the policy allows the worker no further script.
        inlineWorkboxRuntime: true,
        sourcemap: false,
        clientsClaim: true,
        skipWaiting: false,
        cleanupOutdatedCaches: true,
        // The shell answers for every page of the app. What the services answer, and with it every token, is never kept.
        navigateFallback: '/index.html',
        navigateFallbackDenylist: [/^\/api\//, /^\/ws\//, /^\/config\.json$/],
        runtimeCaching: [
          {
            urlPattern: ({ url, sameOrigin }) => sameOrigin && url.pathname === '/config.json',
            handler: 'NetworkFirst',
            options: { cacheName: 'homelab-config', cacheableResponse: { statuses: [200] } },
          },
        ],
      },
    }),
  ],
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
