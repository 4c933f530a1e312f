"use strict";
// Two trials side by side: settings, curves, CKA, code.
report.compare = (() => {
  const { content, at, number, element, options } = report;
  let charts = [];

  function pair() {
    return [report.trials.get(at("first").value), report.trials.get(at("second").value)];
  }

  function settings(a, b) {
    const facts = [
      ["state", (t) => t.state], [content.metric, (t) => number(t.value)], ["epoch", (t) => number(t.epoch)],
      ["time", (t) => report.time(t.seconds)], ["commit", (t) => (t.commit || "").slice(0, 12)],
    ];
    const names = [...new Set([...Object.keys(a.settings || {}), ...Object.keys(b.settings || {})])];
    const show = (value) => (value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
    const rows = [...facts, ...names.map((name) => [name, (t) => show(report.setting(t, name))])].map(([name, value]) => {
      const [left, right] = [value(a), value(b)];
      return element("tr", { class: left !== right && "differs" },
        element("td", {}, name), element("td", {}, left), element("td", {}, right), element("td", {}, left === right ? "" : "≠"));
    });
    const head = element("tr", {}, ...["", "A", "B", ""].map((text) => element("th", { scope: "col" }, text)));
    return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  }

  function curves(a, b) {
    const select = element("select", { "aria-label": "metric of both trials" });
    options(select, content.metrics.map((name) => [name, name]), at("metric").value || content.metric);
    const chart = element("div", { class: "chart" });
    const option = () => {
      const series = [[a, "A"], [b, "B"]].map(([trial, name], i) =>
        report.curves.seriesOf(trial, select.value, 0, { name, lineStyle: { type: i ? "dashed" : "solid", width: 2 } }));
      return report.curves.chartOption(series.filter(Boolean), { metric: select.value, legend: true });
    };
    select.addEventListener("change", () => report.charts.draw(chart));
    add(chart, option, "Curves of both trials");
    return element("div", {}, element("h3", {}, "Curves ", select), chart);
  }

  function matrices(a, b) {
    const [left, right] = [content.cka[a.id] || {}, content.cka[b.id] || {}];
    const names = Object.keys(left).filter((name) => right[name]);
    if (!names.length) return null;
    const select = element("select", { "aria-label": "comparison of both trials" });
    options(select, names.map((name) => [name, name]));
    const most = () => Math.max(left[select.value].frames.length, right[select.value].frames.length) - 1;
    const slider = element("input", { type: "range", min: 0, max: most(), value: most(), "aria-label": "epoch of both trials" });
    const epochs = element("output");
    const frame = (one) => one.frames[Math.min(Number(slider.value), one.frames.length - 1)];
    const places = [left, right].map((of, i) => {
      const chart = element("div", { class: "chart" });
      add(chart, () => report.cka.heatMap(of[select.value], frame(of[select.value])), `CKA of ${"AB"[i]}`);
      return chart;
    });
    const show = () => {
      epochs.textContent = [left, right].map((of, i) => `${"AB"[i]}: epoch ${frame(of[select.value]).epoch}`).join(", ");
      places.forEach((chart) => report.charts.draw(chart));
    };
    select.addEventListener("change", () => { slider.max = most(); slider.value = most(); show(); });
    slider.addEventListener("input", show);
    show();
    return element("div", {}, element("h3", {}, "CKA ", select, " ", slider, " ", epochs), element("div", { class: "halves" }, ...places));
  }

  // A trial's changes against its commit; marked are lines that only one of the two trials has.
  function code(a, b) {
    const text = (trial) => (trial.changes === undefined ? "" : content.changes[trial.changes]);
    const files = new Set([...Object.keys(a.code || {}), ...Object.keys(b.code || {})]);
    const differing = [...files].filter((file) => (a.code || {})[file] !== (b.code || {})[file]);
    const same = a.commit === b.commit && text(a) === text(b) && !differing.length;
    const summary = same ? "The same code." : differing.length ? `Files that differ: ${differing.join(", ")}.` : "The files of the model and the data are the same; the commits or other files are not.";
    const children = [element("h3", {}, "Code"), element("p", {}, summary)];
    if (text(a) || text(b)) {
      const halves = same ? [changes(text(a), text(b), "Both, against their commit")] : [changes(text(a), text(b), "A, against its commit"), changes(text(b), text(a), "B, against its commit")];
      children.push(element("div", { class: same ? "" : "halves" }, ...halves));
    }
    return element("div", {}, ...children);
  }

  function changes(text, other, title) {
    const others = new Set(other.split("\n"));
    const lines = text.split("\n").map((line) => {
      const kind = line.startsWith("+") && !line.startsWith("+++") ? "plus" : line.startsWith("-") && !line.startsWith("---") ? "minus" : "";
      const only = others.has(line) ? "" : " only";
      return kind || only ? element("span", { class: kind + only, style: kind ? null : "display:block" }, line) : `${line}\n`;
    });
    return element("div", {}, element("p", { class: "note" }, text ? title : `${title}: none`), text ? element("pre", { tabindex: "0" }, ...lines) : "");
  }

  function add(chart, option, label) {
    charts.push(chart);
    report.charts.add(chart, option, label);
  }

  function draw() {
    charts.forEach((chart) => report.charts.remove(chart));
    charts = [];
    const [a, b] = pair();
    const halves = element("div", { class: "halves" }, element("div", {}, element("h3", {}, "Settings"), settings(a, b)), curves(a, b));
    at("comparison").replaceChildren(...[halves, matrices(a, b), code(a, b)].filter(Boolean));
  }

  function choose() {
    const two = [...report.chosen].slice(-2);
    if (two.length < 2) return;
    [at("first").value, at("second").value] = two;
    draw();
  }

  function start() {
    const begun = content.trials.filter((trial) => trial.state !== "missing" && trial.state !== "queued");
    if (begun.length < 2) {
      at("compare").hidden = true;
      return;
    }
    const names = begun.map((trial) => [trial.id, report.label(trial)]);
    const other = begun.find((trial) => trial.group !== begun[0].group) || begun[1];
    options(at("first"), names, begun[0].id);
    options(at("second"), names, other.id);
    for (const id of ["first", "second"]) at(id).addEventListener("change", draw);
    at("swap").addEventListener("click", () => { [at("first").value, at("second").value] = [at("second").value, at("first").value]; draw(); });
    report.on("choice", choose);
    draw();
  }
  return { start };
})();
