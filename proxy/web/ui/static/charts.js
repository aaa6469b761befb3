// Charts of the overview: the last hour by the minute.
"use strict";

const ASK_EACH_TICKS = 5;
const HEIGHT = 170;
const LINES = {
  requests: [["requests", "requests", "--one", true]],
  tokens: [["tokens", "tokens", "--one", true], ["budget", "budget", "--four", false]],
  errors: [
    ["upstream_429", "429", "--two"], ["upstream_5xx", "5xx", "--bad"],
    ["connection", "no answer", "--three"], ["upstream_4xx", "misconfigured", "--four"],
    ["timeout", "time over", "--one"],
  ],
};
const place = document.querySelector("[data-charts]");
const charts = new Map();
let etag = "";
let shown = null;
let ticks = 0;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const sizes = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [size, unit] = sizes.find(([each]) => value >= each) || [1, ""];
  return `${Number((value / size).toPrecision(3))}${unit}`;
}

function options(kind, width) {
  const axis = { stroke: colour("--muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("--line"), width: 1 };
  return {
    width,
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    cursor: { y: false, points: { size: 6 } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 5)] } },
    axes: [
      { ...axis, grid: { show: false }, size: 28, values: "{HH}:{mm}" },
      { ...axis, grid, size: 44, values: (_, marks) => marks.map(short) },
    ],
    series: [
      { label: "UTC", value: "{HH}:{mm}" },
      ...LINES[kind].map(([, label, stroke, fills]) => ({
        label,
        stroke: colour(stroke),
        width: 2,
        fill: fills ? `color-mix(in srgb, ${colour(stroke)} 14%, transparent)` : undefined,
        dash: label === "budget" ? [5, 4] : undefined,
        points: { show: false },
        value: (_, value) => short(value),
      })),
    ],
  };
}

function columns(kind) {
  const budget = shown.at.map(() => shown.budget);
  return [shown.at, ...LINES[kind].map(([name]) => (name === "budget" ? budget : shown[name]))];
}

function draw() {
  for (const element of place.querySelectorAll("[data-chart]")) {
    const kind = element.dataset.chart;
    const before = charts.get(kind);
    if (before) before.setData(columns(kind));
    else charts.set(kind, new uPlot(options(kind, element.clientWidth), columns(kind), element));
  }
}

function again() {
  for (const chart of charts.values()) chart.destroy();
  charts.clear();
  if (shown) draw();
}

async function ask() {
  const told = await fetch(place.dataset.charts, {
    headers: { "HX-Request": "true", ...(etag ? { "If-None-Match": etag } : {}) },
  });
  if (told.status !== 200) return;
  etag = told.headers.get("ETag");
  shown = await told.json();
  draw();
}

document.body.addEventListener("tick", () => {
  ticks += 1;
  // That the gateway is away, the page says.
  if (ticks % ASK_EACH_TICKS === 0) ask().catch(() => {});
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
window.addEventListener("resize", again);
ask().catch(() => {});
