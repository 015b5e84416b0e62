// The page: asks for pictures and figures, shows them, and says when they do not come.

import { ask, Refusal } from "./ask.js";
import { drawChart, drawKey } from "./charts.js";
import { decode, packets } from "./picture.js";
import { Tile } from "./tile.js";

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const look = { opacity: 0.5, outline: false, colours: [], shown: [] };
let background = null; // id of the class that is clear at first, if there is one
const tiles = new Map(); // source number → Tile
const history = new Map(); // source number → { column → Map second → value }
let partNames = [];
let lastSecond = -1;
let chosen = 0;
let lostAt = null; // performance.now() when the server stopped answering
let newestStatus = null;

// ── Asking the server ─────────────────────────────────────────────────────────────────────

let wake = () => {};

async function watchFrames() {
  for (;;) {
    const wanted = document.hidden ? [] : [...tiles.values()].filter((tile) => !tile.paused);
    const stop = new AbortController();
    let woken = false;
    const change = new Promise((done) => {
      wake = () => {
        woken = true;
        stop.abort();
        done();
      };
    });
    if (!wanted.length) {
      await change;
      continue;
    }
    try {
      const seen = wanted.map((tile) => `${tile.index}:${tile.number}`).join(",");
      const buffer = await ask(`frames?after=${seen}`, "arrayBuffer", stop);
      if (buffer) await show(buffer);
    } catch {
      if (!woken) await Promise.race([change, sleep(700)]); // the figures' loop says what is wrong
    }
  }
}

async function show(buffer) {
  const pictures = await Promise.all([...packets(buffer)].map(decode));
  for (const picture of pictures) {
    const tile = tiles.get(picture.header.camera);
    if (!tile || tile.paused) picture.bitmap.close();
    else tile.take(picture, look);
  }
}

async function watchFigures() {
  for (;;) {
    try {
      const status = await ask("status", "json");
      if (newestStatus?.run !== status.run) forget(); // the first, or another run
      const past = await ask(`history?after=${lastSecond}`, "json");
      found();
      describe(status);
      remember(past);
    } catch (error) {
      lost(error);
    }
    for (const tile of tiles.values()) tile.mark(lostAt);
    await sleep(lostAt === null ? 1000 : 1500);
  }
}

function lost(error) {
  lostAt ??= performance.now();
  $("banner").textContent =
    error instanceof Refusal
      ? error.message
      : "The stream does not answer: it has ended, or the network is down. Trying again…";
  $("banner").hidden = false;
  link("lost", "no contact");
}

function found() {
  if (lostAt !== null) wake();
  lostAt = null;
  $("banner").hidden = true;
  link("ok", "connected");
}

function link(state, text) {
  if ($("link").dataset.link === state) return;
  $("link").dataset.link = state;
  $("link").textContent = text;
}

// ── Figures ───────────────────────────────────────────────────────────────────────────────

function describe(status) {
  newestStatus = status;
  const labels = JSON.stringify(status.sources.map((source) => source.label));
  if ($("tiles").dataset.labels !== labels) makeTiles(status, labels);
  const classes = JSON.stringify([status.classes, status.background]);
  if ($("legend").dataset.classes !== classes) {
    background = status.background;
    makeLegend(status.classes, classes);
  }
  for (const source of status.sources) tiles.get(source.index).describe(source);
  const engine = status.engine;
  $("engine").textContent = engine
    ? `${engine.name} · ${engine.runtime} · ${engine.precision.toUpperCase()}`
    : "";
  showTotals(status);
}

function forget() {
  history.clear();
  lastSecond = -1;
  for (const tile of tiles.values()) tile.number = 0;
  wake();
}

function makeTiles(status, labels) {
  $("tiles").dataset.labels = labels;
  $("tiles").replaceChildren();
  tiles.clear();
  for (const source of status.sources) {
    const tile = new Tile(source, $("tile").content.firstElementChild.cloneNode(true), listeners);
    tiles.set(source.index, tile);
    $("tiles").append(tile.root);
  }
  $("tiles").dataset.count = status.sources.length;
  $("choose").replaceChildren(...status.sources.map((s) => new Option(s.label, s.index)));
  $("choose-label").hidden = status.sources.length < 2;
  choose(status.sources[0].index);
  wake();
}

const listeners = {
  chosen: (tile) => choose(tile.index),
  paused: () => wake(),
  full: (tile) => showFull(tile, !tile.isFull),
  shown: (tile) => tile.index === chosen && showShares(),
};

/** A camera over the whole page, and over the whole screen where the browser can. */
function showFull(tile, on) {
  for (const each of tiles.values()) each.setFull(on && each === tile);
  document.body.classList.toggle("one", on);
  if (on) document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
}

function showTotals(status) {
  const ages = status.sources.map((s) => s.frame_age_ms.p50).filter((age) => age !== null);
  const rows = [
    ["Frames", status.frames.toLocaleString("en")],
    ["Frames / s", status.fps.toFixed(1)],
    ["Frame age", ages.length ? `${Math.max(...ages).toFixed(0)} ms` : "–"],
    ["Dropped", status.dropped.toLocaleString("en")],
    ["Reconnects", status.reconnects.toLocaleString("en")],
    ["Peak memory", `${status.peak_rss_mib.toFixed(0)} MiB`],
    ["Running", duration(status.seconds)],
  ];
  const list = $("totals");
  if (list.children.length !== rows.length) {
    list.replaceChildren(
      ...rows.map(([name]) => {
        const box = document.createElement("div");
        box.append(document.createElement("dt"), document.createElement("dd"));
        box.firstChild.textContent = name;
        return box;
      }),
    );
  }
  rows.forEach(([, value], n) => (list.children[n].lastChild.textContent = value));
}

function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds) % 60} s` : `${Math.floor(seconds)} s`;
}

function remember(past) {
  partNames = past.parts;
  lastSecond = past.last - 1;
  newestStatus.sources.forEach((source, n) => {
    if (!history.has(source.index)) history.set(source.index, {});
    const kept = history.get(source.index);
    for (const [name, values] of Object.entries(past.sources[n])) {
      kept[name] ??= new Map();
      values.forEach((value, k) => kept[name].set(past.first + k, value));
      for (const second of kept[name].keys()) {
        if (second >= past.last - 200) break;
        kept[name].delete(second);
      }
    }
  });
  showCharts();
}

function showCharts() {
  if (!newestStatus || !history.size) return;
  const last = lastSecond + 1;
  const several = newestStatus.sources.length > 1;
  const of = (index, name) => history.get(index)?.[name] ?? new Map();
  const charts = {
    fps: {
      unit: "fps",
      series: newestStatus.sources.map((source, n) => ({
        name: several ? shorter(source.label) : "fps",
        colour: `--line-${n % 6}`,
        values: of(source.index, "fps"),
      })),
    },
    age: {
      unit: "ms",
      series: ["p99", "p95", "p50"].map((name, n) => ({
        name,
        colour: ["--line-3", "--line-1", "--line-0"][n],
        values: of(chosen, name),
      })),
    },
    parts: {
      unit: "ms",
      stacked: true,
      series: partNames.map((name, n) => ({
        name,
        colour: `--part-${n}`,
        values: of(chosen, name),
      })),
    },
  };
  for (const [name, chart] of Object.entries(charts)) {
    drawKey($(`key-${name}`), chart.series);
    drawChart($(`chart-${name}`), { last, ...chart });
  }
}

const shorter = (label) => (label.length > 22 ? `…${label.slice(-21)}` : label);

// ── Classes and controls ──────────────────────────────────────────────────────────────────

function makeLegend(classes, text) {
  const legend = $("legend");
  legend.dataset.classes = text;
  look.colours = classes.map(({ color }) =>
    [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)),
  );
  look.shown = classes.map((_, id) => id !== background);
  legend.replaceChildren(
    ...classes.map(({ name, color }, id) => {
      const item = document.createElement("li");
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox" });
      box.checked = look.shown[id];
      box.addEventListener("change", () => {
        look.shown[id] = box.checked;
        redraw();
      });
      const words = document.createElement("span");
      words.className = "class";
      words.textContent = name;
      words.title = name;
      const share = document.createElement("span");
      share.className = "share";
      share.textContent = "–";
      const bar = document.createElement("i");
      label.append(box, words, share, bar);
      label.style.setProperty("--c", color);
      item.append(label);
      return item;
    }),
  );
}

function showShares() {
  const shares = tiles.get(chosen)?.composer.picture?.header.shares;
  [...$("legend").children].forEach((item, id) => {
    const share = shares?.[id];
    item.querySelector(".share").textContent =
      share === undefined ? "–" : `${(share * 100).toFixed(1)} %`;
    item.firstChild.style.setProperty("--share", share ?? 0);
  });
}

function choose(index) {
  chosen = index;
  $("choose").value = index;
  for (const tile of tiles.values()) {
    tile.root.classList.toggle("chosen", tiles.size > 1 && tile.index === index);
  }
  const label = tiles.get(index)?.root.getAttribute("aria-label") ?? "";
  $("shares-of").textContent = `Share of the picture's area${tiles.size > 1 ? `, ${label}` : ""}`;
  showShares();
  showCharts();
}

function redraw() {
  for (const tile of tiles.values()) tile.redraw(look);
}

function setOpacity(percent) {
  const value = Math.min(100, Math.max(0, percent));
  $("opacity").value = value;
  $("opacity-value").textContent = `${value} %`;
  look.opacity = value / 100;
  redraw();
}

function setShown(shown) {
  [...$("legend").querySelectorAll("input")].forEach((box, id) => {
    box.checked = shown && id !== background;
    look.shown[id] = box.checked;
  });
  redraw();
}

$("opacity").addEventListener("input", (event) => setOpacity(Number(event.target.value)));
$("outline").addEventListener("change", (event) => {
  look.outline = event.target.checked;
  redraw();
});
$("all").addEventListener("click", () => setShown(true));
$("none").addEventListener("click", () => setShown(false));
$("choose").addEventListener("change", (event) => choose(Number(event.target.value)));

const keys = {
  p: () => {
    const pause = ![...tiles.values()].every((tile) => tile.paused);
    for (const tile of tiles.values()) tile.pause(pause);
  },
  f: () => tiles.has(chosen) && listeners.full(tiles.get(chosen)),
  s: () => tiles.get(chosen)?.snapshot(),
  o: () => $("outline").click(),
  "[": () => setOpacity(Number($("opacity").value) - 10),
  "]": () => setOpacity(Number($("opacity").value) + 10),
  Escape: () => showFull(null, false),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  if (/^[0-9]$/.test(event.key)) {
    $("legend").children[Number(event.key)]?.querySelector("input").click();
  } else keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]?.();
});
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement) showFull(null, false);
});
document.addEventListener("visibilitychange", () => wake());
new ResizeObserver(showCharts).observe($("chart-fps"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showCharts);
setInterval(() => {
  for (const tile of tiles.values()) tile.mark(lostAt);
}, 250);

if (typeof DecompressionStream === "undefined") {
  $("banner").textContent = "This browser is too old for the live view (it lacks DecompressionStream).";
  $("banner").hidden = false;
} else {
  watchFigures();
  watchFrames();
}
