"use strict";
// The table of trials: sorted, filtered, replicates folded under their point.
report.table = (() => {
  const { content, element, number, at } = report;
  const STEP = 200;
  const state = { sort: "value", down: report.higher, folded: content.points.length < content.trials.length, open: new Set(), rows: STEP };
  const points = new Map(content.points.map((point) => [point.trials[0], point]));
  const pointOf = new Map();
  for (const point of content.points) for (const id of point.trials) pointOf.set(id, point);

  const columns = [
    { name: "name", text: "trial", value: (t) => t.name },
    { name: "state", text: "state", value: (t) => t.state },
    { name: "value", text: content.metric, value: (t) => t.value, numeric: true },
    // any program names its parameters as it likes: also as a fact, which the bare name stays
    ...content.parameters.map((p) => ({
      name: `parameter/${p.name}`, setting: p.name, text: p.label, value: (t) => report.setting(t, p.name),
      show: (t) => report.written(report.setting(t, p.name)), numeric: true,
    })),
    { name: "epoch", text: "epoch", value: (t) => t.epoch, show: (t) => (t.epoch === undefined ? "" : t.epochs ? `${t.epoch}/${t.epochs}` : String(t.epoch)), numeric: true },
    { name: "seconds", text: "time", value: (t) => t.seconds, show: (t) => report.time(t.seconds), numeric: true },
    { name: "attempts", text: "attempts", value: (t) => t.attempts, numeric: true },
    ...testNames().map((name) => ({ name, text: name, value: (t) => (t.test || {})[name], numeric: true, test: true })),
  ];
  // folded, the replicates' own columns would be empty
  const shown = () => columns.filter((column) => !state.folded || !content.replicates.includes(column.setting));

  function testNames() {
    const names = new Set();
    for (const trial of content.trials) Object.keys(trial.test || {}).forEach((name) => names.add(name));
    return [...names].slice(0, 3);
  }

  // --- filter: words, and comparisons such as lr>0.001
  function matcher(text) {
    const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
      const parts = word.match(/^(.+?)(<=|>=|<|>|=)(.+)$/);
      return (parts && comparison(...parts.slice(1))) || ((t) => `${t.id} ${t.name} ${t.state}`.toLowerCase().includes(word.toLowerCase()));
    });
    return (trial) => tests.every((test) => test(trial));
  }

  function comparison(name, sign, text) {
    const column = columns.find((c) => [c.name, c.text, c.setting].includes(name));
    if (!column) return null;
    const wanted = Number(text);
    return (trial) => {
      const value = column.value(trial);
      if (value === undefined || value === null) return false;
      if (sign === "=") return String(value) === text || Number(value) === wanted;
      return sign === "<" ? value < wanted : sign === ">" ? value > wanted : sign === "<=" ? value <= wanted : value >= wanted;
    };
  }

  function filter() {
    const matches = matcher(at("filter").value), wanted = at("state").value;
    report.filtered = content.trials.filter(
      (t) => (!wanted || t.state === wanted) && (!report.brushed || report.brushed.has(t.id)) && matches(t));
    report.emit("filter");
  }

  // --- order: what has no value comes last, whichever way
  function compare(a, b) {
    const none = (v) => v === undefined || v === null || v === "";
    if (none(a) || none(b)) return none(a) - none(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return state.down ? -order : order;
  }

  function sorted(list, value) {
    return [...list].sort((x, y) => compare(value(x), value(y)));
  }

  function rows() {
    const column = columns.find((c) => c.name === state.sort);
    if (!state.folded) return sorted(report.filtered, column.value).map((trial) => ({ trial }));
    const groups = new Map();
    for (const trial of report.filtered) {
      const point = pointOf.get(trial.id);
      if (!groups.has(point)) groups.set(point, []);
      groups.get(point).push(trial);
    }
    const value = ([point, inner]) => (state.sort === "value" ? point.mean : state.sort === "name" ? point.name : column.value(inner[0]));
    const result = [];
    for (const [point, inner] of sorted(groups, value)) {
      result.push({ point, inner });
      if (state.open.has(point)) sorted(inner, column.value).forEach((trial) => result.push({ trial, inner: true }));
    }
    return result;
  }

  // --- drawing
  function headRow() {
    const cells = shown().map((column, place) => {
      const active = column.name === state.sort;
      const button = element("button", { type: "button", onclick: () => sortBy(column) }, column.text + (active ? (state.down ? " ▾" : " ▴") : ""));
      return element("th", { scope: "col", class: place === 0 && "fixed", "aria-sort": active && (state.down ? "descending" : "ascending") }, button);
    });
    return element("tr", {}, ...cells);
  }

  function sortBy(column) {
    if (state.sort === column.name) state.down = !state.down;
    else Object.assign(state, { sort: column.name, down: column.name === "value" && report.higher });
    draw();
    at("table").querySelectorAll("thead button")[shown().indexOf(column)].focus();
  }

  function tick(ids, name) {
    const all = ids.every((id) => report.chosen.has(id));
    return element("input", {
      type: "checkbox", checked: all, "aria-label": `choose ${name}`,
      onchange: (event) => {
        ids.forEach((id) => (event.target.checked ? report.chosen.add(id) : report.chosen.delete(id)));
        report.emit("choice");
      },
    });
  }

  function trialRow({ trial, inner }) {
    const cells = shown().map((column, place) => {
      if (place === 0) return element("td", { class: "fixed" }, tick([trial.id], trial.name), " ", trial.name, " ", element("code", {}, trial.id));
      const text = column.show ? column.show(trial) : number(column.value(trial));
      const kind = column.name === "state" ? `state-${trial.state}` : column.numeric && "number";
      return element("td", { class: kind }, text);
    });
    return element("tr", { class: inner && "inner", "data-trial": trial.id }, ...cells);
  }

  function pointRow({ point, inner }) {
    const open = state.open.has(point);
    const toggle = element("button", {
      type: "button", class: "open", "aria-expanded": String(open), "aria-label": `replicates of ${point.name}`,
      onclick: () => {
        open ? state.open.delete(point) : state.open.add(point);
        draw();
        at("table").querySelector(`tr[data-point="${CSS.escape(point.name)}"] .open`)?.focus();
      },
    }, open ? "▾" : "▸");
    const counts = {};
    inner.forEach((trial) => (counts[trial.state] = (counts[trial.state] || 0) + 1));
    const states = Object.entries(counts).map(([name, count]) => `${count} ${name}`).join(", ");
    const cells = shown().map((column, place) => {
      if (place === 0) return element("td", { class: "fixed" }, toggle, tick(inner.map((t) => t.id), point.name), " ", point.name);
      if (column.name === "state") return element("td", { class: counts.failed && "state-failed" }, states);
      if (column.name === "value") return element("td", { class: "number" }, report.spread(point));
      if (column.test) return element("td", { class: "number" }, number(mean(inner, column)));
      if (column.name === "seconds") return element("td", { class: "number" }, report.time(total(inner)));
      const same = new Set(inner.map((trial) => column.setting && column.show(trial)));
      return element("td", { class: "number" }, column.setting && same.size === 1 ? [...same][0] : "");
    });
    return element("tr", { class: "point", "data-point": point.name }, ...cells);
  }

  // a point's time is that of all its replicates together
  const total = (inner) => inner.reduce((sum, trial) => sum + (trial.seconds || 0), 0) || undefined;

  function mean(inner, column) {
    const values = inner.map(column.value).filter((value) => typeof value === "number");
    return values.length ? values.reduce((a, b) => a + b) / values.length : undefined;
  }

  function draw() {
    const all = rows();
    at("table").tHead.replaceChildren(headRow());
    at("table").tBodies[0].replaceChildren(...all.slice(0, state.rows).map((row) => (row.trial ? trialRow(row) : pointRow(row))));
    at("more").hidden = all.length <= state.rows;
    at("more").textContent = `Show ${Math.min(STEP, all.length - state.rows)} more of ${all.length}`;
    at("count").textContent = `${report.filtered.length} of ${content.trials.length} trials, ${report.chosen.size} ticked`;
    at("fold").setAttribute("aria-pressed", String(state.folded));
    at("fold").textContent = state.folded ? "Replicates folded" : "Replicates apart";
    at("unselect").disabled = !report.chosen.size;
  }

  function start() {
    const states = Object.entries(content.head.states).map(([name, count]) => [name, `${name} (${count})`]);
    report.options(at("state"), [["", "all"], ...states]);
    at("fold").hidden = content.points.length === content.trials.length;
    at("filter").addEventListener("input", filter);
    at("state").addEventListener("change", filter);
    at("fold").addEventListener("click", () => { state.folded = !state.folded; draw(); });
    at("more").addEventListener("click", () => { state.rows += STEP; draw(); });
    at("unselect").addEventListener("click", () => { report.chosen.clear(); report.emit("choice"); });
    report.on("filter", () => { state.rows = STEP; draw(); });
    report.on("choice", draw);
    draw();
  }
  return { start, filter };
})();
