"use strict";
// Learning curves: which metric, which trials, smoothed or not, on straight or logarithmic axes.
report.curves = (() => {
  const { content, at, number, options } = report;
  const MOST = 60;  // curves; more are a blur
  const TOOLTIP_LINES = 12;  // of them in the tooltip

  const drawn = (id, metric) => (content.curves[id] || {})[String(content.metrics.indexOf(metric))];

  // Exponential moving average; divided by its weights' sum, so that it begins at the first value.
  function smooth(values, weight) {
    if (!weight) return values;
    let sum = 0, count = 0;
    return values.map((value) => {
      if (value === null) return null;
      sum = weight * sum + (1 - weight) * value;
      count = weight * count + (1 - weight);
      return sum / count;
    });
  }

  function trialsToDraw() {
    const which = at("which").value;
    const list = which === "chosen" ? [...report.chosen].map((id) => report.trials.get(id)) : which === "best" ? content.trials : report.filtered;
    const there = list.filter((trial) => drawn(trial.id, at("metric").value));
    return { there, shown: there.slice(0, which === "best" ? 10 : MOST) };
  }

  function seriesOf(trial, metric, weight, more = {}) {
    const curve = drawn(trial.id, metric);
    if (!curve) return null;
    const values = smooth(curve[1], weight);
    return {
      type: "line", name: report.label(trial), data: curve[0].map((step, i) => [step, values[i]]), connectNulls: false,
      showSymbol: curve[0].length < 12, symbolSize: 5, emphasis: { focus: "series" }, triggerLineEvent: true, ...more,
    };
  }

  function chartOption(series, { logX = false, logY = false, metric, legend = false }) {
    const { axis, tooltip } = report.charts;
    return {
      grid: { left: 10, right: 25, top: legend ? 50 : 20, bottom: 45, containLabel: true },
      legend: legend ? { type: "scroll", top: 0, textStyle: { color: report.colour("front") } } : undefined,
      xAxis: axis({ type: logX ? "log" : "value", name: "optimizer steps", nameLocation: "middle", nameGap: 28, min: logX ? undefined : 0 }),
      yAxis: axis({ type: logY ? "log" : "value", scale: true, name: metric, nameLocation: "end", nameTextStyle: { align: "left", color: report.colour("quiet") } }),
      tooltip: tooltip({ trigger: "axis", formatter: tooltipText, axisPointer: { type: "line" }, order: report.higher ? "valueDesc" : "valueAsc" }),
      dataZoom: [{ type: "inside", filterMode: "none" }],
      series,
    };
  }

  function tooltipText(items) {
    const there = items.filter((item) => item.value[1] !== null && item.value[1] !== undefined);
    const lines = there.slice(0, TOOLTIP_LINES).map((item) => `${item.marker}${number(item.value[1])} ${report.charts.safe(item.seriesName)}`);
    const more = there.length > TOOLTIP_LINES ? [`and ${there.length - TOOLTIP_LINES} more`] : [];
    return [`step ${items[0] ? number(items[0].axisValue) : ""}`, ...lines, ...more].join("<br>");
  }

  function metricsLeftOut() {
    const count = content.metrics_left_out;
    return count ? ` Of ${count} more ${count === 1 ? "metric" : "metrics"} this page has no curves for want of room; they are in the trials' metrics.csv.` : "";
  }

  function option() {
    const metric = at("metric").value, weight = Number(at("smooth").value);
    const { there, shown } = trialsToDraw();
    const [logX, logY] = [at("log-x").checked, at("log-y").checked];
    const series = shown.map((trial) => seriesOf(trial, metric, weight)).filter(Boolean);
    const usable = (point) => (!logX || point[0] > 0) && (!logY || point[1] > 0 || point[1] === null);
    series.forEach((one) => (one.data = one.data.filter(usable)));
    const left = there.length - shown.length;
    at("curve-note").textContent = !there.length
      ? at("which").value === "chosen" ? "Tick trials in the table to see them here." : content.curves_left_out && at("metric").value !== content.metric ? "No curve of it in this page, which has those of some trials only." : "None of these trials has logged it."
      : `${shown.length} curves of at most ${content.curve_points} points${left && at("which").value !== "best" ? `; ${left} more are not drawn, filter the table` : ""}. Wheel or pinch: zoom. A gap is a value that is not finite.`;
    at("curve-note").textContent += metricsLeftOut();
    return chartOption(series, { logX, logY, metric, legend: series.length <= 20 });
  }

  function start() {
    if (!Object.keys(content.curves).length) {
      at("curves").hidden = true;
      return;
    }
    options(at("metric"), content.metrics.map((name) => [name, name]));
    const redraw = () => report.charts.draw(at("curve-chart"));
    for (const id of ["metric", "which", "log-x", "log-y"]) at(id).addEventListener("change", redraw);
    at("smooth").addEventListener("input", () => { at("smooth-value").textContent = number(Number(at("smooth").value)); redraw(); });
    report.charts.add(at("curve-chart"), option, "Learning curves");
    report.on("filter", () => at("which").value === "filtered" && redraw());
    report.on("choice", () => {
      if (report.chosen.size && at("which").value === "best") at("which").value = "chosen";
      if (!report.chosen.size && at("which").value === "chosen") at("which").value = "best";
      redraw();
    });
  }
  return { start, seriesOf, chartOption, smooth };
})();
