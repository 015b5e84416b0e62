// The page: asks for pictures and figures, shows them, and says when they do not come.

import { drawChart, drawKey } from "./charts.js";
import { Composer, decode, packets } from "./picture.js";

const SILENT_S = 5; // a source that says "ok" is no longer live after so long without a frame
const PATIENCE_MS = 10_000;
const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const look = { opacity: 0.5, outline: false, colours: [], shown: [] };
const tiles = new Map(); // source number → Tile
const history = new Map(); // source number → { column → Map second → value }
let partNames = [];
let lastSecond = -1;
let chosen = 0;
let lostAt = null; // performance.now() when the server stopped answering
let newestStatus = null;

// ── One camera ────────────────────────────────────────────────────────────────────────────

class Tile {
  constructor(source) {
    this.index = source.index;
    this.number = 0;
    this.paused = false;
    this.state = source.state;
    this.framedAt = null; // performance.now() of the newest frame as the server counts
    this.shownAt = null; // … of the newest that this page got
    this.root = $("tile").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.root.querySelector(selector);
    this.canvas = this.find("canvas");
    this.composer = new Composer(this.canvas);
    this.root.dataset.index = source.index;
    this.root.setAttribute("aria-label", source.label);
    this.find(".name").textContent = source.label;
    this.find(".name").title = source.label;
    this.find(".pause").addEventListener("click", () => this.pause());
    this.find(".snapshot").addEventListener("click", () => this.snapshot());
    this.find(".full").addEventListener("click", () => this.full());
    this.root.addEventListener("pointerdown", () => choose(this.index));
    this.root.addEventListener("focusin", () => choose(this.index));
    $("tiles").append(this.root);
  }

  take(picture) {
    this.shownAt = performance.now();
    if (this.number) this.framedAt = this.shownAt; // the first may be old
    this.number = picture.header.number;
    this.composer.show(picture, look);
    this.mark();
    this.canvas.dataset.frame = picture.header.frame;
    this.root.style.setProperty("--shape", `${picture.header.width} / ${picture.header.height}`);
    if (this.index === chosen) showShares();
  }

  describe(source) {
    this.state = source.state;
    this.frames = source.frames;
    if (source.silent_s !== null) this.framedAt = performance.now() - source.silent_s * 1000;
    const age = source.frame_age_ms.p50;
    this.find(".figures").textContent =
      `${source.fps.toFixed(1)} fps` + (age === null ? "" : ` · ${age.toFixed(0)} ms`);
    this.mark();
  }

  /** Says what the picture is; one that is not live is never shown as if it were. */
  mark() {
    const now = performance.now();
    const silent = (now - Math.min(this.framedAt ?? now, this.shownAt ?? now)) / 1000;
    let word = this.state;
    let note = "";
    if (lostAt !== null) {
      word = "no contact";
      note = `no contact for ${Math.floor((now - lostAt) / 1000)} s`;
    } else if (this.state === "ended") note = "ended";
    else if (this.state === "failed") note = "failed";
    else if (this.paused) word = "paused";
    else if (!this.composer.picture) note = "waiting for the first frame";
    else if (this.state !== "ok" || silent > SILENT_S) {
      note = `no frame for ${Math.floor(silent)} s`;
      if (this.state === "ok") word = "silent";
    }
    const badge = this.find(".badge");
    badge.textContent = word;
    badge.dataset.state = word;
    const over = this.find(".over");
    over.textContent = note;
    over.hidden = !note;
    this.root.classList.toggle("stale", Boolean(note));
    const name = this.root.getAttribute("aria-label");
    this.canvas.setAttribute("aria-label", `Picture of ${name}: ${note || word}`);
  }

  redraw() {
    this.composer.draw(look);
  }

  pause(on = !this.paused) {
    this.paused = on;
    this.find(".pause").setAttribute("aria-pressed", on);
    this.find(".pause").textContent = on ? "Go on" : "Pause";
    this.mark();
    wake();
  }

  snapshot() {
    if (!this.composer.picture) return;
    const { frame } = this.composer.picture.header;
    this.canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `edgeseg-${this.index}-${frame}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    }, "image/png");
  }

  /** This camera over the whole page, and over the whole screen where the browser can. */
  full(on = !this.root.classList.contains("full")) {
    for (const tile of tiles.values()) tile.setFull(on && tile === this);
    document.body.classList.toggle("one", on);
    if (on) document.documentElement.requestFullscreen?.().catch(() => {});
    else if (document.fullscreenElement) document.exitFullscreen();
  }

  setFull(on) {
    this.root.classList.toggle("full", on);
    this.find(".full").setAttribute("aria-pressed", on);
    this.find(".full").textContent = on ? "Close" : "Full view";
  }
}

// ── Asking the server ─────────────────────────────────────────────────────────────────────

/** The body of an answer as `kind`, "json" or "arrayBuffer"; null where there is no news. */
async function ask(path, kind, stop = new AbortController()) {
  const patience = setTimeout(() => stop.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(path, { cache: "no-store", signal: stop.signal });
    if (answer.status === 204) return null;
    if (answer.ok) return await answer[kind]();
    throw new Refusal(answer.status);
  } finally {
    clearTimeout(patience);
  }
}

class Refusal extends Error {
  constructor(status) {
    super(
      status === 401
        ? "The token is no longer right: open the address that the stream printed."
        : status === 503
          ? "Too many viewers. Trying again…"
          : `The server answers ${status}. Trying again…`,
    );
  }
}

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
    else tile.take(picture);
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
    for (const tile of tiles.values()) tile.mark();
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
  const classes = JSON.stringify(status.classes);
  if ($("legend").dataset.classes !== classes) makeLegend(status.classes, classes);
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
  for (const source of status.sources) tiles.set(source.index, new Tile(source));
  $("tiles").dataset.count = status.sources.length;
  $("choose").replaceChildren(...status.sources.map((s) => new Option(s.label, s.index)));
  $("choose-label").hidden = status.sources.length < 2;
  choose(status.sources[0].index);
  wake();
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
  look.shown = classes.map((_, id) => id > 0); // class 0 is the background: clear
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
  for (const tile of tiles.values()) tile.redraw();
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
    box.checked = shown && id > 0;
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
  f: () => tiles.get(chosen)?.full(),
  s: () => tiles.get(chosen)?.snapshot(),
  o: () => $("outline").click(),
  "[": () => setOpacity(Number($("opacity").value) - 10),
  "]": () => setOpacity(Number($("opacity").value) + 10),
  Escape: () => document.body.classList.contains("one") && tiles.get(chosen)?.full(false),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  if (/^[1-9]$/.test(event.key)) {
    $("legend").children[Number(event.key)]?.querySelector("input").click();
  } else keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]?.();
});
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement) tiles.get(chosen)?.full(false);
});
document.addEventListener("visibilitychange", () => wake());
new ResizeObserver(showCharts).observe($("chart-fps"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showCharts);
setInterval(() => {
  for (const tile of tiles.values()) tile.mark();
}, 250);

if (typeof DecompressionStream === "undefined") {
  $("banner").textContent = "This browser is too old for the live view (it lacks DecompressionStream).";
  $("banner").hidden = false;
} else {
  watchFigures();
  watchFrames();
}
