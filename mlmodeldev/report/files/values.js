"use strict";
// What all parts share: the content, which trials are shown and ticked, numbers as text, elements.
const report = (() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const trials = new Map(content.trials.map((trial) => [trial.id, trial]));
  const higher = content.goal === "maximize";
  const chosen = new Set();
  const listeners = {};

  // --- events: "filter", "choice", "theme"
  const on = (name, act) => (listeners[name] ||= []).push(act);
  const emit = (name) => (listeners[name] || []).forEach((act) => act());

  // --- text of numbers
  function number(value, digits = 5) {
    if (value === null || value === undefined || value === "") return "";
    if (typeof value !== "number") return String(value);
    if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4))
      return value.toExponential(2).replace(/\.?0*e\+?/, "e");
    return String(Number(value.toPrecision(digits)));
  }

  // a setting: null is a value, a list or a mapping is JSON; what a trial does not set is empty
  function written(value) {
    return value !== null && typeof value !== "object" ? number(value) : JSON.stringify(value);
  }

  function time(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 90) return `${number(seconds, 3)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return seconds < 172800 ? `${number(seconds / 3600, 3)} h` : `${number(seconds / 86400, 3)} days`;
  }

  const spread = (point) =>
    point.mean === null ? "" : number(point.mean) + (point.std === null ? "" : ` ± ${number(point.std, 2)}`);

  // --- elements: text is always text, never markup
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function options(select, pairs, value) {
    select.replaceChildren(...pairs.map(([name, text]) => element("option", { value: name }, text)));
    if (value !== undefined && pairs.some(([name]) => name === value)) select.value = value;
  }

  const at = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // Okabe and Ito's colours, which people with any colour vision tell apart
  const light = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#000000"];
  const dark = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#5aa0e8", "#ffffff"];
  const palette = () => (document.documentElement.dataset.theme === "dark" ? dark : light);
  // viridis: equal steps look equal, also in grey
  const viridis = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

  const label = (trial) => `${trial.name} (${trial.id})`;
  const setting = (trial, name) => (trial.settings || {})[name];
  return {
    content, trials, higher, chosen, on, emit, number, written, time, spread, element, options, at, colour,
    palette, viridis, label, setting, filtered: content.trials, brushed: null,
  };
})();
