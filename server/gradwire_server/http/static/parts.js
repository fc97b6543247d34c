// Small parts that several views use.

import { call, download } from "./api.js";
import { h, icon } from "./dom.js";
import { count, idOf, stateOf, title } from "./format.js";

/** The state of a job as a colored label. */
export function pill(job) {
  const state = stateOf(job);
  return h("span.pill", { "data-state": state }, h("i"), title(state));
}

export const button = (text, iconName, onclick, kind = "") =>
  h(`button.button${kind ? `.${kind}` : ""}`, { type: "button", onclick }, iconName && icon(iconName), h("span", {}, text));

/** What is shown where there is nothing to show. */
export function empty(heading, ...text) {
  return h("div.empty", {}, icon("empty"), h("h2", {}, heading), text.map((each) => (each instanceof Node ? each : h("p", {}, each))));
}

export function failure(error, retry) {
  return h(
    "div.empty.failure",
    { role: "alert" },
    h("h2", {}, error.code === "not_found" ? "Not found" : "That did not work"),
    h("p", {}, error.message),
    retry && button("Try again", null, retry),
  );
}

export const labels = (resource) =>
  Object.entries(resource.labels ?? {}).map(([key, value]) => h("span.label", {}, `${key}=${value}`));

/** A number with its name. */
export function figure(name, value, note) {
  return h("div.figure", {}, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, note)));
}

/** The kind of a layer, with its name unless it is only a number. */
const titleOf = (layer, kind) => (/^\d*$/.test(layer.name ?? "") ? kind : `${layer.name} (${kind})`);

/** Draws the layers of a model from top to bottom. The width of a layer shows the number of its units. */
export function stack(model, loss) {
  const layers = model?.layers ?? [];
  const units = layers.flatMap((layer) => (layer.linear ? [Number(layer.linear.inFeatures ?? 0), Number(layer.linear.outFeatures)] : []));
  const widest = Math.max(1, ...units);
  const row = (name, note, width, kind) => {
    const box = h(`li.layer.${kind}`, {}, h("span", {}, name), h("small", {}, note));
    if (width) box.style.setProperty("--width", String(0.4 + (0.6 * Math.log1p(width)) / Math.log1p(widest)));
    return box;
  };
  let width = units[0];
  const rows = layers.map((layer) => {
    if (!layer.linear) return row(titleOf(layer, "ReLU"), width ? `${count(width)} units` : "", width, "relu");
    width = Number(layer.linear.outFeatures);
    const inputs = Number(layer.linear.inFeatures ?? 0);
    const parameters = inputs ? `${count((inputs + 1) * width)} parameters` : "";
    return row(titleOf(layer, "Linear"), `${inputs || "?"} → ${width}${parameters && `, ${parameters}`}`, width, "linear");
  });
  const end = loss && row("Loss", loss.crossEntropy ? "cross entropy" : "mean squared error", 0, "end");
  return h("ol.stack", {}, row("Inputs", units[0] ? `${units[0]} features` : "", units[0], "end"), rows, end);
}

/** Shows a message for a few seconds. */
export function toast(text, isError = false) {
  const item = h(`div.toast${isError ? ".error" : ""}`, {}, text);
  document.getElementById("toasts").append(item);
  setTimeout(() => item.remove(), isError ? 8000 : 4000);
}

/** Runs an action, and shows its error. Returns whether it succeeded. */
export async function attempt(action, done) {
  try {
    await action();
    if (done) toast(done);
    return true;
  } catch (error) {
    toast(error.message, true);
    return false;
  }
}

/** Asks a question in a dialog. Resolves to whether the answer is yes. */
export function confirm(question, text, yes) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")) },
      h(
        "form",
        { method: "dialog" },
        h("h2", {}, question),
        h("p", {}, text),
        h("div.actions", {}, h("button.button", { value: "no" }, "Keep it"), h("button.button.danger", { value: "yes" }, yes)),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Saves a model as a file of the browser. */
export async function save(name, format) {
  const file = await download("DownloadModel", { name, format: `MODEL_FORMAT_${format}` });
  saveFile(file.name, file.blob);
}

/** Saves a file of the browser. */
export function saveFile(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Deletes a job or a model after a question. Returns whether it was deleted. */
export async function remove(resource, kind, text) {
  if (!(await confirm(`Delete ${idOf(resource.name)}?`, text, "Delete"))) return false;
  return attempt(() => call(`Delete${kind}`, { name: resource.name, allowMissing: true }), `Deleted ${idOf(resource.name)}.`);
}

