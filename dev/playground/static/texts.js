// What the page says, in the language that was chosen.

import en from "./texts/en.js";
import es from "./texts/es.js";
import pt from "./texts/pt.js";

export const TEXTS = { en, es, pt };

// Writes everything on the page that never changes but with the language.
export function speak(language, title) {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = TEXTS[language][node.dataset.text];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", TEXTS[language][node.dataset.label]);
  for (const button of document.querySelectorAll("[data-language]"))
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  document.title = `Cedula · ${title}`;
}

export function initialLanguage() {
  const wished = [remembered(), ...navigator.languages].map((tag) => (tag || "").slice(0, 2));
  return wished.find((tag) => tag in TEXTS) ?? "en";
}

function remembered() {
  try {
    return localStorage.getItem("language");
  } catch {
    return null; // storage may be forbidden; the page works without
  }
}

export function remember(language) {
  try {
    localStorage.setItem("language", language);
  } catch {
    // as above
  }
}
