"use strict";
// The rest of the page: its head, failures, resources, origin, the theme; then all parts start.
(() => {
  const { content, at, number, element } = report;

  // --- theme: the system's, until the button says otherwise
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  function theme() {
    document.documentElement.dataset.theme = own || (dark.matches ? "dark" : "light");
    report.emit("theme");
  }
  dark.addEventListener("change", theme);
  at("theme").addEventListener("click", () => {
    own = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    theme();
  });

  // --- head
  function tile(value, text, ...more) {
    return element("div", { class: "tile" }, element("b", {}, value), element("span", {}, text), ...more);
  }

  function head() {
    const { head: facts } = content, states = facts.states;
    at("name").textContent = content.sweep;
    const made = new Date(content.made * 1000).toLocaleString();
    at("subtitle").textContent = `${facts.trials} trials, ${content.goal === "maximize" ? "largest" : "smallest"} ${content.metric}; written ${made}`
      + (content.trials_left_out ? `. ${content.trials_left_out} of them are left out below, which shows the best and those that did not end well; collect writes all` : "");
    const ended = (states.done || 0) + (states.pruned || 0);
    const colours = { done: "good", pruned: "good", failed: "bad", lost: "bad", running: "wait", interrupted: "wait" };
    const parts = Object.entries(states).filter(([name]) => colours[name]).map(([name, count]) =>
      element("div", { style: `flex:0 0 ${(100 * count) / facts.trials}%;background:var(--${colours[name]})` }));
    const tiles = [];
    if (facts.best) tiles.push(tile(report.spread(facts.best), `${facts.best.name}, ${facts.best.n} ${facts.best.n === 1 ? "trial" : "replicates"}`));
    const rest = Object.entries(states).map(([name, count]) => `${count} ${name}`).join(", ");
    tiles.push(tile(`${ended} of ${facts.trials}`, rest, element("div", { class: "bar", role: "img", "aria-label": rest }, ...parts)));
    tiles.push(facts.gpu_hours === null ? tile(number(facts.hours, 3), "hours of trials") : tile(number(facts.gpu_hours, 3), `GPU-hours, ${number(facts.hours, 3)} hours of trials`));
    if (facts.seconds_left !== null) tiles.push(tile(report.time(facts.seconds_left), "to the end, with as many at once as now"));
    at("summary").replaceChildren(...tiles);
  }

  // --- failures; what a log ends with is what one looks for
  function toEnd(event) {
    const lines = event.target.querySelector("pre");
    if (lines) lines.scrollTop = lines.scrollHeight;
  }

  function failures() {
    const failed = content.trials.filter((trial) => trial.failure);
    at("failures").hidden = !failed.length;
    const kinds = new Map();
    for (const trial of failed) {
      const reason = trial.failure.reason;
      if (!kinds.has(reason)) kinds.set(reason, []);
      kinds.get(reason).push(trial);
    }
    const list = [...kinds].sort((a, b) => b[1].length - a[1].length).map(([reason, trials]) =>
      element("div", {},
        element("h3", { class: "state-failed" }, `${trials.length} × ${reason}`),
        ...trials.map((trial) => element("details", { open: kinds.size === 1 && trial === trials[0], ontoggle: toEnd },
          element("summary", {}, report.label(trial)),
          trial.failure.lines ? element("p", { class: "note" }, "The last lines of ", element("code", {}, trial.failure.file)) : null,
          trial.failure.lines ? element("pre", { tabindex: "0" }, trial.failure.lines) : element("p", {}, trial.failure.left_out ? `The last lines of many are left out: slurm/SlurmTrain.py logs ${trial.id}` : "It has left no log.")))));
    at("failure-list").replaceChildren(...list);
  }

  // --- used against asked for
  function resources() {
    const facts = content.resources;
    at("resources").hidden = !facts || !facts.rows.length;
    if (at("resources").hidden) return;
    const line = (cells, tag) => element("tr", {}, ...cells.map((cell, i) => element(tag, { class: tag === "td" && i > 0 && "number" }, cell)));
    at("resource-table").replaceChildren(
      element("div", { class: "scroll" }, element("table", {},
        element("thead", {}, line(facts.columns, "th")), element("tbody", {}, ...facts.rows.map((row) => line(row, "td"))))),
      ...facts.notes.map((text) => element("p", {}, text)));
  }

  // --- origin
  function origin() {
    const facts = content.origin, list = [];
    const add = (name, value) => value && list.push(element("dt", {}, name), element("dd", {}, value));
    const counts = (all) => {
      const items = Object.entries(all);
      return items.length ? items.map(([text, count]) => (items.length > 1 ? `${text} (${count} trials)` : text)).join("; ") : "";
    };
    add("Run again", element("code", {}, facts.command));
    add("A trial, bit for bit", element("code", {}, "mlmodeldev trial reproduce TRIAL"));
    add("Sweep file", element("code", {}, `${facts.file}, ${facts.digest}`));
    add("Folder", element("code", {}, facts.folder));
    add("Commits", counts(facts.commits));
    add("Software", counts(facts.software));
    add("Data", Object.keys(facts.data).join("; "));
    add("Machines", counts(facts.machines));
    add("Page", `mlmodeldev ${content.library}`);
    at("origin-text").replaceChildren(element("dl", {}, ...list), element("details", {}, element("summary", {}, "The sweep file"), element("pre", { tabindex: "0" }, facts.text)));
  }

  head();
  theme();
  report.table.start();
  failures();
  resources();
  origin();
  report.charts.start();
  report.curves.start();
  report.cka.start();
  report.compare.start();
  const parts = [...document.querySelectorAll("section[data-title]")].filter((part) => !part.hidden);
  document.querySelector("nav").replaceChildren(...parts.map((part) => element("a", { href: `#${part.id}` }, part.dataset.title)));
  document.documentElement.dataset.ready = "yes";
})();
