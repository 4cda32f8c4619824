"use strict";
(() => {
  const scheme = JSON.parse(document.getElementById("scheme").textContent);
  const darkQuery = matchMedia("(prefers-color-scheme: dark)");
  const printWidth = 670;
  const figures = [];

  // Colours stand in a figure's JSON as the light ones; only keys that name a colour are touched, never a reader's texts.
  const recolour = (value, key) => {
    if (typeof value === "string") return /color/i.test(key) ? scheme.darkOf[value] || value : value;
    if (Array.isArray(value)) return value.map((item) => recolour(item, key));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, recolour(item, name)]));
    return value;
  };

  const template = (surface) => {
    const axis = {
      gridcolor: surface.grid, linecolor: surface.rule, zerolinecolor: surface.rule, tickcolor: surface.rule,
      tickfont: { color: surface.muted, size: 12 }, title: { font: { color: surface.muted, size: 13 }, standoff: 10 }, automargin: true,
    };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: surface.ink, family: scheme.font, size: 13 },
        xaxis: axis, yaxis: axis, legend: { bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: { bgcolor: surface.paper, bordercolor: surface.muted, font: { color: surface.ink, family: scheme.font, size: 13 } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: surface.muted, activecolor: surface.ink },
      },
    };
  };

  const draw = (figure, printing = false) => {
    const dark = darkQuery.matches && !printing;
    const spec = dark ? recolour(figure.spec, "") : figure.spec;
    const touch = matchMedia("(pointer: coarse)").matches;
    // On a narrow screen a map with equal axes is as tall as wide, with room for its legend.
    const width = printing ? printWidth : figure.plot.clientWidth;
    const square = spec.layout.yaxis && spec.layout.yaxis.scaleanchor;
    const height = square ? Math.min(figure.height, width + 150) : figure.height;
    figure.plot.style.height = `${height}px`;
    const layout = {
      ...spec.layout, template: template(scheme.surfaces[dark ? "dark" : "light"]), uirevision: "kept",
      autosize: !printing, width: printing ? printWidth : undefined, height,
    };
    // A finger that drags over a figure wants to scroll the page, not to zoom the figure.
    if (touch) layout.dragmode = false;
    // Buttons are listed one by one: plotly's own list has one that sends a figure's data to a server.
    const config = {
      responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"], ["toImage"]],
      showSendToCloud: false, showEditInChartStudio: false, plotlyServerURL: "", showTips: false,
    };
    figure.drawn = true;
    return window.Plotly.react(figure.plot, structuredClone(spec.data), structuredClone(layout), config).then(() => find(figure));
  };

  const find = (figure) => {
    if (!figure.input) return;
    const escaped = figure.input.value.trim().toLowerCase().replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    if (!escaped && !figure.selected) return;
    let found = 0;
    let total = 0;
    const selected = figure.spec.data.map((trace) => {
      const texts = Array.isArray(trace.text) ? trace.text : [];
      total += texts.length;
      const hits = texts.flatMap((text, index) => figure.plain(text).includes(escaped) ? [index] : []);
      found += hits.length;
      return hits;
    });
    figure.selected = Boolean(escaped);
    figure.output.value = escaped ? `${found.toLocaleString("en")} of ${total.toLocaleString("en")}` : "";
    window.Plotly.restyle(figure.plot, { selectedpoints: escaped ? selected : [null] });
  };

  document.querySelectorAll("figure").forEach((element) => {
    const figure = {
      plot: element.querySelector(".plot"),
      spec: JSON.parse(element.querySelector(".figure-data").textContent),
      input: element.querySelector(".find input"),
      height: Number(element.querySelector(".plot").dataset.height),
      output: element.querySelector(".find output"),
      plain: (text) => String(text).replace(/<br>/g, " ").replace(/\s+/g, " ").toLowerCase(),
      drawn: false,
      selected: false,
    };
    if (figure.input) figure.input.addEventListener("input", () => find(figure));
    figures.push(figure);
  });

  const attempt = (figure, printing) => {
    try {
      return draw(figure, printing);
    } catch (error) {
      figure.plot.textContent = "This figure could not be drawn; its numbers are in the table below.";
      console.error(error);
      return null;
    }
  };

  // One figure at a time, so that the page can be read and scrolled meanwhile.
  const later = window.requestIdleCallback ? (next) => requestIdleCallback(next, { timeout: 200 }) : (next) => setTimeout(next, 0);
  const drawNext = () => {
    const figure = figures.find((candidate) => !candidate.drawn);
    if (!figure) {
      document.documentElement.dataset.figures = "drawn";
      return;
    }
    figure.drawn = true;
    attempt(figure, false);
    later(drawNext);
  };
  later(drawNext);

  darkQuery.addEventListener("change", () => figures.forEach((figure) => figure.drawn && attempt(figure, false)));

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details[data-print]:not([open])")];
    opened.forEach((element) => { element.open = true; });
    figures.forEach((figure) => attempt(figure, true));
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((element) => { element.open = false; });
    figures.forEach((figure) => attempt(figure, false));
  });

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main > section")];
  const mark = () => {
    const line = innerHeight * 0.35;
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const passed = sections.filter((section) => section.getBoundingClientRect().top <= line);
    const current = atEnd ? sections[sections.length - 1] : passed[passed.length - 1];
    links.forEach((link, anchor) => {
      if (current && current.id === anchor) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
})();
