// How the model of a job predicts each class: the confusion matrix, and precision, recall and F1.

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { count, idOf, stateOf } from "./format.js";

// The opacity of the color of a cell with all rows of a class, in percent. Text on it stays readable.
const MAX_OPACITY = 55;

/** Returns a card that shows the counts once the job has a model, and a function that takes the changed job. */
export function confusionCard(signal) {
  const choice = h("div.segments", { role: "group", "aria-label": "Epoch" });
  const note = h("p.muted");
  const body = h("div.matrix-parts");
  const element = h("section.card.confusion", { hidden: true }, h("div.card-head", {}, h("h2", {}, "Classes"), choice), note, body);
  let shown = "";

  async function show(job, epoch) {
    for (const each of choice.children) each.setAttribute("aria-pressed", String(each.value === String(epoch)));
    try {
      const counts = await call("GetClassCounts", { name: `models/${idOf(job.name)}`, epoch }, { signal });
      if (shown !== `${job.name} ${epoch}`) return;
      const set = counts.evaluatedOn === "EVALUATION_SET_TEST" ? "test set" : "training set";
      note.textContent = `The rows of the ${set}, with the weights after epoch ${count(counts.epoch)}.`;
      fill(body, parts(counts));
      element.hidden = false;
    } catch (error) {
      if (signal.aborted || shown !== `${job.name} ${epoch}`) return;
      // A model that predicts numbers has no classes.
      element.hidden = error.reason === "NO_CLASS_COUNTS";
      note.textContent = error.message;
      body.replaceChildren();
    }
  }

  function select(job, epoch) {
    shown = `${job.name} ${epoch}`;
    show(job, epoch);
  }

  function update(job) {
    if (shown || stateOf(job) !== "SUCCEEDED") return;
    const final = job.lastEpoch?.epoch;
    const keepsBest = job.spec?.earlyStopping?.restoreBest || job.spec?.keep?.best;
    const best = keepsBest && job.bestEpoch?.epoch !== final ? job.bestEpoch?.epoch : undefined;
    const option = (text, epoch) => h("button", { type: "button", value: String(epoch), onclick: () => select(job, epoch) }, `${text} epoch`);
    choice.hidden = !best;
    if (best) fill(choice, option("Final", final), option("Best", best));
    select(job, !best ? 0 : job.spec.earlyStopping?.restoreBest ? best : final);
  }

  return { element, update };
}

function parts({ classNames = [], actual = [], predicted = [], correct = [], confusion = [] }) {
  const names = actual.map((_, number) => classNames[number] ?? String(number));
  return [confusion.length ? matrix(names, confusion.map(Number)) : h("p.muted", {}, "A matrix of more than 100 classes is not shown."), metrics(names, actual, predicted, correct)];
}

function matrix(names, confusion) {
  const size = names.length;
  const rows = names.map((name, row) => {
    const counts = confusion.slice(row * size, (row + 1) * size);
    const total = counts.reduce((sum, each) => sum + each, 0);
    return h("tr", {}, h("th", { scope: "row", title: name }, name), counts.map((each, column) => cell(each, total, row === column, names[column])));
  });
  const head = h("tr", {}, h("th", {}, "Actual"), names.map((name) => h("th", { scope: "col", title: name }, name)));
  return scroll("Confusion matrix", h("table.matrix", {}, h("caption", {}, "Rows: actual classes. Columns: predicted classes."), h("thead", {}, head), h("tbody", {}, rows)));
}

function cell(number, total, isCorrect, predicted) {
  const kind = !number ? "td.none" : isCorrect ? "td.correct" : "td.mistake";
  const element = h(kind, { title: `${count(number)} of ${count(total)}, predicted as ${predicted}` }, count(number));
  // The square root makes rare mistakes visible.
  if (number) element.style.setProperty("--share", `${(MAX_OPACITY * Math.sqrt(number / total)).toFixed(1)}%`);
  return element;
}

function metrics(names, actual, predicted, correct) {
  const ratio = (part, whole) => (whole ? part / whole : 0).toFixed(3);
  const rows = names.map((name, number) => {
    const [rows, claims, hits] = [actual, predicted, correct].map((each) => Number(each[number]));
    const values = [ratio(hits, claims), ratio(hits, rows), ratio(2 * hits, rows + claims), count(rows)];
    return h("tr", {}, h("th", { scope: "row", title: name }, name), values.map((value) => h("td", {}, value)));
  });
  const head = h("tr", {}, ["Class", "Precision", "Recall", "F1", "Rows"].map((name) => h("th", { scope: "col" }, name)));
  return scroll("Metrics of each class", h("table.matrix", {}, h("thead", {}, head), h("tbody", {}, rows)));
}

const scroll = (label, table) => h("div.matrix-scroll", { role: "region", "aria-label": label, tabIndex: 0 }, table);
