"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const RATINGS = ["copy", "near", "no"];
const SIDE = 512, ZOOMS = [1, 2, 4], CACHED = 16;
const LAST = "deepssim-review-reader-" + data.key;
// What no file name can hold, and what a spreadsheet would take for a formula.
const NO_NAME = /[\\/:*?"<>|\p{C}]|^[=+@-]/u;

let pairs = data.pairs.slice();
const known = new Set(pairs.map((pair) => pair.id));
let place = 0, ratings = {}, saves = true, owner = "";
const view = { zoom: 0, y: 0.5, x: 0.5, swapped: false, points: false, plane: 0, slice: 0 };
let blinking = 0;

// What the browser keeps, under `owner`: the name that was given last, "" before there is one.
const storeOf = (reader) => "deepssim-review-" + data.key + "-" + reader;
const typed = () => at("reader").value.trim().normalize("NFC");
function kept(name) {
  const found = {};
  try {
    const all = JSON.parse(localStorage.getItem(storeOf(name)) || "{}");
    for (const [id, rating] of Object.entries(all)) {
      if (known.has(id) && RATINGS.includes(rating)) found[id] = rating;
    }
  } catch (error) { saves = false; }
  return found;
}
function save() {
  try {
    localStorage.setItem(storeOf(owner), JSON.stringify(ratings));
    localStorage.setItem(LAST, owner);
  } catch (error) { saves = false; }
}
// Ratings without a name go over to the first one. A new name is another reader's, or corrects the one before.
function named() {
  const name = typed(), before = Object.keys(ratings).length;
  if (NO_NAME.test(name)) {
    at("reader").value = owner;
    say('A name of a reader cannot hold / \\ : * ? " < > | or begin with = + @ -.');
    return;
  }
  at("reader").value = name;
  if (!name || name === owner) return;
  const corrects = owner && before && !Object.keys(kept(name)).length && confirm(
    `Rated by ${owner}: ${before}. OK: ${name} is the same reader, and these ratings go over. Cancel: ${name} is another reader.`);
  own(name, corrects);
  save();
  show();
}
function own(name, carried) {
  const loose = owner && !carried ? {} : ratings;
  ratings = { ...kept(name), ...loose };
  if (!owner) try { localStorage.removeItem(storeOf("")); } catch (error) { saves = false; }
  owner = at("reader").value = name;
}

// Pictures: strips of slices, decoded when they are near.
const cache = new Map();
async function pixels(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const grey = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < grey.length; i++) grey[i] = rgba[4 * i];
  return grey;
}
function decoded(pair, plane) {
  const name = pair.id + " " + plane;
  if (!cache.has(name)) {
    const entry = { ready: null };
    const strips = pair.planes[plane];
    entry.promise = Promise.all([pixels(strips.fixed), pixels(strips.moving)]).then(([fixed, moving]) => {
      entry.ready = { fixed, moving };
      return entry.ready;
    });
    cache.set(name, entry);
    while (cache.size > CACHED) cache.delete(cache.keys().next().value);
  }
  return cache.get(name);
}
function ahead() {
  for (const step of [1, -1, 2, 3]) {
    const pair = pairs[place + step];
    if (pair) decoded(pair, Math.min(view.plane, pair.planes.length - 1));
  }
}

const small = document.createElement("canvas");
function draw(canvas, grey, side) {
  if (small.width !== side) { small.width = side; small.height = side; }
  const context = small.getContext("2d"), image = context.createImageData(side, side);
  for (let i = 0; i < grey.length; i++) {
    image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = grey[i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  const part = side / ZOOMS[view.zoom], target = canvas.getContext("2d");
  const [top, left] = corner(side, part);
  target.imageSmoothingQuality = "high";
  target.drawImage(small, left, top, part, part, 0, 0, SIDE, SIDE);
}
function corner(side, part) {
  const from = (share) => Math.min(Math.max(share * side - part / 2, 0), side - part);
  return [from(view.y), from(view.x)];
}
function lut() {
  const width = Number(at("window").value), level = Number(at("level").value);
  return Uint8ClampedArray.from({ length: 256 }, (_, v) => ((v - level) / width + 0.5) * 255);
}
function mark(canvas, places, side) {
  const part = side / ZOOMS[view.zoom], scale = SIDE / part, context = canvas.getContext("2d");
  const [top, left] = corner(side, part);
  context.font = "bold 15px sans-serif";
  context.lineWidth = 3;
  places.forEach(([y, x], number) => {
    const v = (y * side - top) * scale, h = (x * side - left) * scale;
    for (const [style, width] of [["#000", 5], ["#fff", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      context.arc(h, v, 8, 0, 2 * Math.PI);
      context.stroke();
    }
    context.strokeStyle = "#000";
    context.lineWidth = 4;
    context.strokeText(String(number + 1), h + 10, v - 6);
    context.fillStyle = "#fff";
    context.fillText(String(number + 1), h + 10, v - 6);
  });
}

function paint(pair, found) {
  const strips = pair.planes[view.plane], side = strips.side, size = side * side;
  const slice = Math.min(view.slice, strips.slices - 1), table = lut();
  const cut = (strip) => {
    const out = new Uint8ClampedArray(size), start = slice * size;
    for (let i = 0; i < size; i++) out[i] = table[strip[start + i]];
    return out;
  };
  const fixed = cut(found.fixed), moving = cut(found.moving), both = new Uint8ClampedArray(size);
  const overlay = at("compare").value === "overlay", share = Number(at("opacity").value) / 100;
  for (let i = 0; i < size; i++) {
    both[i] = overlay ? fixed[i] * (1 - share) + moving[i] * share : 127.5 + (moving[i] - fixed[i]);
  }
  draw(at("fixed"), view.swapped ? moving : fixed, side);
  draw(at("moving"), moving, side);
  draw(at("both"), both, side);
  if (view.points && pair.points) {
    mark(at("fixed"), pair.points.map((p) => (view.swapped ? p.slice(2) : p.slice(0, 2))), side);
    mark(at("moving"), pair.points.map((p) => p.slice(2)), side);
  }
  document.body.dataset.drawn = pair.id;
}
function refresh() {
  const pair = pairs[place];
  view.plane = Math.min(view.plane, pair.planes.length - 1);
  const entry = decoded(pair, view.plane), plane = view.plane;
  if (entry.ready) paint(pair, entry.ready);
  else entry.promise.then((found) => {
    if (pairs[place] === pair && view.plane === plane) paint(pair, found);
  }, () => say("This picture cannot be drawn."));
}

// Words.
function say(extra) {
  if (!owner && Object.keys(ratings).length) extra = (extra ? extra + " " : "") + "Name the reader: the ratings go over to the name.";
  const rated = pairs.filter((pair) => ratings[pair.id]).length, rating = ratings[pairs[place].id];
  const words = { copy: "rated: copy", near: "rated: near copy", no: "rated: no copy" };
  at("status").textContent = `Pair ${place + 1} of ${pairs.length}, ${words[rating] || "not rated"}. ${rated} rated.`
    + (extra ? " " + extra : "") + (saves ? "" : " This browser keeps nothing: export before you close the page.");
}
function show(extra) {
  const pair = pairs[place], strips = pair.planes;
  view.swapped = false;
  for (const name of RATINGS) at("rate-" + name).setAttribute("aria-pressed", String(ratings[pair.id] === name));
  at("previous").disabled = place === 0;
  at("next").disabled = place === pairs.length - 1;
  at("plane-label").hidden = strips.length < 2;
  at("slice-label").hidden = strips[0].slices < 2;
  if (at("plane").length !== strips.length) {
    at("plane").replaceChildren(...strips.map((strip, i) => new Option(strip.name, String(i))));
    view.slice = Math.floor(strips[0].slices / 2);
  }
  at("slice").max = String(strips[Math.min(view.plane, strips.length - 1)].slices - 1);
  at("slice").value = String(view.slice);
  if (at("facts")) {
    at("facts").replaceChildren(...(pair.facts || []).map(([name, value]) => {
      const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      row.append(term, text);
      return row;
    }));
  }
  caption();
  refresh();
  ahead();
  say(extra);
}
function caption() {
  at("fixed-caption").textContent = view.swapped ? data.names[0] + ", in the place of " + data.names[1] : data.names[1];
  at("fixed").setAttribute("aria-label", (view.swapped ? data.names[0] : data.names[1]) + " image");
  at("flicker").setAttribute("aria-pressed", String(view.swapped));
  at("both-caption").textContent = at("compare").value === "overlay"
    ? `overlay: ${at("opacity").value} % ${data.names[0]}` : "difference: mid-grey is agreement";
}

// What a reader does.
function go(step) {
  const to = Math.min(Math.max(place + step, 0), pairs.length - 1);
  if (to !== place) { place = to; show(); }
}
function unrated() {
  for (let step = 1; step <= pairs.length; step++) {
    const to = (place + step) % pairs.length;
    if (!ratings[pairs[to].id]) { place = to; show(); return; }
  }
  say("Every pair has a rating: export them.");
}
function rate(rating) {
  if (rating) ratings[pairs[place].id] = rating;
  else delete ratings[pairs[place].id];
  save();
  const done = pairs.every((pair) => ratings[pair.id]);
  if (rating && place < pairs.length - 1) place += 1;
  show(done ? "Every pair has a rating: export them." : "");
}
function flicker() { view.swapped = !view.swapped; caption(); refresh(); }
function blink() {
  if (blinking) { clearInterval(blinking); blinking = 0; } else blinking = setInterval(flicker, 1000);
  at("blink").setAttribute("aria-pressed", String(Boolean(blinking)));
}
function zoom() {
  view.zoom = (view.zoom + 1) % ZOOMS.length;
  at("zoom-value").textContent = ZOOMS[view.zoom] + "×";
  refresh();
}
function points() {
  if (!at("points")) return;
  view.points = !view.points;
  at("points").setAttribute("aria-pressed", String(view.points));
  refresh();
}
function reset() {
  view.zoom = ZOOMS.length - 1;
  view.y = view.x = 0.5;
  at("window").value = "255";
  at("level").value = "128";
  at("opacity").value = "50";
  zoom();
  caption();
}
function order(how) {
  const kept = pairs[place].id, sign = { copies: -1, others: 1 }[how];
  const key = (pair) => (sign ? sign * pair.margin : Math.abs(pair.margin));
  pairs.sort((a, b) => key(a) - key(b) || (a.id < b.id ? -1 : 1));
  place = pairs.findIndex((pair) => pair.id === kept);
  show();
}
function csv() {
  const rows = data.pairs.filter((pair) => ratings[pair.id]);
  const name = owner.includes(",") ? `"${owner}"` : owner;
  return ["page,reader,pair,rating", ...rows.map((pair) => [data.key, name, pair.id, ratings[pair.id]].join(","))]
    .join("\n") + "\n";
}
const cells = (line) => (line.match(/"[^"]*"|[^,]+/g) || []).map((cell) => cell.replaceAll('"', ""));
function exported() {
  if (!owner || !typed()) { at("reader").focus(); say("Name the reader first."); return; }
  const file = `ratings_${data.blind ? "blind_" : ""}${owner}.csv`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`Exported as ${file}.`);
}
function imported(text) {
  const [head, ...rows] = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter(Boolean).map(cells);
  if (head && head[0] === "page" && head[1] === "pair") { only(rows); return; }
  if (!head || head.join() !== "page,reader,pair,rating") { say("Not imported: these are no ratings of a review."); return; }
  if (rows.some((row) => row[0] !== data.key)) { say("Not imported: these ratings are of another page."); return; }
  const good = rows.filter((row) => row.length === 4 && known.has(row[2]) && RATINGS.includes(row[3]));
  if (good.length < rows.length || new Set(rows.map((row) => row[1])).size > 1) {
    say("Not imported: the file is damaged, or of several readers.");
    return;
  }
  if (good.length && NO_NAME.test(good[0][1])) { say("Not imported: no file can bear this reader’s name."); return; }
  if (good.length) own(good[0][1].trim().normalize("NFC"), false);
  for (const row of good) ratings[row[2]] = row[3];
  save();
  show(`${good.length} ratings imported.`);
}

// A list of pairs, such as those that readers disagree on: the others are left out.
function only(rows) {
  const wanted = new Set(rows.filter((row) => row[0] === data.key).map((row) => row[1]));
  const some = data.pairs.filter((pair) => wanted.has(pair.id));
  if (!some.length) { say("Not imported: this list is of another page, or empty."); return; }
  pairs = some;
  place = 0;
  show(`${some.length} pairs of the list are left to rate.`);
}

const clicks = {
  export: exported, flicker, blink, zoom, points, reset, previous: () => go(-1), next: () => go(1),
  "rate-copy": () => rate("copy"), "rate-near": () => rate("near"), "rate-no": () => rate("no"),
};
for (const [id, act] of Object.entries(clicks)) {
  const button = at(id);
  if (button) button.addEventListener("click", (event) => {
    act();
    // After a click of the mouse, keys mean the picture again.
    if (event.detail > 0 && document.activeElement === button) button.blur();
  });
}
at("reader").addEventListener("change", named);
at("import").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (file) imported(await file.text());
  event.target.value = "";
});
if (at("order")) at("order").addEventListener("change", (event) => order(event.target.value));
at("plane").addEventListener("change", (event) => { view.plane = Number(event.target.value); show(); });
at("slice").addEventListener("input", (event) => { view.slice = Number(event.target.value); refresh(); });
for (const id of ["compare", "opacity", "window", "level"]) at(id).addEventListener("input", () => { caption(); refresh(); });

const keys = {
  1: () => rate("copy"), 2: () => rate("near"), 3: () => rate("no"), 0: () => rate(""),
  ArrowLeft: () => go(-1), ArrowRight: () => go(1), " ": flicker, b: blink, z: zoom, m: points, r: reset, u: unrated,
};
document.addEventListener("keydown", (event) => {
  const target = event.target, act = keys[event.key];
  const rates = event.key === "Enter" ? target.matches(".ratings button")
    : /^[0-3]$/.test(event.key) && !target.matches("input[type=text]");
  if (event.repeat && rates) { event.preventDefault(); return; } // a held key is one rating
  if (!act || !at("keys").checked || event.ctrlKey || event.altKey || event.metaKey) return;
  if (target.matches("select, input[type=text], input[type=file]")) return;
  if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  if (target.matches("button, summary, input") && event.key === " ") return;
  event.preventDefault();
  act();
});

// A zoomed picture is moved by the mouse.
for (const id of ["fixed", "moving", "both"]) {
  let from = null;
  const canvas = at(id), there = (event) => [event.offsetY / canvas.clientHeight, event.offsetX / canvas.clientWidth];
  const clip = (value) => { const edge = 0.5 / ZOOMS[view.zoom]; return Math.min(Math.max(value, edge), 1 - edge); };
  canvas.addEventListener("pointerdown", (event) => { from = [there(event), view.y, view.x]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { from = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [y, x] = there(event), factor = ZOOMS[view.zoom];
    view.y = clip(from[1] - (y - from[0][0]) / factor);
    view.x = clip(from[2] - (x - from[0][1]) / factor);
    refresh();
  });
  canvas.addEventListener("dblclick", (event) => {
    const [y, x] = there(event), part = 1 / ZOOMS[view.zoom], [top, left] = corner(1, part);
    view.y = top + y * part;
    view.x = left + x * part;
    zoom();
  });
}

if (at("points")) at("points").hidden = !data.pairs.some((pair) => pair.points && pair.points.length);
try { owner = at("reader").value = localStorage.getItem(LAST) || ""; } catch (error) { saves = false; }
ratings = kept(owner);
show();
})();
