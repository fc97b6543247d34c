// One job, or several jobs compared: their curves as they learn, and what happened to them.

import { call } from "./api.js";
import { Chart, curveColor } from "./chart.js";
import { cloneJob } from "./clone.js";
import { confusionCard } from "./confusion.js";
import { fill, h, icon, setText } from "./dom.js";
import { bytes, clock, count, duration, hasEnded, idOf, metric, percent, stateOf, title } from "./format.js";
import { History } from "./history.js";
import { watchJobs } from "./live.js";
import { attempt, button, confirm, failure, figure, labels, pill, remove, stack, toast } from "./parts.js";

const TICK_MS = 500;

/** Shows jobs until the signal is aborted. */
export async function jobView(main, ids, context, signal) {
  const names = ids.map((id) => `jobs/${id}`);
  const histories = new Map(names.map((name) => [name, new History(name)]));
  let jobs;
  try {
    jobs = new Map(await Promise.all(names.map(async (name) => [name, await call("GetJob", { name }, { signal })])));
  } catch (error) {
    if (!signal.aborted && !context.onerror(error)) fill(main, back(), failure(error, () => context.reload()));
    return;
  }
  if (signal.aborted) return;
  const isOne = names.length === 1;
  const about = isOne ? oneJob(jobs.get(names[0]), context, signal) : severalJobs(jobs);

  const zoom = (range) => {
    reset.hidden = !range;
    for (const history of histories.values()) {
      history.load(range ? { firstEpoch: range.first, lastEpoch: range.last } : {}, signal).then(draw, ignoreAbort);
    }
  };
  const reset = button("Show all epochs", null, () => zoom(null), "small");
  reset.hidden = true;
  const log = h("button.button.small", { type: "button", "aria-pressed": "false", onclick: toggleLog }, "Log scale");
  const lossChart = new Chart({ title: "Loss", format: metric, onzoom: zoom, actions: [h("span.chart-actions", {}, reset, log)] });
  const within = (low, high) => [Math.max(0, (low ?? 0) - 0.02), Math.min(1, (high ?? 1) + 0.02)];
  const accuracyChart = new Chart({ title: "Accuracy", format: percent, tick: (value) => `${Math.round(1000 * value) / 10} %`, onzoom: zoom, range: within });
  accuracyChart.element.hidden = true;
  const warning = h("p.notice", { hidden: true, role: "status" });
  fill(main, about.head, warning, h("div.charts", {}, lossChart.element, accuracyChart.element), about.body);
  signal.addEventListener("abort", () => (lossChart.destroy(), accuracyChart.destroy(), clearInterval(timer)));

  function toggleLog() {
    const isLog = log.getAttribute("aria-pressed") !== "true";
    log.setAttribute("aria-pressed", String(isLog));
    lossChart.setLog(isLog);
  }

  const ignoreAbort = (error) => signal.aborted || toast(error.message, true);

  let isDrawing = false;
  function draw() {
    if (isDrawing || signal.aborted) return;
    isDrawing = true;
    requestAnimationFrame(() => {
      isDrawing = false;
      if (signal.aborted) return;
      lossChart.update(curves("loss"));
      const accuracies = curves("accuracy");
      accuracyChart.element.hidden = !accuracies.length;
      if (accuracies.length) accuracyChart.update(accuracies);
      const diverged = [...histories.values()].find((history) => history.divergedAt);
      warning.hidden = !diverged;
      if (diverged) setText(warning, `The loss of ${idOf(diverged.name)} is not a finite number from epoch ${diverged.divergedAt} on. A smaller learning rate may help.`);
    });
  }

  function curves(name) {
    return names.flatMap((job, number) => {
      const history = histories.get(job);
      const found = [];
      for (const [set, dash] of [["train", false], ["test", true]]) {
        const points = history.points(set, name);
        if (!points.x.length) continue;
        const label = isOne ? set : `${idOf(job)} ${set}`;
        found.push({ label, place: isOne ? Number(dash) : number, dash: !isOne && dash, ...points });
      }
      return found;
    });
  }

  function refresh() {
    for (const name of names) {
      histories.get(name).load(undefined, signal).then(draw, ignoreAbort);
      about.onevents?.(name);
    }
  }

  function onchange(changes) {
    for (const job of changes.jobs) {
      const before = jobs.get(job.name);
      const merged = { ...job, spec: before.spec };
      jobs.set(job.name, merged);
      histories.get(job.name).add(job.lastEpoch);
      about.update(merged);
      if (before.state !== job.state || before.attempt !== job.attempt) about.onevents?.(job.name);
      if (hasEnded(job) && !hasEnded(before)) histories.get(job.name).load(undefined, signal).then(draw, ignoreAbort);
    }
    if (changes.deletedJobs.length) {
      toast(`${changes.deletedJobs.map(idOf).join(", ")} was deleted.`);
      location.hash = "#/jobs";
      return;
    }
    draw();
  }

  // What was not sent while the job was fast is read from the store.
  const timer = setInterval(() => {
    about.tick?.();
    for (const [name, history] of histories) {
      if (history.isStale(hasEnded(jobs.get(name)))) history.load(undefined, signal).then(draw, ignoreAbort);
    }
  }, TICK_MS);

  refresh();
  draw();
  watchJobs({ names }, { onchange, onstate: context.onstate, onreconnect: refresh }, signal);
}

const back = () => h("a.back", { href: "#/jobs" }, icon("back"), "Jobs");

function severalJobs(jobs) {
  const items = new Map();
  const list = h(
    "ul.compared",
    {},
    [...jobs.values()].map((job, number) => {
      const mark = h("i");
      mark.style.background = curveColor(number);
      const state = h("span", {}, pill(job));
      items.set(job.name, state);
      return h("li", {}, mark, h("a", { href: `#/jobs/${idOf(job.name)}` }, idOf(job.name)), state);
    }),
  );
  return {
    head: [back(), h("div.page-head", {}, h("h1", {}, `${jobs.size} jobs`), list)],
    body: h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Settings")), settingsTable([...jobs.values()])),
    update: (job) => fill(items.get(job.name), pill(job)),
  };
}

const SETTINGS = [
  ["Architecture", (job) => job.architecture],
  ["Learning rate", (job) => job.spec.optimizer?.sgd?.learningRate],
  ["Batch size", (job) => count(job.spec.batchSize)],
  ["Epochs", (job) => count(job.spec.epochs)],
  ["Loss", (job) => (job.spec.loss?.crossEntropy ? "cross entropy" : "mean squared error")],
  ["Training rows", (job) => count(job.spec.train?.inputs?.shape?.[0] ?? 0)],
  ["Test rows", (job) => (job.spec.test ? count(job.spec.test.inputs.shape[0]) : "–")],
  ["Numbers", (job) => (job.spec.dtype ?? "").replace("DATA_TYPE_", "").toLowerCase()],
  ["Shuffle", (job) => (job.spec.shuffle ? "yes" : "no")],
  ["Seed", (job) => job.spec.seed ?? "0"],
];

function settingsTable(jobs) {
  const head = jobs.length > 1 && h("thead", {}, h("tr", {}, h("th"), jobs.map((job) => h("th", {}, idOf(job.name)))));
  const rows = SETTINGS.map(([name, value]) => {
    const values = jobs.map((job) => String(value(job) ?? "–"));
    const differs = new Set(values).size > 1;
    return h(`tr${differs ? ".differs" : ""}`, {}, h("th", { scope: "row" }, name), values.map((each) => h("td", {}, each)));
  });
  return h("div.scroll", {}, h("table.settings", {}, head, h("tbody", {}, rows)));
}

function oneJob(first, context, signal) {
  const id = idOf(first.name);
  let job = first;
  const state = h("span");
  const progress = h("i");
  const figures = h("dl.figures");
  const actions = h("div.actions");
  const wait = h("p.notice", { hidden: true, role: "status" });
  const error = h("div.notice.bad", { hidden: true });
  const log = h("ol.events", { "aria-label": "Events" });
  const facts = h("dl.facts");
  const confusion = confusionCard(signal);
  let shownActions = "";

  const change = (method, done) => () => attempt(async () => update({ ...(await call(method, { name: first.name })), spec: job.spec }), done);
  const available = {
    resume: () => button("Resume", "resume", change("ResumeJob"), "primary"),
    pause: () => button("Pause", "pause", change("PauseJob")),
    cancel: () =>
      button("Cancel", "cancel", async () => {
        if (await confirm(`Cancel ${id}?`, "The job ends now. Its epochs are kept.", "Cancel the job")) await change("CancelJob")();
      }),
    model: () => h("a.button.primary", { href: `#/models/${idOf(job.model)}` }, "Open model"),
    clone: () =>
      button("Clone", "clone", async () => {
        const created = await cloneJob(job);
        if (created) location.hash = `#/${created}`;
      }),
    delete: () =>
      button("Delete", "delete", async () => {
        if (await remove(job, "Job", "The job and its epochs are deleted. Its model is kept.")) location.hash = "#/jobs";
      }),
  };

  function showActions() {
    const now = stateOf(job);
    const names = hasEnded(job)
      ? [...(job.model ? ["model"] : []), "clone", "delete"]
      : [now === "PAUSED" ? "resume" : "pause", "cancel", "clone"];
    if (shownActions === names.join()) return;
    const focused = actions.contains(document.activeElement);
    shownActions = names.join();
    fill(actions, names.map((name) => available[name]()));
    if (focused) actions.querySelector("button, a")?.focus();
  }

  function update(changed) {
    if (Number(changed.lastSequence) < Number(job.lastSequence)) return;
    job = changed;
    if (state.dataset.state !== job.state) fill(state, pill(job));
    state.dataset.state = job.state;
    const done = job.lastEpoch?.epoch ?? job.initialEpoch ?? 0;
    progress.style.width = `${(100 * done) / Math.max(1, job.epochs)}%`;
    progress.dataset.state = stateOf(job);
    const { train, test } = job.lastEpoch ?? {};
    const best = test ?? train;
    const which = test ? "test" : train ? "train" : "";
    fill(
      figures,
      figure("Epoch", count(done), `of ${count(job.epochs ?? 0)}`),
      figure("Loss", metric(best ? (best.loss ?? 0) : job.lastEpoch && (job.lastEpoch.runningLoss ?? 0)), which),
      best?.accuracy !== undefined && figure("Accuracy", percent(best.accuracy), which),
      best?.r2 !== undefined && figure("R²", metric(best.r2), which),
      figure(...timing(job)),
    );
    error.hidden = !job.error;
    if (job.error) fill(error, h("strong", {}, title((job.error.reason ?? "").replace("JOB_ERROR_REASON_", "")) || "Failed"), h("pre", {}, job.error.message ?? ""));
    showActions();
    showFacts();
    confusion.update(job);
  }

  function showFacts() {
    const { execution } = job;
    fill(
      facts,
      execution && [
        figure("Plan", execution.plan, execution.planReason),
        figure("Machine", execution.host, `${execution.device}, ${execution.threads ?? 1} ${execution.threads > 1 ? "threads" : "thread"}`),
      ],
      figure("Attempt", job.attempt ?? 0),
      figure("Size of the events", bytes(job.diskUsage?.logBytes)),
      (job.continueJob || job.initialModel) && figure("Starts from", idOf(job.continueJob ?? job.initialModel)),
    );
  }

  async function onevents() {
    try {
      const { events = [] } = await call("ListJobEvents", { name: first.name }, { signal });
      fill(log, events.map(eventItem));
      const last = events.findLast((event) => event.stateChange)?.stateChange;
      const reason = stateOf(job) === "QUEUED" ? await whyItWaits(first.name, last, signal) : "";
      wait.hidden = !reason;
      setText(wait, reason);
    } catch (failed) {
      if (!signal.aborted && !failed.isTemporary) toast(failed.message, true);
    }
  }

  update(first);
  return {
    head: [
      back(),
      h("div.page-head", {}, h("div.title", {}, h("h1", {}, id), state), actions),
      h("p.muted.tags", {}, first.architecture, labels(first)),
      h("div.bar.wide", { role: "progressbar", "aria-label": "Epochs" }, progress),
      wait,
      error,
      figures,
    ],
    body: [
      confusion.element,
      h(
        "div.columns",
        {},
        h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Events")), log),
        h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Model")), stack(first.spec.model, first.spec.loss)),
        h("section.card", {}, h("div.card-head", {}, h("h2", {}, "Settings")), settingsTable([first]), facts),
      ),
    ],
    update,
    onevents,
    tick: () => hasEnded(job) || update(job),
  };
}

/** The name, the value and a remark of the time that a job takes. */
function timing(job) {
  if (!job.startTime) return ["Time", "–", "not started"];
  const end = job.endTime ? new Date(job.endTime) : new Date();
  const seconds = (end - new Date(job.startTime)) / 1000;
  const done = (job.lastEpoch?.epoch ?? 0) - (job.initialEpoch ?? 0);
  if (job.endTime || stateOf(job) !== "RUNNING" || !done) return ["Time", duration(seconds), ""];
  const left = (seconds / done) * (job.epochs - job.lastEpoch.epoch);
  return ["Time", duration(seconds), `about ${duration(left)} left`];
}

async function whyItWaits(name, last, signal) {
  if (last?.message) return `Waiting: ${last.message}.`;
  const { queuedJobs = [], queueLength } = await call("ListWorkers", {}, { signal });
  const reason = queuedJobs.find((each) => each.name === name)?.reason;
  return reason ? `Waiting: ${reason}.` : `Waiting in a queue of ${count(queueLength ?? 1)} jobs.`;
}

function eventItem(event) {
  const change = event.stateChange;
  const state = change ? stateOf(change) : "WARNING";
  const { execution } = change ?? {};
  const text = change ? change.message : event.warning?.message;
  const name = change ? title(state) : title((event.warning?.reason ?? "").replace("JOB_WARNING_REASON_", ""));
  return h(
    "li",
    { "data-state": state },
    h("div", {}, h("strong", {}, name), event.attempt > 1 && h("span.muted", {}, ` attempt ${event.attempt}`), h("time.muted", { dateTime: event.time }, clock(event.time))),
    text && h("p", {}, text),
    execution && h("p", {}, `${execution.plan} plan on ${execution.host}`),
  );
}
