// A sign-up page whose addresses Cedula confirms, with nothing but Node.js. docs/integrate.md explains it.
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { Webhook } from "standardwebhooks";

const CEDULA = process.env.CEDULA_URL ?? "http://127.0.0.1:8000";
const KEY = process.env.CEDULA_KEY; // the API key of your service: it stays on the server
const EVENTS_SECRET = process.env.CEDULA_EVENTS_SECRET; // whsec_..., as in `events_secrets`
type Registered = { id: string; email: string; created_at: string };
type Confirmed = { email: string; token: string };
type Problem = { type?: string; status?: number; detail?: string; tries_left?: number };
type Signup = Registered & { once: string };
type Browser = { signup?: Signup; account?: string; news?: string };
type Reply = { status: number; body?: string; location?: string };

const accounts = new Map<string, string>(); // names by address. Your database
const mails = new Map<string, string>(); // what became of the mail of a registration. Your database, too
const browsers = new Map<string, Browser>(); // your sessions

const WORDS: Record<string, string> = {
  "invalid-request": "Please check the address.",
  "undeliverable-address": "No mail reaches this address. Is it spelled right?",
  "too-many-registrations": "This address has had many mails. Please try again in {minutes} min.",
  "mistyped-number": "This number has a typing error. Please compare it with the mail.",
  "verification-failed": "This is not the number of the newest mail. {tries_left} tries left.",
  "too-many-attempts": "These were too many wrong numbers. Please try again in {minutes} min.",
  "not-found": "This number has ended, or was used. Please begin again.",
  "idempotency-key-reused": "This form was sent before. Please send it once more.",
};
const OTHERWISE = "This did not work. Please try again in a moment.";
const NEWS: Record<string, string> = {
  sent: "The mail has left. Look into your spam folder, too.",
  failed: "The mail could not be delivered. Is the address right?",
  bounced: "The mail came back. Is the address right?",
};

/** Cedula answered with a problem, or not at all. The message is for the person. */
class Refused extends Error {
  constructor(problem: Problem, retryAfterS: number) {
    const words = WORDS[problem.type?.split("/").pop() ?? ""];
    const [tries, minutes] = [`${problem.tries_left ?? "Some"}`, `${Math.ceil(retryAfterS / 60)}`];
    super((words ?? OTHERWISE).replace("{tries_left}", tries).replace("{minutes}", minutes));
    if (!words) console.error("Cedula:", problem.detail ?? "no answer");
  }
}

/** The answer to a POST. `once`: the Idempotency-Key, with which a lost answer is asked for again. */
async function cedula<Answer>(path: string, body?: object, once = ""): Promise<Answer> {
  const headers: Record<string, string> = body ? { "Content-Type": "application/json" } : {};
  if (KEY) headers["Authorization"] = `Bearer ${KEY}`;
  if (once) headers["Idempotency-Key"] = once;
  for (let triesLeft = once ? 1 : 0; ; triesLeft--) {
    let [problem, waitS]: [Problem, number] = [{}, 1];
    try {
      const more = { headers, body: body ? JSON.stringify(body) : null, signal: AbortSignal.timeout(15_000) };
      const answer = await fetch(CEDULA + path, { method: "POST", ...more });
      if (answer.ok) return (await answer.json()) as Answer;
      waitS = Number(answer.headers.get("Retry-After") ?? 60);
      problem = (await answer.json()) as Problem;
    } catch (lost) {
      console.error("Cedula does not answer:", lost);
    }
    if (!triesLeft || ![409, 503].includes(problem.status ?? 503)) throw new Refused(problem, waitS);
    await sleep(Math.min(waitS, 5) * 1000);
  }
}

const show = (body: string, status = 200): Reply => ({ status, body });
const goTo = (location: string): Reply => ({ status: 303, location });

/** What `act` replies, or a page that tells the person why Cedula refused. */
async function unless(refusedPage: (fault: string) => string, act: () => Promise<Reply>): Promise<Reply> {
  return act().catch((refusal: unknown) => {
    if (refusal instanceof Refused) return show(refusedPage(refusal.message), 422);
    throw refusal;
  });
}

/** The number is mailed. What the person entered waits in Cedula, as the token, until it comes back. */
function register(browser: Browser, form: URLSearchParams, languages = ""): Promise<Reply> {
  const [name, email, once] = ["name", "email", "once"].map((field) => form.get(field)?.trim() ?? "");
  const locale = /^(en|es|pt|fr|de|it|ar)/.exec(languages.toLowerCase())?.[1] ?? "en";
  const body = { email, token: JSON.stringify({ name, once }), locale };
  return unless((fault) => addressPage(fault, name, email), async () => {
    browser.signup = { ...(await cedula<Registered>("/api/users", body, once)), once: once! };
    return goTo("/number");
  });
}

/** The same number by a new mail. */
function resend(browser: Browser, signup: Signup): Promise<Reply> {
  return unless((fault) => numberPage(browser, fault), async () => {
    await cedula(`/api/users/${signup.id}/resend`);
    browser.news = "We have sent it again.";
    return goTo("/number");
  });
}

/** The right number brings the token back, and with it what the person entered. */
function verify(browser: Browser, signup: Signup, form: URLSearchParams): Promise<Reply> {
  const body = { email: signup.email, number: form.get("number") ?? "" };
  return unless((fault) => numberPage(browser, fault), async () => {
    const confirmed = await cedula<Confirmed>("/api/users/verify", body, form.get("once") ?? "");
    const entered = JSON.parse(confirmed.token) as { name: string; once: string };
    if (entered.once !== signup.once) // somebody else's sign-up with this address
      return show(addressPage("This address was entered elsewhere. Please begin again."), 422);
    accounts.set(confirmed.email, entered.name);
    browser.account = confirmed.email;
    return goTo("/welcome");
  });
}

/** An event: what became of a mail or a registration. It may come twice; 2xx takes it. */
function hook(body: string, headers: IncomingMessage["headers"]): Reply {
  try {
    new Webhook(EVENTS_SECRET ?? "").verify(body, headers as Record<string, string>);
  } catch {
    return { status: 400 };
  }
  const event = JSON.parse(body) as { type: string; data: Registered };
  const about = `${event.data.id} ${event.data.created_at}`;
  const kind = event.type.replace("registration.", "");
  if (["verified", "expired"].includes(kind)) mails.delete(about); // nothing more will be told of it
  else mails.set(about, kind);
  return { status: 204 };
}

async function route(request: IncomingMessage, browser: Browser): Promise<Reply> {
  let body = "";
  for await (const part of request.setEncoding("utf8"))
    if ((body += part).length > 65_536) return { status: 413 };
  const { signup, account } = browser;
  const form = new URLSearchParams(body);
  switch (`${request.method} ${request.url}`) {
    case "GET /": return show(addressPage());
    case "POST /": return register(browser, form, request.headers["accept-language"]);
    case "GET /number": return signup ? show(numberPage(browser)) : goTo("/");
    case "POST /number": return signup ? verify(browser, signup, form) : goTo("/");
    case "POST /resend": return signup ? resend(browser, signup) : goTo("/");
    case "GET /welcome": return account ? show(welcomePage(accounts.get(account))) : goTo("/");
    case "POST /hooks/cedula": return hook(body, request.headers);
    default: return { status: 404 };
  }
}

/** HTML, with whatever is filled in escaped. */
function html(text: TemplateStringsArray, ...values: string[]): string {
  const escaped = (value: string) => value.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
  return String.raw({ raw: text }, ...values.map(escaped));
}

const page = (content: string, fault = ""): string => `<!doctype html><html lang="en"><meta charset="utf-8">
<title>Sign up</title><meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark; background: Canvas; font: 1.1rem/1.5 system-ui }
  main { max-width: 26rem; margin: auto } input, button { font: inherit; padding: .5rem }
  form, label { display: grid; gap: .5rem; margin-block: 1rem }
  [role=alert] { border-left: .3rem solid #c0341d; padding-left: .7rem }
</style>
<main>${fault && html`<p role="alert">${fault}</p>`}${content}</main>`;

const welcomePage = (name = "") => page(html`<h1>Welcome, ${name}</h1><p>Your address is confirmed.</p>`);

/** Every form has a fresh `once`, so that a second click on it is the same request. */
const addressPage = (fault = "", name = "", email = ""): string => page(html`<h1>Sign up</h1>
<form method="post" action="/">
  <label>Name <input name="name" autocomplete="name" required value="${name}"></label>
  <label>E-mail <input name="email" type="email" autocomplete="email" required value="${email}"></label>
  <input type="hidden" name="once" value="${randomUUID()}">
  <button>Send me a number</button></form>`, fault);

function numberPage(browser: Browser, fault = ""): string {
  const { email = "", id = "", created_at = "" } = browser.signup ?? {};
  const news = `${browser.news ?? ""} ${NEWS[mails.get(`${id} ${created_at}`) ?? ""] ?? ""}`;
  delete browser.news;
  return page(html`<h1>Look into your mailbox</h1>
<p>Your identification number is on its way to ${email}.</p>
<p role="status">${news}</p>
<form method="post" action="/number">
  <label>Identification number
    <input name="number" autocomplete="one-time-code" inputmode="numeric" required></label>
  <input type="hidden" name="once" value="${randomUUID()}">
  <button>Confirm</button></form>
<form method="post" action="/resend"><button>Send it again</button></form>
<p><a href="/">Another address</a></p>`, fault);
}

const failed = (error: unknown): Reply => (console.error(error), { status: 500 });
createServer(async (request, response) => {
  const known = /(?:^|; )session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1] ?? "";
  const session = browsers.has(known) ? known : randomUUID();
  const browser = browsers.get(session) ?? {};
  const reply = await route(request, browser).catch(failed);
  if (browser.signup) browsers.set(session, browser);
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.setHeader("Set-Cookie", `session=${session}; Path=/; HttpOnly; SameSite=Lax`); // Secure, with TLS
  if (reply.location) response.setHeader("Location", reply.location);
  response.writeHead(reply.status).end(reply.body);
}).listen(Number(process.env.PORT ?? 5000), "127.0.0.1");
