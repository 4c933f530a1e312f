"use strict";
// Charts: made when they come into view, drawn anew for another theme or size; parameters' two.
report.charts = (() => {
  const { content, at, number, colour } = report;
  const { echarts } = plots;
  const made = new Map();

  // --- a chart is made once it is near the screen, so that a long page is there at once
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) make(entry.target);
  }, { rootMargin: "400px" });
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => made.get(target)?.chart?.resize()));

  function add(target, option, label, started) {
    made.set(target, { option, started });
    target.setAttribute("role", "img");
    target.setAttribute("aria-label", label);
    near.observe(target);
    resized.observe(target);
  }

  function make(target) {
    const one = made.get(target);
    if (!one || one.chart) return;
    one.chart = echarts.init(target, null, { renderer: "canvas" });
    draw(target);
    one.started?.(one.chart);
  }

  function draw(target) {
    const one = made.get(target);
    if (one?.chart) one.chart.setOption({ ...shared(), ...one.option() }, { notMerge: true });
  }

  function remove(target) {
    const one = made.get(target);
    one?.chart?.dispose();
    made.delete(target);
    near.unobserve(target);
    resized.unobserve(target);
  }

  function shared() {
    return {
      animation: false,
      backgroundColor: "transparent",
      color: report.palette(),
      textStyle: { color: colour("front"), fontFamily: getComputedStyle(document.body).fontFamily },
    };
  }

  const tooltip = (more) => ({
    confine: true, backgroundColor: colour("panel"), borderColor: colour("line"),
    textStyle: { color: colour("front"), fontSize: 12 }, ...more,
  });

  // names come from settings: in a tooltip, which is HTML, they are text
  const safe = (text) => echarts.format.encodeHTML(String(text));

  function axis(more) {
    return {
      axisLine: { lineStyle: { color: colour("quiet") } },
      axisLabel: { color: colour("front"), formatter: (value) => number(value, 4) },
      splitLine: { lineStyle: { color: colour("line") } },
      nameTextStyle: { color: colour("quiet") },
      ...more,
    };
  }

  // --- parallel coordinates
  const word = (value) => (typeof value === "object" ? report.written(value) : String(value));

  function dimension(label, values, few) {
    const there = values.filter((value) => value !== undefined);
    const numeric = there.length && there.every((value) => typeof value === "number");
    const different = [...new Set(there)];
    // a grid's few values stand evenly, whatever lies between them
    if (!numeric || (few && different.length <= few)) {
      const words = (numeric ? different.sort((a, b) => a - b) : [...new Set(there.map(word))].sort()).map(word);
      return { name: label, type: "category", data: words, place: (v) => (v === undefined ? "-" : word(v)) };
    }
    const low = Math.min(...there), high = Math.max(...there);
    const log = low > 0 && high / low >= 30;
    return { name: label, type: log ? "log" : "value", scale: true, min: low, max: high, place: (v) => (typeof v === "number" ? v : "-") };
  }

  function parallelOption() {
    const trials = report.filtered.length || !report.brushed ? shownInParallel() : content.trials;
    const parts = content.parameters.filter((p) => !content.replicates.includes(p.name)).map((p) => [p.label, (t) => report.setting(t, p.name)]);
    parts.push([content.metric, (t) => t.value]);
    const axes = parts.map(([label, value], i) => dimension(label, content.trials.map(value), i < parts.length - 1 ? 12 : 0));
    const values = content.trials.map((t) => t.value).filter((v) => typeof v === "number");
    const many = trials.length > 300;
    return {
      parallel: { left: 30, right: 60, top: 50, bottom: 30, parallelAxisDefault: {
        ...axis({ nameTextStyle: { color: colour("front"), fontWeight: "bold" } }),
        nameGap: 18, nameTruncate: { maxWidth: 130 },
        areaSelectStyle: { width: 22, borderColor: colour("accent"), color: colour("accent"), opacity: 0.25 },
      } },
      parallelAxis: axes.map(({ place, ...one }, dim) => ({ dim, ...one, axisLabel: { color: colour("front"), formatter: (v) => (v === "" || isNaN(v) ? v : number(Number(v), 3)), hideOverlap: true } })),
      visualMap: values.length ? {
        type: "continuous", min: Math.min(...values), max: Math.max(...values), dimension: axes.length - 1,
        inRange: { color: report.higher ? report.viridis : [...report.viridis].reverse() }, show: false,
      } : undefined,
      tooltip: tooltip({ trigger: "item", formatter: ({ dataIndex }) => safe(report.label(trials[dataIndex])) }),
      series: [{
        type: "parallel", inactiveOpacity: 0.04, activeOpacity: many ? 0.35 : 0.85, progressive: 500,
        lineStyle: { width: many ? 1 : 2 }, smooth: false,
        data: trials.map((t) => ({ value: parts.map(([, value], i) => axes[i].place(value(t))), name: t.id })),
      }],
    };
  }

  // the table's filter does not empty the chart that one brushes in
  const shownInParallel = () => (report.brushed ? content.trials : report.filtered);

  function brushed(chart) {
    chart.on("axisareaselected", () => {
      const trials = shownInParallel();
      const indices = chart.getModel().getSeries()[0].getRawIndicesByActiveState("active");
      const any = chart.getModel().getComponent("parallel") && indices.length < trials.length;
      report.brushed = any ? new Set(indices.map((i) => trials[i].id)) : null;
      at("unbrush").hidden = !any;
      report.table.filter();
    });
  }

  // --- importance
  function importanceOption() {
    const rows = [...content.importance].reverse();
    const labels = new Map(content.parameters.map((p) => [p.name, p.label]));
    return {
      grid: { left: 10, right: 40, top: 10, bottom: 40, containLabel: true },
      xAxis: axis({ type: "value", min: 0, max: 1, name: "share of the variance", nameLocation: "middle", nameGap: 28 }),
      yAxis: axis({ type: "category", data: rows.map((r) => labels.get(r.name) || r.name), axisLabel: { color: colour("front"), width: 150, overflow: "truncate" } }),
      tooltip: tooltip({ trigger: "item", formatter: ({ dataIndex }) => {
        const row = rows[dataIndex];
        return `${safe(row.name)}: ${number(row.mean, 3)} (${number(row.low, 2)} to ${number(row.high, 2)})`;
      } }),
      series: [
        { type: "bar", data: rows.map((r) => r.mean), barMaxWidth: 26 },
        { type: "custom", data: rows.map((r, i) => [r.low, i, r.high]), encode: { x: [0, 2], y: 1 }, silent: true, renderItem: whisker },
      ],
    };
  }

  function whisker(params, api) {
    const low = api.coord([api.value(0), api.value(1)]), high = api.coord([api.value(2), api.value(1)]);
    const style = { stroke: colour("front"), lineWidth: 1.5 };
    const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
    return { type: "group", children: [
      line(low[0], low[1], high[0], high[1]), line(low[0], low[1] - 5, low[0], low[1] + 5), line(high[0], high[1] - 5, high[0], high[1] + 5),
    ] };
  }

  // counted as importance.py does it
  function noImportance() {
    const ended = content.trials.filter((t) => ["done", "pruned"].includes(t.state) && typeof t.value === "number");
    const varied = content.parameters.map((p) => p.name).filter((name) => {
      const values = new Set(ended.map((t) => report.setting(t, name)).map((value) => JSON.stringify(value)));
      return !content.replicates.includes(name) && values.size > 1 && !values.has(undefined);
    });
    return ended.length >= 8 && varied.length >= 2
      ? "No importance: all trials that ended have the same value."
      : `Importance needs eight trials that ended with a value, and two parameters that vary among them, all set and no replicates; here are ${ended.length} and ${varied.length}.`;
  }

  function start() {
    const place = at("parallel"), bars = at("importance");
    if (!content.parameters.length) at("parameters").hidden = true;
    add(place, parallelOption, "Parallel coordinates of the trials' parameters and their value", brushed);
    at("unbrush").addEventListener("click", () => { report.brushed = null; at("unbrush").hidden = true; draw(place); report.table.filter(); });
    at("importance-text").textContent = content.importance.length
      ? "Importance by functional ANOVA: share of the variance that a parameter explains alone; whiskers: the middle 80 % of 20 fits to redrawn trials."
      : noImportance();
    if (content.importance.length) add(bars, importanceOption, "Importance of each parameter, with its uncertainty");
    else bars.hidden = true;
    report.on("filter", () => report.brushed || draw(place));
    report.on("theme", () => made.forEach((_, target) => draw(target)));
    addEventListener("beforeprint", () => made.forEach((_, target) => make(target)));
  }
  return { start, add, draw, remove, axis, tooltip, safe };
})();
