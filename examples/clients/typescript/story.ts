// Registers an address, hands in the number and gets the token back, with types made from /openapi.json.
//
// Usage: CEDULA_KEY=cedula_... node story.js http://127.0.0.1:8000 ada@example.com

import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

import createClient from "openapi-fetch";

import type { paths } from "./cedula.js";

const [baseUrl, email] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({
  baseUrl,
  headers: { Authorization: `Bearer ${process.env.CEDULA_KEY}` },
});

const registered = await client.POST("/api/users", {
  params: { header: { "Idempotency-Key": randomUUID() } }, // the same for every repetition of this request
  body: { email, token: "order 4711" },
});
if (registered.error) {
  throw new Error(`Not registered: ${registered.error.type}`);
}
console.log(`${registered.data.delivery}, until ${registered.data.expires_at}`);

process.stdout.write("The number in the mail: ");
for await (const typed of createInterface({ input: process.stdin })) {
  const { data, error } = await client.POST("/api/users/verify", { body: { email, number: typed } });
  if (data) {
    console.log(`Confirmed: ${data.token}`);
    break;
  }
  switch (error.type) {
    case "/problems/mistyped-number":
      console.log("Mistyped; it cost no try");
      break;
    case "/problems/verification-failed":
      console.log(`Wrong; tries left: ${error.tries_left}`);
      break;
    default:
      throw new Error(`${error.status} ${error.title}`);
  }
}
