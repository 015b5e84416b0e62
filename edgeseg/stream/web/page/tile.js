// One camera: its picture, what state it is in, its buttons.

import { Composer } from "./picture.js";

const SILENT_S = 5; // a source that says "ok" is no longer live after so long without a frame

/** The tile of one camera. */
export class Tile {
  /**
   * @param source as /status describes it
   * @param root what to fill, a copy of the template
   * @param listeners called with the tile: chosen, paused, full (asked for), shown (it has another picture)
   */
  constructor(source, root, listeners) {
    this.index = source.index;
    this.number = 0;
    this.paused = false;
    this.state = source.state;
    this.framedAt = null; // performance.now() of the newest frame as the server counts
    this.shownAt = null; // … of the newest that this page got
    this.lostAt = null; // … when the server stopped answering
    this.root = root;
    this.listeners = listeners;
    this.find = (selector) => this.root.querySelector(selector);
    this.canvas = this.find("canvas");
    this.composer = new Composer(this.canvas);
    this.root.dataset.index = source.index;
    this.root.setAttribute("aria-label", source.label);
    this.find(".name").textContent = source.label;
    this.find(".name").title = source.label;
    this.find(".pause").addEventListener("click", () => this.pause());
    this.find(".snapshot").addEventListener("click", () => this.snapshot());
    this.find(".full").addEventListener("click", () => listeners.full(this));
    this.root.addEventListener("pointerdown", () => listeners.chosen(this));
    this.root.addEventListener("focusin", () => listeners.chosen(this));
  }

  take(picture, look) {
    this.shownAt = performance.now();
    if (this.number) this.framedAt = this.shownAt; // the first may be old
    this.number = picture.header.number;
    this.composer.show(picture, look);
    this.mark();
    this.canvas.dataset.frame = picture.header.frame;
    this.root.style.setProperty("--shape", `${picture.header.width} / ${picture.header.height}`);
    this.listeners.shown(this);
  }

  describe(source) {
    this.state = source.state;
    if (source.silent_s !== null) this.framedAt = performance.now() - source.silent_s * 1000;
    const age = source.frame_age_ms.p50;
    this.find(".figures").textContent =
      `${source.fps.toFixed(1)} fps` + (age === null ? "" : ` · ${age.toFixed(0)} ms`);
    this.mark();
  }

  /** Says what the picture is; one that is not live is never shown as if it were. */
  mark(lostAt = this.lostAt) {
    this.lostAt = lostAt;
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

  redraw(look) {
    this.composer.draw(look);
  }

  pause(on = !this.paused) {
    this.paused = on;
    this.find(".pause").setAttribute("aria-pressed", on);
    this.find(".pause").textContent = on ? "Resume" : "Pause";
    this.mark();
    this.listeners.paused(this);
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

  get isFull() {
    return this.root.classList.contains("full");
  }

  /** Over the whole page. */
  setFull(on) {
    this.root.classList.toggle("full", on);
    this.find(".full").setAttribute("aria-pressed", on);
    this.find(".full").textContent = on ? "Close" : "Full view";
  }
}
