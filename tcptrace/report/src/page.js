// Hover and zoom. Row i of the table under a figure is what its plots have from i to i + 1, so all
// that is shown here is read from the table. Without this script the page lacks nothing else.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  function setUp(figure) {
    const section = figure.closest("section");
    const rows = [...section.querySelectorAll("details tbody tr")]
      .map((row) => [...row.children].map((cell) => cell.textContent));
    const columns = [...section.querySelectorAll("details thead th")].map((cell) => cell.textContent);
    const caption = figure.querySelector("figcaption");
    const charts = [...figure.querySelectorAll("svg.chart")].map((svg) => {
      const [left, top, width, height] = svg.dataset.plot.split(" ").map(Number);
      const cursor = document.createElementNS(SVG, "rect");
      cursor.setAttribute("class", "cursor");
      cursor.setAttribute("y", top);
      cursor.setAttribute("height", height);
      cursor.setAttribute("visibility", "hidden");
      svg.append(cursor);
      return { svg, left, top, width, height, cursor, plot: svg.querySelector("svg.plot"),
        names: svg.querySelector("g.names"), labels: Number(svg.dataset.labels) };
    });
    const count = Number(charts[0].svg.dataset.rows);
    const most = figure.hasAttribute("data-timed") ? 12 : 15;
    // What is to be seen: rows from .. to. What is pointed at: a row, or none.
    let from = 0, to = count, row = null;

    const short = (text) => {
      const letters = [...text];
      return letters.length <= most ? text : letters.slice(0, most - 1).join("") + "…";
    };

    function point(at) {
      row = at === null ? null : Math.max(0, Math.min(count - 1, at));
      const seen = row !== null && row >= Math.floor(from) && row < to;
      for (const chart of charts) {
        const scale = chart.width / (to - from);
        const begin = Math.max(0, (row ?? 0) - from) * scale;
        const end = Math.min(chart.width, ((row ?? 0) + 1 - from) * scale);
        chart.cursor.setAttribute("x", chart.left + begin);
        chart.cursor.setAttribute("width", Math.max(1, end - begin));
        chart.cursor.setAttribute("visibility", seen ? "visible" : "hidden");
      }
      hold();
      caption.textContent = row === null || !rows[row] ? ""
        : rows[row].map((cell, at) => at === 0 ? cell : `${columns[at]} ${cell}`).join(" · ");
    }

    function zoom(begin, end) {
      const size = Math.max(Math.min(3, count), Math.min(count, end - begin));
      from = Math.max(0, Math.min(count - size, begin));
      to = from + size;
      for (const chart of charts) {
        const scale = chart.width / count;
        chart.plot.setAttribute("viewBox",
          `${chart.left + from * scale} ${chart.top} ${size * scale} ${chart.height}`);
        chart.names.replaceChildren();
        const first = Math.floor(from), last = Math.min(count, Math.ceil(to));
        const step = Math.max(1, Math.ceil((last - first) / chart.labels));
        for (let at = first; at < last; at += step) {
          const x = chart.left + (at + 0.5 - from) * chart.width / size;
          if (x < chart.left || x > chart.left + chart.width) continue;
          const name = document.createElementNS(SVG, "text");
          name.setAttribute("x", x.toFixed(1));
          name.setAttribute("y", chart.top + chart.height + 16);
          name.setAttribute("text-anchor", "middle");
          name.textContent = short(rows[at] ? rows[at][0] : "");
          chart.names.append(name);
        }
      }
      point(row);
    }

    // Whoever is looking closely is not to be disturbed by a page that moves.
    function hold() {
      figure.toggleAttribute("data-held", row !== null || to - from < count);
    }

    const by = (factor) => {
      const middle = row === null ? (from + to) / 2 : row + 0.5;
      const size = (to - from) * factor;
      zoom(middle - size / 2, middle + size / 2);
    };
    const move = (part) => zoom(from + (to - from) * part, to + (to - from) * part);
    const all = () => zoom(0, count);

    for (const chart of charts) {
      // The row under a pointer, with the part of it.
      const under = (event) => {
        const box = chart.svg.getBoundingClientRect();
        const x = (event.clientX - box.left) * chart.svg.viewBox.baseVal.width / box.width;
        return from + (x - chart.left) / chart.width * (to - from);
      };
      let pressed = null;
      chart.svg.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "mouse" && event.button === 0) {
          pressed = under(event);
          chart.svg.setPointerCapture(event.pointerId);
          event.preventDefault();
        } else {
          point(Math.floor(under(event)));
        }
      });
      chart.svg.addEventListener("pointermove", (event) => point(Math.floor(under(event))));
      chart.svg.addEventListener("pointerup", (event) => {
        if (pressed === null) return;
        const begin = Math.min(pressed, under(event)), end = Math.max(pressed, under(event));
        pressed = null;
        if (end - begin > (to - from) / 50) zoom(begin, end);
      });
      chart.svg.addEventListener("pointercancel", () => { pressed = null; });
      chart.svg.addEventListener("pointerleave", () => { if (pressed === null) point(null); });
      chart.svg.addEventListener("dblclick", all);
      chart.svg.closest(".scroll").addEventListener("keydown", (event) => {
        const keys = {
          ArrowLeft: () => { point((row ?? Math.floor(to)) - 1); follow(); },
          ArrowRight: () => { point((row ?? Math.floor(from) - 1) + 1); follow(); },
          Home: () => { point(0); follow(); },
          End: () => { point(count - 1); follow(); },
          "+": () => by(0.5), "=": () => by(0.5), "-": () => by(2), "0": all,
          Escape: () => { point(null); all(); },
        };
        if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
        keys[event.key]();
        event.preventDefault();
      });
    }

    // Keeps what is pointed at in sight.
    function follow() {
      if (row < from) zoom(row, row + to - from);
      else if (row + 1 > to) zoom(row + 1 - (to - from), row + 1);
    }

    if (count > 3) {
      const bar = document.createElement("div");
      bar.className = "zoom";
      for (const [text, label, act] of [["+", "Zoom in", () => by(0.5)], ["−", "Zoom out", () => by(2)],
        ["◀", "Earlier", () => move(-0.5)], ["▶", "Later", () => move(0.5)], ["all", "Show all", all]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.setAttribute("aria-label", label);
        button.addEventListener("click", act);
        bar.append(button);
      }
      caption.before(bar);
    }
  }

  document.querySelectorAll("figure").forEach(setUp);
  document.addEventListener("renewed", (event) => event.target.querySelectorAll("figure").forEach(setUp));

  // On paper nothing can be opened.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")]
      .filter((one) => one.querySelectorAll("tr").length <= 60);
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => { opened.forEach((one) => { one.open = false; }); });
  document.documentElement.dataset.ready = "yes";
})();
