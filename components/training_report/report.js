"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const titles = { epochs: "epochs", updates: "updates", seconds: "seconds of training" };
  const touch = window.matchMedia("(pointer: coarse)").matches;
  let unit = "epochs";

  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const mix = (low, high, share) => {
    const parts = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
    const from = parts(low), to = parts(high);
    return `rgb(${from.map((value, i) => Math.round(value + (to[i] - value) * share)).join(",")})`;
  };

  // Only where a colour is expected: elsewhere a text may begin with two dashes of its own.
  const resolve = (value, key) => {
    if (key === "colorscale") {
      return value.map(([at, low, high, share]) => [at, mix(colour(low), colour(high), share)]);
    }
    if (typeof value === "string" && /color$/.test(key) && value.startsWith("--")) {
      return colour(value);
    }
    if (Array.isArray(value)) return value.map((each) => resolve(each, ""));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, k)]));
    }
    return value;
  };

  const build = (spec) => {
    const { data, layout } = resolve({ data: spec.data, layout: spec.layout }, "");
    const ink = colour("--ink"), card = colour("--card"), line = colour("--line");
    Object.assign(layout, {
      autosize: true,
      showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, align: "left" },
      dragmode: touch ? false : "zoom",
    });
    if (spec.index) {
      const axis = page.axes[unit];
      data.forEach((trace, i) => { trace.x = spec.index[i].map((at) => axis[at]); });
      spec.marks.forEach((at, i) => {
        Object.assign(layout.shapes[i], { x0: axis[at], x1: axis[at] });
        layout.annotations[i].x = axis[at];
      });
      const last = axis[axis.length - 1];
      layout.xaxis.title.text = titles[unit];
      layout.xaxis.range = [0, last * 1.02 || 1];
    }
    return [data, layout];
  };

  const plots = [...document.querySelectorAll(".plot")].map(
    (place) => ({ place, spec: page.plots[place.id.slice("plot-".length)], drawn: false }));

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
      draw((plot) => plot.spec.index);
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw((plot) => plot.drawn));
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
