// Predictions for rows of numbers that a user types or pastes.

import { h, fill } from "./dom.js";
import { metric, percent } from "./format.js";
import { button } from "./parts.js";
import { classesOf, className, predict, softmax, widths } from "./predict.js";

const MAX_ROWS = 100;
const MAX_COLUMNS = 12;

export function rowsPanel(model, job) {
  const { inputs } = widths(model);
  const area = h("textarea", { rows: 5, spellcheck: false, "aria-label": "Rows of numbers", placeholder: Array(Math.min(inputs, 8)).fill("0").join(", ") + (inputs > 8 ? ", …" : "") });
  const result = h("div.scroll", { "aria-live": "polite" });

  async function run() {
    const lines = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const rows = lines.map((line) => line.split(/[\s,;]+/).map(Number));
    const wrong = rows.findIndex((row) => row.length !== inputs || !row.every(Number.isFinite));
    const problem =
      (!rows.length && `Type a row of ${inputs} numbers.`) ||
      (rows.length > MAX_ROWS && `There are ${rows.length} rows. The page takes up to ${MAX_ROWS}.`) ||
      (wrong >= 0 && `Row ${wrong + 1} must have ${inputs} numbers, and has ${rows[wrong].filter(Number.isFinite).length}.`);
    if (problem) return fill(result, h("p.error", { role: "alert" }, problem));
    try {
      return fill(result, table(await predict(model, rows)));
    } catch (error) {
      return fill(result, h("p.error", { role: "alert" }, error.message));
    }
  }

  function table(outputs) {
    const classes = classesOf(model, job);
    const columns = outputs[0].slice(0, MAX_COLUMNS).map((_, place) => (classes ? className(model, place) : `output ${place}`));
    const body = outputs.map((row) => {
      const shares = classes?.areLogits ? softmax(row) : row;
      const best = shares.indexOf(Math.max(...shares));
      const cells = shares.slice(0, MAX_COLUMNS).map((value) => h("td.number", {}, classes ? percent(value) : metric(value)));
      return h("tr", {}, classes && h("td", {}, h("strong", {}, className(model, best))), cells);
    });
    return h("table.settings", {}, h("thead", {}, h("tr", {}, classes && h("th", {}, "Class"), columns.map((each) => h("th", {}, each)))), h("tbody", {}, body));
  }

  return h(
    "section.card.predict",
    {},
    h("div.card-head", {}, h("h2", {}, "Predict")),
    h("p.muted", {}, `One row on each line: ${inputs} ${inputs === 1 ? "number" : "numbers"}, separated by commas or spaces.`),
    area,
    h("div.actions", {}, button("Predict", null, run, "primary")),
    result,
  );
}
