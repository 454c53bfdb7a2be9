// A sign-up page whose addresses Cedula confirms, with nothing but Node.js. docs/integrate.md explains it.
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { Webhook } from "standardwebhooks";

const CEDULA = process.env.CEDULA_URL ?? "http://127.0.0.1:8000";
const KEY = process.env.CEDULA_KEY; // the API key of your service: it stays on the server
const EVENTS_SECRET = process.env.CEDULA_EVENTS_SECRET; // whsec_..., as in `events_secrets`
type Registered = { id: string; email: string; created_at: string; expires_at?: string };
type Confirmed = { id: string; token: string };
type Problem = { type?: string; status?: number; errors?: object; tries_left?: number };
type Signup = Registered & { once: string };
type Browser = { signup?: Signup; account?: string; news?: string };
type Reply = { status: number; body?: string; location?: string };

const accounts = new Map<string, string>(); // names by id, which is unique; an address is not. Your database
const mails = new Map<string, string>(); // what became of the mail of a registration. Your database, too
const browsers = new Map<string, Browser>(); // your sessions

const WORDS: Record<string, string> = {
  "invalid-request": "Please check the address.",
  "undeliverable-address": "No mail reaches this address. Is it spelled right?",
  "too-many-registrations": "This address has had many mails. Please try again in {minutes} min.",
  "mistyped-number": "This number has a typing error. Please compare it with the mail.",
  "verification-failed": "This is not the number of the newest mail. Tries left: {tries_left}.",
  "too-many-attempts": "These were too many wrong numbers. Please try again in {minutes} min.",
  "not-found": "This number has ended, or was used. Please begin again.",
  "idempotency-key-reused": "This form was sent before. Please send it once more.",
  ended: "This number has ended. Please begin again.",
  elsewhere: "This address was entered elsewhere. Please begin again.",
};
const BEGIN_AGAIN = ["not-found", "ended", "elsewhere"];
const NEWS: Record<string, string> = {
  sent: "The mail has left. Look into your spam folder, too.",
  failed: "The mail could not be delivered. Is the address right?",
  bounced: "The mail came back. Is the address right?",
};

/** Why it does not go on. `unclear`: it may be done, so the form keeps its key. */
class Refused extends Error {
  constructor(readonly slug: string, readonly unclear = false, tries: unknown = "some", waitS = 60) {
    const words = WORDS[slug] ?? "This did not work. Please try again in a moment.";
    super(words.replace("{tries_left}", `${tries}`).replace("{minutes}", `${Math.ceil(waitS / 60)}`));
  }
}

/** The answer to a POST. With `once`, the Idempotency-Key, an unclear one is asked for again for 8 s. */
async function cedula<Answer>(path: string, body?: object, once = ""): Promise<Answer> {
  const headers: Record<string, string> = body ? { "Content-Type": "application/json" } : {};
  if (KEY) headers["Authorization"] = `Bearer ${KEY}`;
  if (once) headers["Idempotency-Key"] = once;
  for (let [until, waitS] = [0, 1]; ; await sleep(waitS * 1000)) {
    let problem: Problem = {};
    try {
      const more = { headers, body: body ? JSON.stringify(body) : null, signal: AbortSignal.timeout(15_000) };
      const answer = await fetch(CEDULA + path, { method: "POST", ...more });
      if (answer.ok) return (await answer.json()) as Answer;
      problem = (await answer.json()) as Problem;
      waitS = Number(answer.headers.get("Retry-After")) || 60; // it may be a date
    } catch (lost) {
      waitS = 1;
      console.error("Cedula does not answer:", lost);
    }
    const unclear = [409, 500, 502, 503, 504].includes(problem.status ?? 503);
    until ||= performance.now() + 8000;
    if (once && unclear && performance.now() + waitS * 1000 < until) continue;
    const canMend = "email" in (problem.errors ?? { email: "" }); // of the fields, the person knows this one
    const slug = canMend ? (problem.type?.split("/").pop() ?? "") : "";
    if (!WORDS[slug]) console.error("Cedula:", problem);
    throw new Refused(slug, unclear, problem.tries_left, waitS);
  }
}

const show = (body: string, status = 200): Reply => ({ status, body });
const goTo = (location: string): Reply => ({ status: 303, location });

/** The number is mailed. What the person entered waits in Cedula, as the token, until it comes back. */
async function register(browser: Browser, form: URLSearchParams, languages = ""): Promise<Reply> {
  const [name, email, once] = ["name", "email", "once"].map((field) => form.get(field)?.trim() ?? "");
  const locale = /^(en|es|pt|fr|de|it|ar)/.exec(languages.toLowerCase())?.[1] ?? "en";
  const body = { email, token: JSON.stringify({ name, once }), locale };
  browser.signup = { ...(await cedula<Registered>("/api/users", body, once)), once: once! };
  return goTo("/number");
}

/** The same number by a new mail. */
async function resend(browser: Browser, signup: Signup): Promise<Reply> {
  const { created_at } = await cedula<Registered>(`/api/users/${signup.id}/resend`);
  if (created_at !== signup.created_at) throw new Refused("elsewhere");
  browser.news = "We have sent it again.";
  return goTo("/number");
}

/** The right number brings the token back, and with it what the person entered. */
async function verify(browser: Browser, signup: Signup, form: URLSearchParams): Promise<Reply> {
  if (signup.expires_at && Date.parse(signup.expires_at) < Date.now()) throw new Refused("ended");
  const body = { email: signup.email, number: form.get("number") ?? "" };
  const confirmed = await cedula<Confirmed>("/api/users/verify", body, form.get("once") ?? "");
  const entered = JSON.parse(confirmed.token) as { name: string; once: string };
  if (entered.once !== signup.once) throw new Refused("elsewhere"); // somebody else's, with this address
  accounts.set(confirmed.id, entered.name); // here the address is confirmed, and by no event
  browser.account = confirmed.id;
  return goTo("/welcome");
}

/** An event: what became of a mail or a registration. It may come twice; 2xx takes it. */
function hook(body: string, headers: IncomingMessage["headers"]): Reply {
  try {
    new Webhook(EVENTS_SECRET ?? "").verify(body, headers as Record<string, string>);
  } catch {
    return { status: 400 };
  }
  const event = JSON.parse(body) as { type: string; data: Registered };
  const [about, kind] = [`${event.data.id} ${event.data.created_at}`, event.type.replace("registration.", "")];
  if (["verified", "expired"].includes(kind)) mails.delete(about); // nothing more will be told of it
  else mails.set(about, kind);
  return { status: 204 };
}

async function route(request: IncomingMessage, browser: Browser): Promise<Reply> {
  let body = "";
  for await (const part of request.setEncoding("utf8"))
    if ((body += part).length > 65_536) return { status: 413 };
  const foreign = /^(cross|same)-site$/.test(`${request.headers["sec-fetch-site"]}`);
  if (foreign && request.method === "POST") return { status: 403 }; // in somebody's name, from another page
  const [form, { signup, account }] = [new URLSearchParams(body), browser];
  const refused = (refusal: unknown): Reply => {
    if (!(refusal instanceof Refused)) throw refusal;
    if (!refusal.unclear) form.delete("once");
    const step = BEGIN_AGAIN.includes(refusal.slug) || request.url === "/" ? addressPage : numberPage;
    return show(step(browser, form, refusal.message), 422);
  };
  switch (`${request.method} ${request.url}`) {
    case "GET /": return show(addressPage(browser));
    case "POST /": return register(browser, form, request.headers["accept-language"]).catch(refused);
    case "GET /number": return signup ? show(numberPage(browser)) : goTo("/");
    case "POST /number": return signup ? verify(browser, signup, form).catch(refused) : goTo("/");
    case "POST /resend": return signup ? resend(browser, signup).catch(refused) : goTo("/");
    case "GET /welcome": return account ? show(welcomePage(accounts.get(account))) : goTo("/");
    case "POST /hooks/cedula": return hook(body, request.headers);
    default: return { status: 404 };
  }
}

/** HTML, with whatever is filled in escaped. */
function html(text: TemplateStringsArray, ...values: (string | null)[]): string {
  const escaped = (sign: string) => `&#${sign.charCodeAt(0)};`;
  return String.raw({ raw: text }, ...values.map((value) => value?.replace(/[&<>"']/g, escaped) ?? ""));
}

const page = (content: string, fault = ""): string => `<!doctype html><html lang="en"><meta charset="utf-8">
<title>Sign up</title><meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark; background: Canvas; font: 1.1rem/1.5 system-ui }
  main { max-width: 26rem; margin: auto } input, button { font: inherit; padding: .5rem }
  form, label { display: grid; gap: .5rem; margin-block: 1rem }
  [role=alert] { border-left: .3rem solid #c0341d; padding-left: .7rem }
</style><main>${fault && html`<p role="alert">${fault}</p>`}${content}</main>`;

const welcomePage = (name = "") => page(html`<h1>Welcome, ${name}</h1><p>Your address is confirmed.</p>`);

/** A form has a `once`, so that it is one request however often it is sent. `form`: what was entered. */
const addressPage = (_: Browser, form = new URLSearchParams(), fault = "") => page(html`<h1>Sign up</h1>
<form method="post" action="/">
  <label>Name <input name="name" autocomplete="name" required maxlength="100"
    value="${form.get("name")}"></label>
  <label>E-mail <input name="email" type="email" autocomplete="email" required
    value="${form.get("email")}"></label>
  <input type="hidden" name="once" value="${form.get("once") ?? randomUUID()}">
  <button>Send me a number</button></form>`, fault);

function numberPage(browser: Browser, form = new URLSearchParams(), fault = ""): string {
  const { email = "", id = "", created_at = "" } = browser.signup ?? {};
  const news = `${browser.news ?? ""} ${NEWS[mails.get(`${id} ${created_at}`) ?? ""] ?? ""}`;
  delete browser.news;
  return page(html`<h1>Look into your mailbox</h1>
<p>Your identification number is on its way to ${email}.</p>
<p role="status">${news}</p>
<form method="post" action="/number" onsubmit="this.lastElementChild.disabled = true">
  <label>Identification number
    <input name="number" autocomplete="one-time-code" inputmode="numeric" required
      value="${form.get("number")}"></label>
  <input type="hidden" name="once" value="${form.get("once") ?? randomUUID()}">
  <button>Confirm</button></form>
<form method="post" action="/resend"><button>Send it again</button></form>
<p><a href="/">Another address</a></p>`, fault);
}

createServer(async (request, response) => {
  const known = /(?:^|; )session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1] ?? "";
  const session = browsers.has(known) ? known : randomUUID();
  const browser = browsers.get(session) ?? {};
  const reply = await route(request, browser).catch((bug): Reply => (console.error(bug), { status: 500 }));
  if (browser.signup) browsers.set(session, browser);
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.setHeader("Set-Cookie", `session=${session}; Path=/; HttpOnly; SameSite=Lax`); // Secure, with TLS
  if (reply.location) response.setHeader("Location", reply.location);
  response.writeHead(reply.status).end(reply.body);
}).listen(Number(process.env.PORT ?? 5000), "127.0.0.1");
