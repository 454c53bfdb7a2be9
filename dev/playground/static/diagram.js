// The sequence diagram: drawn for the width there is, lit by what was measured.

const SVG = "http://www.w3.org/2000/svg";
const LIFELINES = ["external", "gateway", "persistence", "messaging", "store"];
const OUTSIDE = LIFELINES.length;

const LABEL = 13; // px: as large as a label is
const SMALLEST_LABEL = 11.5; // where one would have to be smaller, it does not stay between its lifelines
const BESIDE_BARS = 16; // px between two lifelines that are the bars' and some air
const SELF = 36; // px from a lifeline to the label of what it does by itself; where it is narrow, the label stands before it
const TIME_WIDTH = 74;
const TIME_ROOM = 70; // kept free for the time at the end of a label, where there is no column
const LIGHT_EVERY_MS = 190;
const SCRIPT = ["prepared", "looked", "tried", "deleted", "stored"];

const row = (id, from, to, more = {}) => ({ id, from, to, ...more });
const ROWS = [
  row("sent", 0, 1),
  row("checked", 1, 2),
  { frame: "loop", rows: [row("drawn", 2, 2), row("tried", 2, 4)] },
  row("looked", 2, 4),
  { frame: "alt", rows: [row("deleted", 2, 4)] },
  row("stored", 2, 4),
  { caption: "script", beside: 4 },
  row("returned", 2, 1, { answer: true }),
  row("handed", 1, 3),
  row("mailed", 3, OUTSIDE),
  row("confirmed", 3, 1, { answer: true }),
  row("answered", 1, 0, { answer: true }),
  { divider: "later" },
  row("later-sent", 0, 1),
  row("later-checked", 1, 2),
  row("later-compared", 2, 4),
  row("later-returned", 2, 1, { answer: true }),
  row("later-answered", 1, 0, { answer: true }),
];
const BARS = [
  [1, "sent", "answered"],
  [2, "checked", "returned"],
  [4, "tried", "stored"],
  [3, "handed", "confirmed"],
  [1, "later-sent", "later-answered"],
  [2, "later-checked", "later-returned"],
  [4, "later-compared", "later-compared"],
];
const FLAT = ROWS.flatMap((item) => item.rows ?? [item]);
const ORDER = FLAT.flatMap((item) => item.id ?? item.caption ?? []);
const MESSAGES = FLAT.filter((item) => item.id);

export class Diagram {
  #box;
  #texts;
  #formatTime;
  #flows = {}; // "" and "later": { status, times, commands, pending }
  #lit = { "": 0, later: 0 }; // how many steps of each flow are shown by now
  #timer;
  #width = 0;

  constructor(box) {
    this.#box = box;
    new ResizeObserver(() => {
      if (this.#texts && Math.round(box.clientWidth) !== this.#width) this.#draw();
    }).observe(box);
  }

  speak(texts, formatTime) {
    this.#texts = texts;
    this.#formatTime = formatTime;
    this.#draw();
  }

  clear(flow) {
    clearInterval(this.#timer);
    if (flow === "") delete this.#flows.later;
    delete this.#flows[flow];
    this.#light();
  }

  // Lights the steps of a flow one after the other, or all at once for who wants no motion.
  show(flow, happened) {
    clearInterval(this.#timer);
    this.#flows[flow] = happened;
    const steps = ORDER.filter((id) => flowOf(id) === flow);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.#lit[flow] = steps.length;
      this.#light();
      return;
    }
    this.#lit[flow] = 0;
    this.#timer = setInterval(() => {
      do this.#lit[flow] += 1;
      while (this.#lit[flow] < steps.length && this.#state(steps[this.#lit[flow] - 1]) === "idle");
      this.#light();
      if (this.#lit[flow] >= steps.length) clearInterval(this.#timer);
    }, LIGHT_EVERY_MS);
  }

  #state(id) {
    const flow = this.#flows[flowOf(id)];
    const step = id.replace("later-", "");
    if (!flow) return "idle";
    if (step === "answered") return flow.status < 400 ? "lit" : "fault";
    if (step === "sent") return "lit";
    if (flow.pending && ["mailed", "confirmed"].includes(step)) return "idle";
    if (flow.status >= 400 && ["returned", "confirmed"].includes(step)) return "idle";
    if (step === "script") return "stored" in flow.times ? "lit" : "idle";
    if (step === "deleted" && !(step in flow.times) && "stored" in flow.times) return "skipped";
    return step in flow.times ? "lit" : "idle";
  }

  #light() {
    for (const group of this.#box.querySelectorAll("[data-step]")) {
      const id = group.dataset.step;
      const steps = ORDER.filter((other) => flowOf(other) === flowOf(id));
      const state = steps.indexOf(id) < this.#lit[flowOf(id)] ? this.#state(id) : "idle";
      group.setAttribute("class", `${group.dataset.kind} ${state}`);
      const time = group.querySelector(".time");
      if (time) time.textContent = state === "idle" ? "" : this.#timeText(id, state);
      const remark = group.querySelector(".remark");
      if (remark) remark.textContent = state === "idle" ? "" : this.#remark(id);
    }
  }

  #timeText(id, state) {
    const { times } = this.#flows[flowOf(id)];
    if (state === "skipped") return "–";
    if (id === "script") return this.#formatTime(SCRIPT.reduce((sum, step) => sum + (times[step] ?? 0), 0));
    const spent = times[id.replace("later-", "")];
    return spent === undefined ? "" : this.#formatTime(spent);
  }

  #remark(id) {
    const flow = this.#flows[flowOf(id)];
    if (id === "tried") return ` · ${this.#texts.tries(flow.commands.tried.length)}`;
    if (id === "deleted") return this.#state(id) === "skipped" ? ` · ${this.#texts.notNeeded}` : "";
    return flow.status >= 400 ? `${flow.status} · ${this.#texts.refused}` : "";
  }

  #draw() {
    this.#width = Math.round(this.#box.clientWidth);
    if (!this.#width) return; // before the style sheet: the observer will call again
    this.#box.replaceChildren(new Drawing(this.#texts, this.#width).draw(), inWords(this.#texts));
    this.#light();
  }
}

// The same for those who do not see the drawing.
function inWords(texts) {
  const list = document.createElement("ol");
  list.className = "unseen";
  for (const { id, from, to } of MESSAGES) {
    const item = list.appendChild(document.createElement("li"));
    Object.assign(item.dataset, { step: id, kind: "item" });
    const [sender, receiver] = [from, to].map((index) => texts[LIFELINES[index] ?? "outside"]);
    item.append(`${sender} → ${receiver}: ${texts.steps[id]} `);
    for (const kind of ["time", "remark"]) item.appendChild(document.createElement("span")).className = kind;
  }
  return list;
}

const flowOf = (id) => (id.startsWith("later-") ? "later" : "");

// Wide: a label stays between its lifelines, and the times have a column of their own. Narrow: it takes the width
// that it needs, across lifelines, and none of these has a bar.
class Drawing {
  constructor(texts, width) {
    this.texts = texts;
    this.width = width;
    this.wide = true;
    this.column = (width - TIME_WIDTH - 22) / LIFELINES.length;
    this.fontSize = Math.min(...MESSAGES.map((row) => fitting(texts.steps[row.id].split(" "), this.#room(row), LABEL, 400)));
    if (this.fontSize < SMALLEST_LABEL) {
      this.wide = false;
      this.column = (width - 14) / LIFELINES.length;
      this.fontSize = 12;
    }
    this.lineHeight = this.fontSize + 3.5;
    this.arrows = {}; // y of each row's arrow
    this.y = 0;
    this.svg = element("svg", { "aria-hidden": "true" });
    this.lines = element("g", {}, this.svg);
    this.bars = element("g", {}, this.svg);
    this.frames = element("g", {}, this.svg);
    this.body = element("g", {}, this.svg);
  }

  x(index) {
    return index === OUTSIDE ? this.width - (this.wide ? TIME_WIDTH + 4 : 2) : this.column * (index + 0.5);
  }

  // Where labels end.
  get right() {
    return this.width - (this.wide ? TIME_WIDTH : TIME_ROOM);
  }

  #room({ from, to }) {
    const [start, end] = [this.x(from), this.x(to)];
    if (!this.wide) return from === to ? start - BESIDE_BARS / 2 : this.right;
    return (from === to ? 2 * this.column - SELF : Math.abs(end - start)) - BESIDE_BARS;
  }

  draw() {
    this.#heads();
    const top = this.y;
    for (const item of ROWS) this.#item(item);
    const bottom = this.y + 10;
    LIFELINES.forEach((_, index) =>
      element("path", { class: "lifeline", d: `M${this.x(index)} ${top}V${bottom}` }, this.lines));
    if (this.wide) for (const [index, first, last] of BARS) this.#bar(index, first, last);
    const height = Math.ceil(bottom + 2);
    for (const [name, value] of Object.entries({ width: this.width, height, viewBox: `0 0 ${this.width} ${height}` }))
      this.svg.setAttribute(name, value);
    return this.svg;
  }

  #heads() {
    const room = this.column - (this.wide ? 18 : 8);
    const size = fitting(LIFELINES.flatMap((id) => this.texts[id].split(" ")), room, this.wide ? 12.5 : 10.5, 600);
    const names = LIFELINES.map((id) => wrap(this.texts[id], room, `600 ${size}px`));
    const lines = Math.max(...names.map((name) => name.length));
    const height = lines * (size + 3) + 12;
    names.forEach((name, index) => {
      const width = this.column - (this.wide ? 10 : 3);
      element("rect", { class: "head", x: this.x(index) - width / 2, y: 0.5, width, height, rx: 7 }, this.body);
      const y = 0.5 + height / 2 - ((name.length - 1) * (size + 3)) / 2 + size * 0.35;
      name.forEach((line, number) =>
        text(line, { class: "head-text", "font-size": size, "text-anchor": "middle", x: this.x(index), y: y + number * (size + 3) }, this.body));
    });
    this.y = height + 8;
  }

  #item(item) {
    if (item.frame) this.#frame(item);
    else if (item.divider) this.#divider();
    else if (item.caption) this.#caption(item);
    else this.#row(item);
  }

  #row(row) {
    const { id, from, to, answer } = row;
    const group = element("g", { "data-step": id, "data-kind": "row" }, this.body);
    const [start, end] = [this.x(from), this.x(to)];
    const self = from === to;
    const lines = wrap(this.texts.steps[id], this.#room(row), `${this.fontSize}px`);
    const middle = (start + end) / 2;
    const longest = Math.max(...lines.map((line) => measure(line, `${this.fontSize}px`)));
    const centre = Math.min(Math.max(middle, longest / 2 + 1), this.right - longest / 2 - 2);
    this.y += 6;
    const firstLine = this.y + this.lineHeight - (self ? -4 : 4);
    const look = { class: "label", "font-size": this.fontSize };
    const [x, anchor] = !self ? [centre, "middle"] : this.wide ? [start + SELF, "start"] : [start - BESIDE_BARS / 2, "end"];
    lines.forEach((line, number) =>
      text(line, { ...look, x, y: firstLine + number * this.lineHeight, "text-anchor": anchor }, group));
    // What is said instead when the request was refused; there is room before the first lifeline.
    if (id.endsWith("answered")) {
      const place = this.wide ? { x: start - BESIDE_BARS / 2, "text-anchor": "end" } : { x: 1, "text-anchor": "start" };
      text("", { ...look, class: "label remark", y: firstLine + (lines.length - 1) * this.lineHeight, ...place }, group);
    }
    this.y += lines.length * this.lineHeight + (self ? 2 : 4);
    const y = this.y;
    this.arrows[id] = y;
    if (self) {
      const x = start + 4;
      element("path", { class: "line", d: `M${x} ${y - 12}h22v14h-20` }, group);
      head(x + 1, y + 2, -1, false, group);
    } else {
      const direction = Math.sign(end - start);
      const [a, b] = [start + 4 * direction, end - (to === OUTSIDE ? 0 : 5) * direction];
      element("path", { class: answer ? "line dashed" : "line", d: `M${a} ${y}H${b}` }, group);
      head(b, y, direction, answer, group);
    }
    this.#time(this.wide ? y + 4 : firstLine, group);
    this.y += self ? 8 : 6;
  }

  #time(y, group) {
    text("", { class: "time", "font-size": this.fontSize, x: this.width - 1, y, "text-anchor": "end" }, group);
  }

  #caption({ caption, beside }) {
    const group = element("g", { "data-step": caption, "data-kind": "row caption" }, this.body);
    this.y += 18;
    const x = Math.min(this.x(beside) - 10, this.right - 6);
    text(this.texts[caption], { class: "label", "font-size": this.fontSize - 1, x, y: this.y - 2, "text-anchor": "end" }, group);
    this.#time(this.y - 2, group);
    this.y += 6;
  }

  #frame({ frame, rows }) {
    this.y += 8;
    const top = this.y;
    const left = this.wide ? this.x(2) - this.column / 2 + 4 : 0.5;
    const right = this.wide ? this.x(4) + this.column / 2 - 2 : this.width - 0.5;
    const group = element("g", { "data-step": rows.at(-1).id, "data-kind": "frame" }, this.frames);
    const x = this.wide ? this.x(2) + BESIDE_BARS / 2 + 2 : left + 9;
    const label = text(this.texts[frame], { class: "frame-text", "font-size": this.fontSize - 1, x, y: top + 14 }, group);
    element("tspan", { class: "remark" }, label);
    this.y += 17;
    for (const inner of rows) this.#row(inner);
    this.y += 4;
    const box = element("rect", { class: "frame-box", x: left, y: top, width: right - left, height: this.y - top, rx: 8 });
    group.prepend(box);
    this.y += 2;
  }

  #divider() {
    this.y += 22;
    const label = this.texts.later;
    const half = measure(label, `${this.fontSize - 1}px`) / 2 + 10;
    const middle = this.width / 2;
    element("path", { class: "divider", d: `M0 ${this.y}H${middle - half}M${middle + half} ${this.y}H${this.width}` }, this.frames);
    text(label, { class: "frame-text", "font-size": this.fontSize - 1, x: middle, y: this.y + 4, "text-anchor": "middle" }, this.frames);
    this.y += 12;
  }

  #bar(index, first, last) {
    const group = element("g", { "data-step": first, "data-kind": "bar" }, this.bars);
    const top = this.arrows[first] - 3;
    element("rect", { x: this.x(index) - 4, y: top, width: 8, height: this.arrows[last] + 3 - top, rx: 4 }, group);
  }
}

function head(x, y, direction, open, parent) {
  const back = x - 7 * direction;
  const shape = open ? `M${back} ${y - 4}L${x} ${y}L${back} ${y + 4}` : `M${back} ${y - 4}L${x} ${y}L${back} ${y + 4}Z`;
  element("path", { class: open ? "line" : "tip", d: shape }, parent);
}

function element(name, attributes = {}, parent = undefined) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

function text(content, attributes, parent) {
  const made = element("text", attributes, parent);
  made.append(content);
  return made;
}

const canvas = document.createElement("canvas").getContext("2d");

function measure(words, font) {
  canvas.font = `${font} ${getComputedStyle(document.body).fontFamily}`;
  return canvas.measureText(words).width;
}

// The largest size, up to the wished one, at which every word has room.
function fitting(words, room, wished, weight) {
  return Math.min(wished, ...words.map((word) => (wished * room) / measure(word, `${weight} ${wished}px`)));
}

function wrap(words, room, font) {
  const lines = [];
  for (const word of words.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && measure(longer, font) <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
