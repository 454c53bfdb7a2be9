// The page: what is known (`state`), how it is shown (`render…`), and what a person does (`act…`).

import { Diagram } from "./diagram.js";
import { TEXTS, initialLanguage, remember, speak } from "./texts.js";

const LOOK_EVERY_MS = 2000;
const SHOWN_HEADERS = ["Content-Type", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID"];
const PREFIX = "/playground";
const NOTED_BY_REDIS = ["asked", "prepared", "looked", "tried", "deleted", "stored", "compared"];

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const state = {
  language: initialLanguage(),
  registered: null, // an answer of the service, see `ask`
  verified: null,
  busy: null, // id of the form that waits for its answer
  mails: [],
  known: null, // names of the mails that were there when the page was opened
  open: null, // the mail that is shown
  awaited: 0, // Unix ms: a mail is on its way that was asked for then
};
const diagram = new Diagram($("#drawing"));
const texts = () => TEXTS[state.language];

// What is shown

function render() {
  speak(state.language, texts().title);
  $("#mail-html").title = texts().mailFrame;
  diagram.speak(texts(), duration);
  renderAnswer($("#registered"), $("#register"), state.registered, "register");
  renderAnswer($("#verified"), $("#verify"), state.verified, "handIn");
  renderTimes();
  renderMails();
}

function renderAnswer(box, form, answer, act) {
  const busy = state.busy === form.id;
  const button = $("button", form);
  button.setAttribute("aria-disabled", String(busy));
  button.textContent = texts()[busy ? { register: "registering", handIn: "handingIn" }[act] : act];
  const words = $(".words", box);
  say(words, busy || !answer ? "" : inWords(answer));
  words.classList.toggle("refused", Boolean(answer) && !answer.ok);
  box.classList.toggle("stale", busy);
  $(".to-diagram", box).hidden = !("total" in (answer?.times ?? {}));
  const wire = $("figure", box);
  wire.hidden = !answer?.status;
  $("pre", wire).textContent = answer?.status ? asItCame(answer) : "";
  const prize = $(".prize", box);
  if (prize) {
    prize.hidden = !answer?.ok;
    $("strong", prize).textContent = answer?.ok ? answer.body.token : "";
  }
  for (const input of $$("input, select", form)) {
    const wrong = answer?.body?.errors?.[input.name] || (answer?.slug === "mistyped-number" && input.name === "number");
    if (wrong) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    $(`#${input.id}-fault`).textContent = answer?.body?.errors?.[input.name] ? texts().faults[input.name] : "";
  }
}

function inWords(answer) {
  if (!answer.status) return texts().noAnswer;
  if (answer.ok && "delivery" in answer.body) return answer.body.delivery === "sent" ? texts().registered : texts().pending;
  if (answer.ok) return texts().verified;
  const said = texts().problems[answer.slug] ?? texts().otherProblem(answer.status);
  return typeof said === "function" ? said(wait(answer.retryAfter)) : said;
}

function asItCame(answer) {
  const head = [`HTTP/1.1 ${answer.status} ${answer.reason}`, ...answer.headers.map(([name, value]) => `${name}: ${value}`)];
  return `${head.join("\n")}\n\n${answer.body ? JSON.stringify(answer.body, null, 2) : ""}`;
}

function wait(seconds) {
  return seconds < 100 ? texts().seconds(seconds) : texts().minutes(Math.ceil(seconds / 60));
}

function duration(ms) {
  const [value, digits, unit] = ms < 0.1 ? [ms, 3, "ms"] : ms < 100 ? [ms, 2, "ms"] : ms < 1000 ? [ms, 0, "ms"] : [ms / 1000, 1, "s"];
  return `${value.toLocaleString(state.language, { minimumFractionDigits: digits, maximumFractionDigits: digits })}\u00a0${unit}`;
}

function renderTimes() {
  const latest = state.verified ?? state.registered;
  const times = latest?.times ?? {};
  const measured = "total" in times;
  $("#times").hidden = !measured;
  $("#total").hidden = !measured;
  $("#total strong").textContent = measured ? duration(times.total) : "";
  $("#diagram-hint").textContent = measured ? texts().diagramReplay : texts().diagramWaiting;
  const rows = Object.entries(times).map(([step, spent]) => {
    const noted = NOTED_BY_REDIS.includes(step) ? texts().redis : step === "mailed" ? texts().mailServer : texts().service;
    const commands = latest.commands[step] ?? [];
    const name = step === "total" ? texts().total : slice(step, times);
    return row([name, step === "total" ? "" : [noted, ...commands].join(" · "), duration(spent)]);
  });
  $("#times tbody").replaceChildren(...rows);
}

function slice(step, times) {
  const { slices } = texts();
  if (!("checked" in times)) return slices[`only-${step}`] ?? slices[step];
  return (state.verified && slices[`later-${step}`]) || slices[step];
}

function row([name, noted, time]) {
  const made = document.createElement("tr");
  const head = made.appendChild(document.createElement("th"));
  head.scope = "row";
  head.textContent = name;
  made.insertCell().textContent = noted;
  const cell = made.insertCell();
  cell.className = "number";
  cell.textContent = time;
  return made;
}

function renderMails() {
  const news = state.mails.some((mail) => isNew(mail) && mail.name !== state.open?.name && mail.name === state.mails[0].name);
  const words = state.awaited ? texts().awaited : news ? texts().newMail : state.open ? texts().mailOpen : state.mails.length ? "" : texts().noMail;
  say($("#post"), words);
  const focused = document.activeElement?.dataset?.mail;
  $("#mails").replaceChildren(...state.mails.map(mailItem));
  if (focused) $(`[data-mail="${CSS.escape(focused)}"]`)?.focus();
  $("#mail").hidden = !state.open;
}

function mailItem(mail) {
  const item = document.createElement("li");
  const button = item.appendChild(document.createElement("button"));
  button.type = "button";
  button.dataset.mail = mail.name;
  button.setAttribute("aria-expanded", String(mail.name === state.open?.name));
  button.setAttribute("aria-controls", "mail");
  const part = (kind, content, language) => {
    const made = button.appendChild(document.createElement("span"));
    made.className = kind;
    made.textContent = content;
    if (language) made.lang = language;
  };
  part("subject", mail.subject || texts().noSubject, mail.subject && mail.language);
  part("address", mail.recipients.join(", "));
  part("moment", new Date(mail.received_at).toLocaleTimeString(state.language));
  if (isNew(mail)) part("badge", texts().fresh);
  button.addEventListener("click", () => openMail(mail));
  return item;
}

function isNew(mail) {
  return state.known !== null && !state.known.has(mail.name);
}

// Only what changes is written: a live region would be read again.
function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

// What a person does

async function register(event) {
  event.preventDefault();
  if (state.busy) return;
  await opened;
  const form = new FormData($("#register"));
  state.verified = null;
  diagram.clear("");
  await waitFor("register", "registered", "/api/users", Object.fromEntries(form));
  if (state.registered.ok) {
    $("#verify-email").value = form.get("email");
    $("#number").value = "";
    state.awaited = state.registered.pending ? Date.parse(state.registered.body.created_at) : 0;
  }
  diagram.show("", state.registered);
  await look();
}

async function verify(event) {
  event.preventDefault();
  if (state.busy) return;
  diagram.clear("later");
  await waitFor("verify", "verified", "/api/users/verify", Object.fromEntries(new FormData($("#verify"))));
  diagram.show("later", state.verified);
}

async function waitFor(form, slot, path, body) {
  state.busy = form;
  render();
  state[slot] = await ask(path, body);
  state.busy = null;
  render();
  $(`#${form} [aria-invalid]`)?.focus();
}

async function ask(path, body) {
  const answer = { status: 0, ok: false, reason: "", headers: [], body: null, slug: "", retryAfter: 0, times: {}, commands: {}, pending: false };
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Cedula-Playground": "1" },
      body: JSON.stringify(body),
    });
    answer.body = await response.json();
    answer.status = response.status;
    answer.ok = response.ok;
    answer.reason = response.statusText;
    answer.headers = SHOWN_HEADERS.flatMap((name) => (response.headers.has(name) ? [[name, response.headers.get(name)]] : []));
    answer.slug = (answer.body.type ?? "").replace("/problems/", "");
    answer.retryAfter = Number(response.headers.get("Retry-After"));
    answer.pending = answer.body.delivery === "pending";
    readTimes(answer, response.headers.get("Server-Timing") ?? "");
  } catch {
    // no answer, or none that can be read: status 0 says so
  }
  return answer;
}

function readTimes(answer, header) {
  for (const [, step, spent, commands] of header.matchAll(/([a-z]+);dur=([\d.]+)(?:;desc="([^"]*)")?/g)) {
    answer.times[step] = Number(spent);
    if (commands) answer.commands[step] = commands.split(" ");
  }
}

async function look() {
  try {
    const mails = await (await fetch(`${PREFIX}/messages.json`)).json();
    state.known ??= new Set(mails.map((mail) => mail.name));
    if (mails.map((mail) => mail.name).join() === state.mails.map((mail) => mail.name).join() && !state.awaited) return;
    state.mails = mails;
    if (mails.some((mail) => Date.parse(mail.received_at) >= state.awaited)) state.awaited = 0;
    renderMails();
  } catch {
    // the next look may be luckier
  }
}

function openMail(mail) {
  state.open = state.open?.name === mail.name ? null : mail;
  if (state.open) {
    $("#mail-subject").textContent = mail.subject || texts().noSubject;
    $("#mail-subject").lang = mail.language;
    $("#mail-from").textContent = mail.sender;
    $("#mail-to").textContent = mail.recipients.join(", ");
    $("#mail-html").src = `${PREFIX}/messages/${encodeURIComponent(mail.name)}/html`;
    $("#mail-text").textContent = mail.text;
    $("#mail-text").lang = mail.language;
  }
  renderMails();
}

function choose(language) {
  const { value } = $("#token");
  if (value === texts().exampleToken) $("#token").value = TEXTS[language].exampleToken;
  state.language = language;
  $("#locale").value = language;
  remember(language);
  render();
}

// A diagram higher than the window sticks with its end, so that the form beside the end sees it.
new ResizeObserver(([{ target }]) => target.style.setProperty("--height", `${target.offsetHeight}px`)).observe($(".diagram"));
$("#register").addEventListener("submit", register);
$("#verify").addEventListener("submit", verify);
for (const button of $$("[data-language]")) button.addEventListener("click", () => choose(button.dataset.language));
$("#locale").value = state.language;
$("#token").value = texts().exampleToken;
render();
const opened = look();
opened.then(renderMails);
setInterval(() => document.hidden || look(), LOOK_EVERY_MS);
