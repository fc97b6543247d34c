// The epochs of a job that a curve shows: a sample of those that are stored, and then those that arrive.

import { call } from "./api.js";

// A screen cannot show more points than this in one curve.
const MAX_POINTS = 400;
const RELOAD_MS = 1500;

export class History {
  /** @param {string} name The name of the job. */
  constructor(name) {
    this.name = name;
    this.epochs = [];
    this.range = {};
    this.hasGap = false;
    this.loadedAt = 0;
  }

  get last() {
    return this.epochs.at(-1)?.epoch ?? 0;
  }

  /** Reads a sample of the stored epochs of a range, or of all epochs. */
  async load(range = this.range, signal) {
    this.range = range;
    this.loadedAt = performance.now();
    const { epochs = [] } = await call("SampleEpochs", { name: this.name, maxEpochs: MAX_POINTS, ...range }, { signal });
    if (this.range !== range) return; // Another range was chosen in the meantime.
    const last = epochs.at(-1)?.epoch ?? 0;
    this.epochs = range.lastEpoch ? epochs : [...epochs, ...this.epochs.filter((each) => each.epoch > last)];
    this.hasGap = false;
  }

  /** Adds the newest epoch of a job. Epochs between it and the one before were not sent, and are read later. */
  add(epoch) {
    if (!epoch || this.range.lastEpoch || epoch.epoch <= this.last) return false;
    this.hasGap ||= epoch.epoch > this.last + 1;
    this.epochs.push(epoch);
    return true;
  }

  /** Whether the stored epochs should be read again, because some were not sent or there are too many points. */
  isStale(hasEnded) {
    const isIncomplete = this.hasGap || this.epochs.length > 3 * MAX_POINTS;
    return isIncomplete && (hasEnded || performance.now() - this.loadedAt > RELOAD_MS);
  }

  /** The points of a metric, for example ("test", "loss"). Epochs without it are left out. */
  points(set, name) {
    const x = [];
    const y = [];
    for (const epoch of this.epochs) {
      const value = valueOf(epoch, set, name);
      if (value !== null) {
        x.push(epoch.epoch);
        y.push(Number.isFinite(value) ? value : null);
      }
    }
    return { x, y };
  }

  /** The first epoch whose loss is not a finite number, or 0. */
  get divergedAt() {
    return this.epochs.find((epoch) => !Number.isFinite(Number(epoch.runningLoss ?? 0)))?.epoch ?? 0;
  }
}

/** A metric of an epoch, or null. A loss of 0 is left out in JSON. */
export function valueOf(epoch, set, name) {
  const metrics = epoch?.[set];
  if (!metrics) return null;
  if (name === "loss") return Number(metrics.loss ?? 0);
  return metrics[name] === undefined ? null : Number(metrics[name]);
}
