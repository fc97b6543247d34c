// A form that creates a job with the data and model of another one, and changed settings.

import { call } from "./api.js";
import { h, fill } from "./dom.js";
import { idOf } from "./format.js";

/** Opens the form. Resolves to the name of the new job, or null. */
export function cloneJob(job) {
  const { spec } = job;
  const field = (label, name, value, hint, options) => {
    const input = h("input", { name, id: `clone-${name}`, value, autocomplete: "off", ...options });
    return h("label.field", { htmlFor: input.id }, h("span", {}, label), input, hint && h("small", {}, hint));
  };
  return new Promise((resolve) => {
    const message = h("p.error", { role: "alert", hidden: true });
    const whole = { inputMode: "numeric", pattern: "[0-9]+", required: true };
    const form = h(
      "form",
      { onsubmit: submit },
      h("h2", {}, `Clone ${idOf(job.name)}`),
      h("p.muted", {}, "The new job has the same data, model and initial weights."),
      field("Name", "jobId", "", "a-z, 0-9 and -. Empty: the server chooses one.", { pattern: "[a-z]([a-z0-9\\-]{0,61}[a-z0-9])?" }),
      field("Learning rate", "learningRate", spec.optimizer?.sgd?.learningRate ?? "", "", { inputMode: "decimal", required: true }),
      field("Epochs", "epochs", spec.epochs ?? "", "", whole),
      field("Batch size", "batchSize", spec.batchSize ?? "", "", whole),
      message,
      h(
        "div.actions",
        {},
        h("button.button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button.button.primary", {}, "Create job"),
      ),
    );
    let created = null;
    const dialog = h("dialog", { onclose: () => (dialog.remove(), resolve(created)) }, form);

    async function submit(event) {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(form));
      const changed = {
        ...spec,
        optimizer: { sgd: { learningRate: Number(values.learningRate) } },
        epochs: Number(values.epochs),
        batchSize: Number(values.batchSize),
      };
      try {
        const request = { job: { spec: changed, labels: job.labels ?? {} }, requestId: requestId() };
        created = (await call("CreateJob", values.jobId ? { ...request, jobId: values.jobId } : request)).name;
        dialog.close();
      } catch (error) {
        fill(message, error.message);
        message.hidden = false;
      }
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}

// crypto.randomUUID exists only on pages with HTTPS or on localhost.
const requestId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
