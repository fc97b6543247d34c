// A line chart with a legend that shows the values at the cursor.

import uPlot from "./vendor/uplot.js";
import { h, fill, setText } from "./dom.js";

const HEIGHT = 240;
// Above this number of points, only the lines are drawn.
const MAX_DOTS = 40;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The color of a curve: distinct for people with color blindness (Okabe and Ito), in light and dark. */
export const curveColor = (place) => color(`--curve-${(place % 6) + 1}`);

export class Chart {
  /**
   * @param {{title: string, format: function(number): string, tick?: function(number): string, onzoom: function(?{first: number, last: number}),
   *   range?: function(number, number): number[], actions?: Node[]}} options
   */
  constructor(options) {
    this.options = options;
    this.legend = h("ul.legend");
    this.area = h("div.plot");
    this.element = h(
      "section.card.chart",
      { "aria-label": options.title },
      h("div.card-head", {}, h("h2", {}, options.title), this.legend, options.actions),
      this.area,
    );
    this.series = [];
    this.isLog = false;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.area);
    this.onTheme = () => this.rebuild();
    addEventListener("gradwire-theme", this.onTheme);
  }

  destroy() {
    this.observer.disconnect();
    removeEventListener("gradwire-theme", this.onTheme);
    this.plot?.destroy();
  }

  setLog(isLog) {
    this.isLog = isLog;
    this.rebuild();
  }

  /** Draws curves. @param {{label: string, place: number, dash: boolean, x: number[], y: number[]}[]} series */
  update(series) {
    const sameCurves =
      this.plot && series.length === this.series.length && series.every((each, i) => each.label === this.series[i].label);
    this.series = series;
    if (!sameCurves || this.hasDots !== this.fewPoints()) this.rebuild();
    else this.plot.setData(this.data());
    this.showValues(null);
  }

  fewPoints() {
    return this.series.every((each) => each.x.length <= MAX_DOTS);
  }

  data() {
    const tables = this.series.map((each) => [each.x, each.y]);
    return tables.length ? uPlot.join(tables) : [[]];
  }

  rebuild() {
    this.plot?.destroy();
    this.hasDots = this.fewPoints();
    const axis = {
      stroke: color("--muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
    };
    const { format, range, tick: tickFormat } = this.options;
    this.plot = new uPlot(
      {
        width: this.area.clientWidth || 300,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, setScale: false } },
        scales: {
          x: { time: false, range: (_plot, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
          y: { distr: this.isLog ? 3 : 1, ...(range && !this.isLog ? { range: (_p, low, high) => range(low, high) } : {}) },
        },
        axes: [
          { ...axis, size: 28, grid: { show: false }, values: (_p, ticks) => ticks.map((t) => (t % 1 ? "" : t.toLocaleString("en"))) },
          { ...axis, size: 52, values: (_p, ticks) => ticks.map((tick) => (tick === null ? "" : (tickFormat ?? format)(tick))) },
        ],
        series: [
          {},
          ...this.series.map(({ label, place, dash }) => ({
            label,
            stroke: curveColor(place),
            width: 1.75,
            dash: dash ? [5, 4] : undefined,
            spanGaps: true,
            points: { show: this.hasDots, size: 4, fill: curveColor(place), width: 0 },
          })),
        ],
        hooks: {
          setCursor: [(plot) => this.showValues(plot.cursor.idx)],
          setSelect: [(plot) => this.select(plot)],
          draw: [() => this.drawn()],
        },
      },
      this.data(),
      this.area,
    );
    this.plot.over.addEventListener("dblclick", () => this.options.onzoom(null));
    this.entries = this.series.map((each) => {
      const value = h("b");
      const mark = h("i", { className: each.dash ? "dashed" : "" });
      mark.style.color = curveColor(each.place);
      return { value, item: h("li", {}, mark, h("span", {}, each.label), value) };
    });
    fill(this.legend, this.entries.map((entry) => entry.item));
  }

  resize() {
    if (this.plot && this.area.clientWidth) this.plot.setSize({ width: this.area.clientWidth, height: HEIGHT });
  }

  /** Shows the values at a place in the data, or the last values. */
  showValues(place) {
    this.entries?.forEach(({ value }, number) => {
      const values = this.plot.data[number + 1];
      const shown = place === null || place === undefined ? values?.findLast((each) => each != null) : values?.[place];
      setText(value, shown == null ? "–" : this.options.format(shown));
    });
  }

  select(plot) {
    if (plot.select.width < 8) return;
    const first = Math.max(1, Math.floor(plot.posToVal(plot.select.left, "x")));
    const last = Math.ceil(plot.posToVal(plot.select.left + plot.select.width, "x"));
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (last > first) this.options.onzoom({ first, last });
  }

  /** Tells listeners which epoch is on the screen, so that the delay can be measured. */
  drawn() {
    const epoch = this.plot?.data[0].at(-1) ?? 0;
    dispatchEvent(new CustomEvent("gradwire-drawn", { detail: { epoch } }));
  }
}
