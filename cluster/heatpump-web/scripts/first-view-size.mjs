// Adds up the JavaScript the first view transfers (the entry, which has the page Now, and what it imports statically, gzip as the gateway serves it) and
// fails above the limit. Charts are loaded later and are not part of it. Run by `npm run build`; never changes the output.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

/** From issue 6: the first view has to be readable on a phone in a bad network within two and a half seconds. */
const LIMIT_KB = 180;

const dist = new URL('../dist/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('.vite/manifest.json', dist), 'utf8'));
const seen = new Set();

function add(name) {
  if (seen.has(name)) return;
  seen.add(name);
  for (const imported of manifest[name].imports ?? []) add(imported);
}
add('index.html');

const kilobytes = [...seen].map((name) => gzipSync(readFileSync(new URL(manifest[name].file, dist))).length / 1000);
const total = kilobytes.reduce((sum, size) => sum + size, 0);
console.log(`first view: ${total.toFixed(1)} kB of JavaScript compressed in ${seen.size} files (limit ${LIMIT_KB} kB)`);
if (total >= LIMIT_KB) process.exit(1);
