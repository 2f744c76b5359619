// The page: what keys and the mouse do, and what is drawn. The picture is a `View`, its labels a `Labels`.
import {Labels, client, folder, inside, read} from "./labels.js";
import {View} from "./view.js";

const $ = (id) => document.getElementById(id);
const REACH = 9; // screen pixels around a head or ring that belong to it
const POLL = 10_000; // ms between looks at what others do
const STEP = 8; // screen pixels that an arrow key moves the cursor

const canvas = $("canvas");
const view = new View(canvas);
let rows = []; // the server's list of pictures
let labels = null; // of the picture that is shown
let wanted = ""; // the picture that was asked for last, shown or broken
const broken = new Map(); // pictures that cannot be shown, and why
let rings = []; // proposals that are neither accepted nor refused
let radius = 0; // a head nearer than this, in picture pixels, is the proposed one
let cursor = [0, 0]; // in picture pixels
let corners = null; // of the region that is being drawn
let held = null; // {index, at}: the head that is moved, not yet put down
let drag = null; // {from, moved, head}: the mouse is down
let showHeads = true, showRings = true;
let opened = 0; // the latest picture asked for: an earlier one's answer is not shown any more
let asking = new AbortController(); // of that picture's requests

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

function complainOfConflicts(name) { // of the pictures other than this one
  const met = [...unsaved].filter((one) => one.met && one.name !== name).map((one) => one.name);
  complain(met.length ? `Somebody else changed ${met.join(", ")}, and your last change is not saved. Open it again; undo brings yours back.` : "");
}

// Pictures.
const url = (what, name) => `${what}?name=${encodeURIComponent(name)}&client=${client}&folder=${folder}`;

async function refresh() {
  try {
    rows = (await read(url("pictures", labels?.name ?? ""))).rows;
    for (const row of rows) { // what is on its way to the server counts
      const own = [...unsaved].find((one) => one.unsaved && one.name === row.name);
      if (own) Object.assign(row, {heads: own.counted.length, done: own.now.done});
    }
    drawList();
  } catch (error) {
    if (!rows.length) complain(error.message);
  }
}

async function open(name) {
  const mine = ++opened;
  asking.abort(); // a browser has few connections, and the server one model
  asking = new AbortController();
  const {signal} = asking;
  wanted = name;
  complainOfConflicts(name);
  $("doing").textContent = `opening ${name}`;
  $("doing").hidden = false;
  try {
    let own = [...unsaved].find((one) => one.name === name); // on its way to the server, or met by somebody else's change
    const version = own?.version;
    const answer = await read(url("labels", name), signal);
    const response = await fetch(url("picture", name), {signal});
    if (!response.ok) throw Object.assign(new Error((await response.json()).error), {code: response.status});
    const blob = await response.blob();
    if (mine !== opened) return;
    labels = null; // nothing may be labelled between two pictures
    await view.open(blob, [answer.width, answer.height]);
    if (mine !== opened) return;
    own ??= new Labels(answer, (kind, message) => told(own, kind, message), () => labels === own && changed());
    if (own.version === version) own.take(answer); // else it was saved after the server had answered
    own.met = false; // it is looked at now
    unsaved.add(own);
    labels = own;
    broken.delete(name);
    [rings, corners, held, drag] = [[], null, null, null];
    cursor = [answer.width / 2, answer.height / 2];
    location.hash = encodeURIComponent(name);
    changed();
    refresh();
    propose(name, mine, signal);
  } catch (error) {
    if (mine === opened) {
      [labels, rings] = [null, []];
      view.close();
      redraw();
      if (error.code === 400 && !error.message.includes("another folder")) broken.set(name, error.message); // another error may be over soon
      location.hash = encodeURIComponent(name);
      drawList();
      complain(error.message);
      $("doing").hidden = true;
    }
  }
}

async function propose(name, mine, signal) {
  $("doing").textContent = "looking for heads";
  try {
    const answer = await read(url("proposals", name), signal);
    if (mine !== opened) return;
    [rings, radius] = [answer.points, answer.radius];
    changed();
  } catch (error) {
    if (mine === opened) complain(error.message);
  } finally {
    if (mine === opened) $("doing").hidden = true;
  }
}

const place = () => rows.findIndex((row) => row.name === wanted);

function go(step) {
  const next = rows[place() + step];
  if (next) open(next.name);
}

async function finish() {
  if (labels && !labels.now.done) labels.change({done: true});
  const from = place();
  await refresh(); // who is where by now
  const others = [...rows.slice(from + 1), ...rows.slice(0, from)].filter((row) => !row.done && !broken.has(row.name));
  const next = others.find((row) => !row.elsewhere) ?? others[0];
  if (next) open(next.name);
  else complain(broken.size ? `All pictures are finished but ${[...broken.keys()].join(", ")}: cannot be read.` : "All pictures are finished.");
}

// Saving: every picture's labels save themselves, also after another picture is opened.
const unsaved = new Set();

function told(which, kind, message) {
  if (kind === "conflict") return complain(message);
  if (kind === "saved" && which !== labels) refresh(); // the list may have been asked for before
  const waiting = [...unsaved].filter((one) => one.unsaved);
  for (const one of unsaved) if (!one.unsaved && !one.met && one !== labels) unsaved.delete(one);
  const text = {saved: "saved", saving: "saving", waiting: `NOT SAVED (${message}); trying again`}[kind];
  if (which === labels || kind === "waiting" || !waiting.length) {
    $("saved").textContent = text;
    $("saved").dataset.kind = kind;
  }
}

addEventListener("beforeunload", (event) => {
  if ([...unsaved].some((one) => one.unsaved)) event.preventDefault();
});

// Labels.
const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const within = ([x, y]) => [[x, view.size[0]], [y, view.size[1]]].map(([v, most]) =>
  Math.round(10 * Math.min(Math.max(v, 0), most - 0.1)) / 10);

function nearest(points, at) { // the index of the point within reach, or -1
  const distances = points.map((point) => apart(point, at));
  const least = Math.min(...distances);
  return least * view.scale <= REACH ? distances.indexOf(least) : -1;
}

let ringsOf = {what: [], rings: []}; // found once for what they depend on: thousands of heads times thousands of rings
function visibleRings() {
  const what = [labels.now, rings, radius];
  if (!showRings || labels.now.done) return [];
  if (what.some((part, index) => part !== ringsOf.what[index])) {
    const free = rings.filter((ring) => !labels.now.points.some((point) => apart(point, ring) < radius)
      && !labels.now.ignore.some((polygon) => inside(ring, polygon)));
    ringsOf = {what, rings: free};
  }
  return ringsOf.rings;
}

function add(at) {
  if (corners) {
    // The second click of a double click is the same corner.
    if (!corners.length || apart(corners.at(-1), at) * view.scale > 3) corners.push(within(at));
    return changed();
  }
  const free = visibleRings();
  const index = nearest(free, at);
  labels.change({points: [...labels.now.points, within(index < 0 ? at : free[index])]});
}

function move(index, to) {
  labels.change({points: labels.now.points.map((point, i) => (i === index ? within(to) : point))});
}

function remove(at) {
  const {points, ignore} = labels.now;
  const index = nearest(points, at);
  if (index >= 0) return labels.change({points: points.filter((_, i) => i !== index)});
  const free = visibleRings();
  const ring = nearest(free, at);
  if (ring >= 0) {
    rings = rings.filter((one) => one !== free[ring]);
    return changed();
  }
  const region = ignore.findLastIndex((polygon) => inside(at, polygon));
  if (region >= 0) labels.change({ignore: ignore.filter((_, i) => i !== region)});
}

function acceptView() {
  const shown = visibleRings().filter((ring) => view.shows(ring));
  if (shown.length) labels.change({points: [...labels.now.points, ...shown.map(within)]});
}

function toRing(step) { // from left to right
  const free = [...visibleRings()].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  if (!free.length) return;
  const after = (ring) => ring[0] - cursor[0] || ring[1] - cursor[1];
  cursor = step > 0 ? free.find((ring) => after(ring) > 0) ?? free[0] : free.findLast((ring) => after(ring) < 0) ?? free.at(-1);
  view.reveal(cursor);
  redraw();
}

function pickUp() {
  if (held) {
    const {index, at} = held;
    held = null;
    return move(index, at);
  }
  const index = nearest(labels.now.points, cursor);
  if (index >= 0) held = {index, at: cursor = labels.now.points[index]};
  redraw();
}

function closeRegion() {
  if (corners.length < 3) return complain("A region needs at least three corners.");
  const ring = corners;
  corners = null;
  complain("");
  labels.change({ignore: [...labels.now.ignore, ring]});
}

// Keys; the buttons press them, too.
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const middle = () => view.box().map((length) => length / 2);
const at = () => (view.shows(cursor) ? view.toScreen(cursor) : middle());
const KEYS = {
  PageUp: () => go(-1), PageDown: () => go(1), Enter: () => (corners ? closeRegion() : finish()), "?": () => $("help").showModal(),
  f: () => labels.change({done: !labels.now.done}), u: () => labels.undo(), r: () => labels.redo(),
  " ": () => (held ? pickUp() : add(cursor)), Delete: () => remove(cursor), Backspace: () => remove(cursor), m: pickUp,
  ".": () => toRing(1), ",": () => toRing(-1), a: acceptView, p: () => { showRings = !showRings; changed(); },
  h: () => { showHeads = !showHeads; changed(); }, i: () => { corners = corners ? null : []; changed(); },
  Escape: () => { [corners, held] = [null, null]; complain(""); changed(); },
  "+": () => { view.zoom(1.5, at()); redraw(); }, "-": () => { view.zoom(1 / 1.5, at()); redraw(); }, 0: () => { view.fit(); redraw(); },
};
KEYS["="] = KEYS["+"];
const ALWAYS = ["PageUp", "PageDown", "Enter", "?"]; // also without a picture

function press(key, shift = false) {
  if (!labels && !ALWAYS.includes(key)) return;
  if (!(key in ARROWS)) {
    if (held && ![" ", "m", "Escape", "+", "=", "-", "0"].includes(key)) held = null; // it goes back
    return KEYS[key]();
  }
  const step = shift ? 1 : STEP / view.scale;
  cursor = within(cursor.map((v, axis) => v + step * ARROWS[key][axis]));
  if (held) held.at = cursor;
  view.reveal(cursor);
  redraw();
}

document.addEventListener("keydown", (event) => {
  if ($("help").open || event.altKey) return;
  let key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    key = {z: event.shiftKey ? "r" : "u", y: "r"}[key];
    if (!key) return;
  }
  // A list or button that has the focus keeps Enter and Space.
  if (document.activeElement?.tagName === "BUTTON" && [" ", "Enter"].includes(key)) return;
  if (!(key in KEYS) && !(key in ARROWS)) return;
  event.preventDefault();
  if (event.repeat && ["Enter", "f", "a"].includes(key)) return; // held down, it would finish pictures unseen
  press(key, event.shiftKey);
});
for (const button of document.querySelectorAll("[data-key]")) {
  button.onclick = () => { press(button.dataset.key); canvas.focus(); };
}

// The mouse.
const where = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
canvas.addEventListener("pointerdown", (event) => {
  if (!labels) return;
  if (drag && drag.id !== event.pointerId) { // a second finger
    drag = held = null;
    return redraw();
  }
  canvas.focus();
  const from = where(event);
  cursor = view.toPicture(from);
  held = null;
  if (event.button === 2) return remove(cursor);
  if (event.button > 1) return;
  const head = corners || event.button === 1 || !showHeads ? -1 : nearest(labels.now.points, cursor);
  drag = {from, moved: event.button === 1, head, last: from, id: event.pointerId};
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!labels || (drag && drag.id !== event.pointerId)) return;
  const to = where(event);
  if (drag && (drag.moved ||= apart(to, drag.from) > 4)) {
    if (drag.head < 0) view.pan(to[0] - drag.last[0], to[1] - drag.last[1]);
    else held = {index: drag.head, at: within(view.toPicture(to))};
    drag.last = to;
  }
  if (!held || drag) cursor = view.toPicture(to);
  redraw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!labels || drag?.id !== event.pointerId) return;
  const {moved, head} = drag;
  drag = null;
  if (head >= 0 && moved) {
    held = null;
    move(head, view.toPicture(where(event)));
  } else if (head < 0 && !moved && event.detail < 2) {
    const [x, y] = view.toPicture(where(event));
    if (x >= 0 && y >= 0 && x < view.size[0] && y < view.size[1]) add([x, y]);
  }
});
canvas.addEventListener("pointercancel", () => { drag = held = null; redraw(); });
canvas.addEventListener("dblclick", () => { if (corners?.length >= 3) closeRegion(); });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), where(event));
  redraw();
}, {passive: false});
new ResizeObserver(() => { view.keep(); redraw(); }).observe(canvas);

// Drawing.
let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; view.draw((context) => { if (labels) drawLabels(context); }); });
}

function changed() {
  $("count").textContent = labels ? labels.counted.length.toLocaleString("en") : "";
  $("done").setAttribute("aria-pressed", labels.now.done);
  $("region").setAttribute("aria-pressed", corners !== null);
  $("grey").setAttribute("aria-pressed", showRings);
  const row = rows.find((one) => one.name === labels.name); // while another picture is opened, too
  if (row) Object.assign(row, {heads: labels.counted.length, done: labels.now.done});
  drawList();
  redraw();
}

function drawLabels(context) {
  const path = (ring) => {
    context.beginPath();
    for (const point of ring) context.lineTo(...view.toScreen(point));
  };
  const circle = (point, size, fill, stroke, width = 1.5) => {
    context.beginPath();
    context.arc(...view.toScreen(point), size, 0, 2 * Math.PI);
    [context.fillStyle, context.strokeStyle, context.lineWidth] = [fill, stroke, width];
    if (fill) context.fill();
    context.stroke();
  };
  for (const ring of labels.now.ignore) {
    path(ring);
    context.closePath();
    [context.fillStyle, context.strokeStyle, context.lineWidth] = ["rgb(20 20 24 / 60%)", "#fff", 1];
    context.fill();
    context.stroke();
  }
  if (corners) {
    path([...corners, cursor]);
    [context.strokeStyle, context.lineWidth] = ["#ffd000", 2];
    context.stroke();
    for (const corner of corners) circle(corner, 3, "#ffd000", "#000");
  }
  for (const ring of visibleRings()) if (view.shows(ring)) circle(ring, 6, null, "#000", 3.5), circle(ring, 6, null, "#c8ccd4", 2);
  const size = Math.max(2.5, Math.min(5, 4 * Math.sqrt(view.scale)));
  if (showHeads) {
    labels.now.points.forEach((point, index) => {
      const shown = held?.index === index ? held.at : point;
      if (view.shows(shown)) circle(shown, size, held?.index === index ? "#ffd000" : "#ff2d55", "#fff", 1.2);
    });
  }
  const [x, y] = view.toScreen(cursor);
  for (const [colour, width] of [["#000", 3], ["#fff", 1]]) {
    context.beginPath();
    for (const [dx, dy] of Object.values(ARROWS)) context.moveTo(x + 5 * dx, y + 5 * dy), context.lineTo(x + 13 * dx, y + 13 * dy);
    [context.strokeStyle, context.lineWidth] = [colour, width];
    context.stroke();
  }
}

function drawList() {
  const done = rows.filter((row) => row.done);
  const heads = rows.reduce((sum, row) => sum + row.heads, 0);
  $("totals").textContent = `${done.length} of ${rows.length} finished, ${heads.toLocaleString("en")} heads`;
  if ($("list").childElementCount !== rows.length) {
    $("list").replaceChildren(...rows.map((row) => {
      const item = document.createElement("li");
      const [button, mark, name, count] = ["button", "i", "span", "b"].map((kind) => document.createElement(kind));
      name.textContent = button.title = row.name;
      button.onclick = () => { open(row.name); canvas.focus(); };
      button.append(mark, name, count);
      item.append(button);
      return item;
    }));
  }
  rows.forEach((row, index) => {
    const button = $("list").children[index].firstChild;
    const current = row.name === wanted;
    const [mark, title] = broken.has(row.name) ? ["!", broken.get(row.name)] : row.done ? ["✓", "finished"]
      : row.elsewhere ? ["●", "somebody else shows it now"] : ["", ""];
    Object.assign(button.firstChild, {textContent: mark, title});
    button.lastChild.textContent = row.heads || "";
    if (current && button.getAttribute("aria-current") !== "true") button.scrollIntoView({block: "nearest"});
    button.setAttribute("aria-current", current);
  });
}

await refresh();
setInterval(refresh, POLL);
const asked = decodeURIComponent(location.hash.slice(1));
const first = rows.find((row) => row.name === asked) ?? rows.find((row) => !row.done && !row.elsewhere) ?? rows[0];
if (first) await open(first.name);
canvas.focus();
globalThis.annotate = {view, get labels() { return labels; }, get rings() { return labels ? visibleRings() : []; }}; // for the console
