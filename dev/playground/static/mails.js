// The tab of mails: every language of a service at both widths, in light and in dark, from files as they are now.

import { TEXTS, initialLanguage, remember, speak } from "./texts.js";

const LOOK_EVERY_MS = 1000;
const PREFIX = "/playground";
const WIDTHS = [390, 1280];
const SCHEMES = ["light", "dark"];

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const chosen = new URLSearchParams(location.search);
const state = {
  page: initialLanguage(),
  version: "", // of the files, when they were read
  asked: "", // the service that was asked for
  services: [],
  service: "", // the one that is shown
  mails: [],
  faults: [],
  readAt: null,
  looking: false,
};
const texts = () => TEXTS[state.page];

// A frame is as wide as the screen that it stands for, and is then drawn as small as the page needs it.
const fit = new ResizeObserver((screens) => {
  for (const { target } of screens) {
    const scale = Math.min(1, target.parentElement.clientWidth / target.dataset.width);
    target.style.setProperty("--scale", scale);
  }
});

// What is shown

function render() {
  speak(state.page, texts().mailsTitle);
  const { mails, faults } = state;
  fill($("#service"), state.services.map(({ id, test }) => [id, test ? texts().testService(id) : id]), state.service);
  const mail = mails.find(({ language }) => language === chosen.get("language"));
  fill($("#language"), [["", texts().everyLanguage], ...mails.map(({ language, name }) => [language, `${name} (${language})`])], mail?.language ?? "");
  $("#example").hidden = !state.example;
  $("#faults").replaceChildren(...(faults.length ? [faultList(faults)] : []));
  fit.disconnect();
  $("#previews").replaceChildren(...(mail ? [mail] : mails).map(preview));
  for (const screen of $$("#previews .screen")) fit.observe(screen);
  if (state.readAt) $("#state").textContent = texts().readAt(state.readAt.toLocaleTimeString(state.page));
}

function fill(select, options, value) {
  select.replaceChildren(...options.map(([name, words]) => new Option(words, name)));
  select.value = value;
}

function preview(mail) {
  const section = make("section", "preview");
  const heading = section.appendChild(make("h2"));
  heading.append(make("bdi", "", mail.name, mail.language), " ", make("code", "", mail.language));
  if (mail.faults.length) {
    section.append(faultList(mail.faults));
    return section;
  }
  const screens = section.appendChild(make("div", "screens"));
  for (const width of WIDTHS) {
    const column = screens.appendChild(make("div"));
    column.append(...SCHEMES.map((scheme) => screen(mail, scheme, width)));
  }
  const text = screens.lastChild.appendChild(make("figure"));
  text.append(make("figcaption", "", texts().textPart), make("pre", "", mail.text, mail.language));
  text.lastChild.dir = "auto";
  return section;
}

// With the line by which a mail program lists the mail: sender and subject above or beside each other. The caption
// leads to the mail alone, where it can also be scrolled by keyboard.
function screen(mail, scheme, width) {
  const figure = make("figure");
  const link = figure.appendChild(make("figcaption")).appendChild(make("a", "", texts().screen(width, texts()[scheme])));
  link.href = `${PREFIX}/mails/${state.service}/${mail.language}/${scheme}`;
  link.target = "_blank";
  const box = figure.appendChild(make("div", `screen ${scheme}`)).appendChild(make("div"));
  box.parentElement.dataset.width = width;
  const listed = box.appendChild(make("p", width < 600 ? "listed phone" : "listed"));
  listed.append(make("bdi", "sender", mail.sender), make("bdi", "subject", mail.subject, mail.language));
  const frame = box.appendChild(make("iframe"));
  frame.setAttribute("sandbox", "");
  frame.loading = "lazy";
  frame.title = `${mail.name}, ${link.textContent}`;
  frame.src = `${link.href}?${state.version}`;
  return figure;
}

function faultList(faults) {
  const list = make("ul", "faults");
  list.append(...faults.map((fault) => make("li", "", fault, "en")));
  return list;
}

function make(name, kind = "", words = "", language = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (language) made.lang = language;
  made.textContent = words;
  return made;
}

// What happens

async function look() {
  if (state.looking) return;
  state.looking = true;
  try {
    const version = await (await fetch(`${PREFIX}/mails/version`)).text();
    const asked = chosen.get("service") ?? "";
    if (version === state.version && asked === state.asked) return;
    const found = await (await fetch(`${PREFIX}/mails.json?service=${encodeURIComponent(asked)}`)).json();
    Object.assign(state, found, { asked, readAt: new Date() });
    render();
  } catch {
    $("#state").textContent = texts().noAnswer;
    state.version = ""; // what comes back is shown again
  } finally {
    state.looking = false;
  }
}

function choose(name, value) {
  chosen.set(name, value);
  history.replaceState(null, "", `?${chosen}`);
  if (name === "language") render();
  else look();
}

for (const name of ["service", "language"]) $(`#${name}`).addEventListener("change", ({ target }) => choose(name, target.value));
for (const button of $$("[data-language]"))
  button.addEventListener("click", () => {
    state.page = button.dataset.language;
    remember(state.page);
    render();
  });
render();
look();
setInterval(() => document.hidden || look(), LOOK_EVERY_MS);
