// Charts of the last minutes, drawn by hand: lines or stacked areas over seconds.

const SPAN = 180; // seconds
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 22;

/** Steps of 1, 2 or 5 × 10ⁿ, three to five of them up to `largest`. */
function ticks(largest) {
  const rough = Math.max(largest, 1e-6) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const count = Math.max(1, Math.ceil(largest / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, n) => n * step);
}

const plain = (value) => String(Number(value.toPrecision(6)));

/**
 * @param canvas where; its CSS size counts
 * @param chart { unit, last: second that is "now", stacked,
 *   series: [{ name, colour: CSS variable, values: Map second → number or null }] }
 */
export function drawChart(canvas, chart) {
  const style = getComputedStyle(canvas);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = `11px ${style.fontFamily}`;
  const first = chart.last - SPAN;
  const marks = ticks(highest(chart, first));
  const names = marks.map((mark, n) => plain(mark) + (n + 1 < marks.length ? "" : ` ${chart.unit}`));
  const left = Math.ceil(Math.max(...names.map((name) => context.measureText(name).width))) + 8;
  const area = {
    left,
    x: (second) => left + ((second - first) / (SPAN - 1)) * (width - left - RIGHT),
    y: (value) => height - BOTTOM - (value / marks.at(-1)) * (height - TOP - BOTTOM),
  };
  axes(context, { width, height, marks, names, style, area });
  if (chart.stacked) stack(context, chart, first, area, style);
  else for (const one of chart.series) line(context, one, first, chart.last, area, style);
  canvas.setAttribute("aria-label", spoken(canvas, chart));
}

function highest(chart, first) {
  let top = 0;
  for (let second = first; second < chart.last; second++) {
    const values = chart.series.map((one) => one.values.get(second) ?? 0);
    const value = chart.stacked ? values.reduce((a, b) => a + b, 0) : Math.max(0, ...values);
    top = Math.max(top, value);
  }
  return top || 1;
}

function axes(context, { width, height, marks, names, style, area }) {
  context.strokeStyle = style.getPropertyValue("--grid");
  context.fillStyle = style.getPropertyValue("--dim");
  context.lineWidth = 1;
  context.textBaseline = "middle";
  context.textAlign = "right";
  marks.forEach((mark, n) => {
    const y = Math.round(area.y(mark)) + 0.5;
    context.beginPath();
    context.moveTo(area.left, y);
    context.lineTo(width - RIGHT, y);
    context.stroke();
    context.fillText(names[n], area.left - 6, y);
  });
  context.textBaseline = "alphabetic";
  for (let minute = 3; minute >= 0; minute--) {
    const x = area.left + ((3 - minute) / 3) * (width - area.left - RIGHT);
    context.textAlign = minute === 3 ? "left" : minute ? "center" : "right";
    context.fillText(minute ? `−${minute} min` : "now", x, height - 6);
  }
}

/** Runs of seconds that have values, without the gaps between. */
function* runs(has, first, last) {
  let run = [];
  for (let second = first; second < last; second++) {
    if (has(second)) run.push(second);
    else if (run.length) {
      yield run;
      run = [];
    }
  }
  if (run.length) yield run;
}

function line(context, one, first, last, area, style) {
  context.strokeStyle = style.getPropertyValue(one.colour);
  context.fillStyle = context.strokeStyle;
  context.lineWidth = 1.75;
  context.lineJoin = "round";
  for (const run of runs((second) => one.values.get(second) != null, first, last)) {
    context.beginPath();
    for (const second of run) context.lineTo(area.x(second), area.y(one.values.get(second)));
    context.stroke();
    if (run.length === 1) {
      const [second] = run;
      context.fillRect(area.x(second) - 1, area.y(one.values.get(second)) - 1, 2, 2);
    }
  }
}

function stack(context, chart, first, area, style) {
  const has = (second) => chart.series[0].values.get(second) != null;
  for (const run of runs(has, first, chart.last)) {
    let below = run.map(() => 0);
    for (const one of chart.series) {
      const above = run.map((second, n) => below[n] + (one.values.get(second) ?? 0));
      context.fillStyle = style.getPropertyValue(one.colour);
      context.beginPath();
      run.forEach((second, n) => context.lineTo(area.x(second), area.y(above[n])));
      const end = area.x(run.at(-1) + (run.length === 1 ? 0.7 : 0));
      context.lineTo(end, area.y(above.at(-1)));
      context.lineTo(end, area.y(below.at(-1)));
      for (let n = run.length - 1; n >= 0; n--) context.lineTo(area.x(run[n]), area.y(below[n]));
      context.closePath();
      context.fill();
      below = above;
    }
  }
}

/** The newest values in words, for those who do not see the picture. */
function spoken(canvas, chart) {
  const newest = chart.series.map((one) => {
    const value = one.values.get(chart.last - 1);
    return `${one.name} ${value == null ? "none" : `${plain(value)} ${chart.unit}`}`;
  });
  const title = canvas.closest("figure").querySelector("b").textContent;
  return `${title}: ${newest.join(", ")}`;
}

/** Coloured names beside the title; made anew only where they change. */
export function drawKey(place, series) {
  const text = series.map((one) => one.colour + one.name).join("\n");
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(
    ...series.map((one) => {
      const item = document.createElement("span");
      item.textContent = one.name;
      item.style.setProperty("--c", `var(${one.colour})`);
      return item;
    }),
  );
}
