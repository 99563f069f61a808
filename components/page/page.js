"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("page-data").textContent);
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const titles = { epochs: "epochs", updates: "updates", seconds: "seconds of training" };
  const touch = window.matchMedia("(pointer: coarse)").matches;
  let unit = "epochs";

  // Only where a colour is expected: elsewhere a text may look like a variable.
  const resolve = (value, key) => {
    if (Array.isArray(value)) return value.map((each) => resolve(each, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, k)]));
    }
    const variable = typeof value === "string" && /color(scale)?$/.test(key)
      && value.match(/^var\((--[\w-]+)\)$/);
    return variable
      ? getComputedStyle(document.documentElement).getPropertyValue(variable[1]).trim() : value;
  };

  const build = (spec) => {
    const { data, layout } = resolve({ data: spec.data, layout: spec.layout }, "");
    layout.font = { family: getComputedStyle(document.body).fontFamily };
    layout.dragmode = touch ? false : "zoom";
    const axis = spec.axes[unit];
    if (axis) {
      for (const trace of data) trace.x = trace.x.map((at) => axis[at]);
      for (const shape of layout.shapes ?? []) {
        shape.x0 = axis[shape.x0];
        shape.x1 = axis[shape.x1];
      }
      for (const text of layout.annotations) if (text.xref !== "paper") text.x = axis[text.x];
      for (const name of Object.keys(layout).filter((key) => key.startsWith("xaxis"))) {
        layout[name].title = { text: titles[unit] };
        layout[name].range = [0, axis.at(-1) * 1.02 || 1];
      }
    }
    return [data, layout];
  };

  const plots = [...document.querySelectorAll(".plot")].map(
    (place) => ({ place, spec: specs[place.id.slice("plot-".length)], drawn: false }));

  const draw = (only) => {
    for (const plot of plots.filter(only)) {
      Plotly.react(plot.place, ...build(plot.spec), config);
      plot.drawn = true;
    }
    if (plots.every((plot) => plot.drawn)) document.documentElement.dataset.drawn = "yes";
  };

  for (const input of document.querySelectorAll("input[name^='unit-']")) {
    input.addEventListener("change", () => {
      unit = input.value;
      for (const other of document.querySelectorAll(`input[value='${unit}']`)) other.checked = true;
      draw((plot) => plot.spec.axes[unit]);
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener(
    "change", () => draw((plot) => plot.drawn));
  window.addEventListener("beforeprint", () => draw((plot) => !plot.drawn));

  // Nothing must move when a plot comes later, or an address such as #data would lead elsewhere.
  for (const { place, spec } of plots) {
    place.style.minHeight = spec.layout.height + "px";
    if (spec.least) place.style.minWidth = spec.least + "px";
    if (spec.most) place.style.maxWidth = Math.max(spec.most, 420) + "px";
  }

  // What is in sight comes first, so that a page with many plots opens as fast as one with few.
  const seen = ({ place }) => {
    const { top, bottom } = place.getBoundingClientRect();
    return top < window.innerHeight && bottom > 0;
  };
  const later = window.requestIdleCallback ?? window.setTimeout;
  const rest = () => {
    const next = plots.find((plot) => !plot.drawn);
    draw((plot) => plot === next);
    if (next) later(rest);
  };
  draw(seen);
  later(rest);
})();
