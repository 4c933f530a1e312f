"use strict";
// CKA heat maps: unpacked, coloured from 0 to 1, hatched where a cell is not above chance.
report.cka = (() => {
  const { content, at, number, options } = report;
  const UNDEFINED = -32768, SCALE = 10000;
  const MOST_NAMES = 40;  // along an axis: more overlap
  const NAME_LENGTH = 18;
  const MOST_HATCHED = 120;  // layers: the cells of more are smaller than the hatching
  const isHatched = (one) => Math.max(one.rows.length, one.columns.length) <= MOST_HATCHED;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function unpack(frame) {
    const raw = new DataView(bytes(frame.values).buffer);
    const chance = frame.chance && bytes(frame.chance);
    return Array.from({ length: raw.byteLength / 2 }, (_, i) => {
      const value = raw.getInt16(2 * i, true);
      return { value: value === UNDEFINED ? null : value / SCALE, chance: Boolean(chance && (chance[i >> 3] >> (i & 7)) & 1) };
    });
  }

  // layers differ by what their names end with, but for an end that all have; the tooltip has it all
  function shortNames(names) {
    const parts = names.map((name) => name.split("."));
    let same = 0;
    const shortest = Math.min(...parts.map((each) => each.length));
    while (names.length > 1 && same < shortest - 1 && new Set(parts.map((each) => each[each.length - 1 - same])).size === 1) same += 1;
    return parts.map((each) => {
      const text = each.slice(0, each.length - same).join(".");
      return (text.length > NAME_LENGTH ? `…${text.slice(1 - NAME_LENGTH)}` : text) + (same ? "…" : "");
    });
  }

  function heatMap(one, frame) {
    const { tooltip, safe } = report.charts, width = one.columns.length;
    const cells = unpack(frame), place = (i) => [i % width, Math.floor(i / width)];
    const small = Math.max(one.rows.length, width) <= 12;
    const words = (names) => {
      const short = shortNames(names);
      return {
        type: "category", data: names, splitArea: { show: false }, axisTick: { show: false },
        axisLine: { lineStyle: { color: report.colour("quiet") } },
        axisLabel: { color: report.colour("front"), formatter: (_, i) => short[i], interval: Math.ceil(names.length / MOST_NAMES) - 1, fontSize: names.length > 20 ? 9 : 11 },
      };
    };
    return {
      grid: { left: 10, right: 70, top: 10, bottom: 10, containLabel: true },
      xAxis: { ...words(one.columns), axisLabel: { ...words(one.columns).axisLabel, rotate: 40 } },
      yAxis: { ...words(one.rows), inverse: true },
      visualMap: { type: "continuous", min: 0, max: 1, text: ["1", "0"], itemHeight: 180, right: 0, top: "middle", inRange: { color: report.viridis }, textStyle: { color: report.colour("front") }, seriesIndex: 0 },
      tooltip: tooltip({ trigger: "item", formatter: ({ dataIndex, seriesIndex }) => {
        if (seriesIndex) return "";
        const [column, row] = place(dataIndex), cell = cells[dataIndex];
        const value = cell.value === null ? "undefined" : number(cell.value, 4);
        return `${safe(one.rows[row])} ~ ${safe(one.columns[column])}<br><b>${value}</b>${cell.chance ? " (not above chance)" : ""}<br>epoch ${frame.epoch}`;
      } }),
      series: [
        {
          type: "heatmap", progressive: 20000, data: cells.map((cell, i) => ({ value: [...place(i), cell.value === null ? "-" : cell.value] })),
          label: { show: small, formatter: ({ value }) => (value[2] === "-" ? "" : value[2].toFixed(2)), fontSize: 11 },
          emphasis: { itemStyle: { borderColor: report.colour("accent"), borderWidth: 2 } },
        },
        { type: "custom", silent: true, data: cells.flatMap((cell, i) => (cell.chance && isHatched(one) ? [place(i)] : [])), renderItem: hatch },
      ],
    };
  }

  function hatch(params, api) {
    const [x, y] = api.coord([api.value(0), api.value(1)]), [w, h] = api.size([1, 1]);
    const style = { stroke: "#ffffff", lineWidth: 1, opacity: 0.75 };
    const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
    const [left, top] = [x - w / 2, y - h / 2];
    return { type: "group", children: [
      line(left, top + h / 2, left + w / 2, top), line(left, top + h, left + w, top), line(left + w / 2, top + h, left + w, top + h / 2),
    ] };
  }

  function leftOut() {
    const count = content.cka_left_out;
    return count ? ` Of ${count} ${count === 1 ? "trial" : "trials"} there are matrices for which this page has no room.` : "";
  }

  function note(one, frame) {
    const cells = unpack(frame), undefined_ = cells.filter((c) => c.value === null).length;
    const chance = cells.filter((c) => c.chance).length;
    const kept = one.frames.length < one.epochs ? `; ${one.frames.length} of ${one.epochs} epochs are in this page` : "";
    return `${one.estimator} estimator, ${one.kernel} kernel, ${one.samples} samples, against ${one.against}; ${isHatched(one) ? "hatched" : "too small to be hatched"}: ${chance} of ${cells.length} cells not above chance`
      + (undefined_ ? `; ${undefined_} undefined` : "") + kept + "." + leftOut();
  }

  const current = () => {
    const one = content.cka[at("cka-trial").value]?.[at("cka-name").value];
    return one && [one, one.frames[Math.min(Number(at("cka-epoch").value), one.frames.length - 1)]];
  };

  function fitSlider(keepLast) {
    const one = content.cka[at("cka-trial").value][at("cka-name").value], slider = at("cka-epoch");
    slider.max = one.frames.length - 1;
    if (keepLast) slider.value = slider.max;
    slider.disabled = one.frames.length < 2;
    show();
  }

  function show() {
    const [one, frame] = current();
    at("cka-epoch-value").textContent = String(frame.epoch);
    at("cka-epoch").setAttribute("aria-valuetext", `epoch ${frame.epoch}`);
    at("cka-note").textContent = note(one, frame);
    report.charts.draw(at("cka-chart"));
  }

  function chooseTrial() {
    const before = at("cka-name").value;
    options(at("cka-name"), Object.keys(content.cka[at("cka-trial").value]).map((name) => [name, name]), before);
    fitSlider(true);
  }

  function start() {
    const ids = content.trials.map((t) => t.id).filter((id) => content.cka[id]);
    if (!ids.length) {
      at("alignment").hidden = !content.cka_left_out;
      at("cka-note").textContent = `${leftOut()} They lie in the trials' folders, cka/.`;
      document.querySelector("#alignment .tools").hidden = at("cka-chart").hidden = true;
      return;
    }
    options(at("cka-trial"), ids.map((id) => [id, report.label(report.trials.get(id))]));
    report.charts.add(at("cka-chart"), () => heatMap(...current()), "CKA between layers");
    at("cka-trial").addEventListener("change", chooseTrial);
    at("cka-name").addEventListener("change", () => fitSlider(true));
    at("cka-epoch").addEventListener("input", show);
    chooseTrial();
  }
  return { start, heatMap, unpack, note, shortNames };
})();
