// Runs a model on rows of numbers.

import { call } from "./api.js";
import { h, fill, setText } from "./dom.js";
import { metric, percent } from "./format.js";

/** The number of inputs and outputs of a model. */
export function widths(model) {
  const linear = (model.spec?.layers ?? []).filter((layer) => layer.linear);
  return { inputs: Number(linear[0]?.linear.inFeatures ?? 0), outputs: Number(linear.at(-1)?.linear.outFeatures ?? 0) };
}

/** Whether the outputs are classes: logits, or probabilities. */
export function classesOf(model, job) {
  if (job?.spec?.loss) return job.spec.loss.crossEntropy ? { areLogits: !job.spec.loss.crossEntropy.fromProbabilities } : null;
  return model.epoch?.train?.accuracy !== undefined ? { areLogits: true } : null;
}

/** Returns the outputs of a model for rows of numbers. */
export async function predict(model, rows, signal) {
  const { inputs } = widths(model);
  const bytes = new Uint8Array(Float32Array.from(rows.flat()).buffer);
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  const tensor = { dtype: "DATA_TYPE_FLOAT32", shape: [rows.length, inputs], data: btoa(text) };
  const { outputs } = await call("Predict", { name: model.name, inputs: tensor }, { signal });
  const decoded = Uint8Array.from(atob(outputs.data), (character) => character.charCodeAt(0));
  const Numbers = outputs.dtype === "DATA_TYPE_FLOAT64" ? Float64Array : Float32Array;
  const numbers = new Numbers(decoded.buffer);
  const width = Number(outputs.shape[1]);
  return rows.map((_row, number) => Array.from(numbers.subarray(number * width, (number + 1) * width)));
}

export function softmax(logits) {
  const largest = Math.max(...logits);
  const exponentials = logits.map((each) => Math.exp(each - largest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((each) => each / sum);
}

export const className = (model, place) => model.spec?.classNames?.[place] ?? String(place);

// More classes than these are not shown one by one.
const MAX_BARS = 12;

/** Shows probabilities as bars. */
export class Answer {
  constructor(model, job) {
    this.model = model;
    this.classes = classesOf(model, job);
    this.best = h("output.answer", { "aria-live": "polite" }, "–");
    this.sure = h("span.muted", {}, "Draw to ask the model");
    this.bars = h("ul.answer-bars");
    this.element = h("div.answer-panel", {}, h("div.answer-best", {}, this.best, this.sure), this.bars);
    const { outputs } = widths(model);
    this.rows = Array.from({ length: Math.min(outputs, MAX_BARS) }, () => {
      const name = h("span");
      const bar = h("i");
      const value = h("b");
      this.bars.append(h("li", {}, name, h("span.bar", {}, bar), value));
      return { name, bar, value };
    });
    this.clear();
  }

  clear() {
    setText(this.best, "–");
    setText(this.sure, "Draw to ask the model");
    this.rows.forEach((row, place) => this.show(row, className(this.model, place), 0, ""));
  }

  show(row, name, share, value, isBest = false) {
    setText(row.name, name);
    row.bar.style.width = `${100 * share}%`;
    row.bar.parentElement.classList.toggle("best", isBest);
    setText(row.value, value);
  }

  update(outputs) {
    const shares = this.classes ? (this.classes.areLogits ? softmax(outputs) : outputs) : outputs;
    const order = shares.map((_, place) => place);
    if (shares.length > MAX_BARS) order.sort((a, b) => shares[b] - shares[a]);
    const best = shares.indexOf(Math.max(...shares));
    setText(this.best, this.classes ? className(this.model, best) : metric(outputs[0]));
    setText(this.sure, this.classes ? `${percent(shares[best])} sure` : "");
    this.rows.forEach((row, number) => {
      const place = order[number];
      const share = this.classes ? shares[place] : 0;
      this.show(row, className(this.model, place), share, this.classes ? percent(share) : metric(outputs[place]), place === best);
    });
  }

  fail(error) {
    setText(this.best, "–");
    fill(this.sure, error.message);
  }
}
