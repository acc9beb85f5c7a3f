// Generates src/api/*.ts from the services' committed OpenAPI documents. With --check it changes nothing and fails where a file is not what
// its document gives, so that the page cannot drift from what the services answer.
import { readFileSync, writeFileSync } from 'node:fs';
import openapiTS, { astToString, COMMENT_HEADER } from 'openapi-typescript';

const SERVICES = ['homelab-api', 'homelab-settings-api'];
const check = process.argv.includes('--check');
const stale = [];

for (const service of SERVICES) {
  const document = new URL(`../../${service}/openapi.json`, import.meta.url);
  const file = new URL(`../src/api/${service}.ts`, import.meta.url);
  // An object without named fields may hold anything: unknown, not nothing.
  const text = COMMENT_HEADER + astToString(await openapiTS(document, { emptyObjectsUnknown: true }));
  if (!check) writeFileSync(file, text);
  else if (contentOf(file) !== text) stale.push(service);
}
if (stale.length > 0) {
  console.error(`src/api is not what the OpenAPI documents give for ${stale.join(', ')}: npm run generate-types`);
  process.exit(1);
}

function contentOf(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
