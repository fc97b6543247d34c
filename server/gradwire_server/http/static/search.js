// The search: words for names, key=value for labels, and comparisons of metrics such as "loss < 0.1".

import { idOf, stateOf } from "./format.js";

const COMPARE = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

/**
 * Turns a search into a filter of the server.
 * Returns the filter, a test for one job, and a note for the user, which is empty if there is nothing to say.
 */
export function parseSearch(text, state) {
  const found = conditions(text);
  const filters = found.list.map((each) => each.filter);
  if (state) filters.unshift(`state = ${state}`);
  return {
    filter: filters.join(" AND "),
    matches: (job) => (!state || stateOf(job) === state) && found.list.every((each) => each.matches(job)),
    note: found.note,
  };
}

/** What is wrong with a search, if an error says that, or an empty string. The server checks names and numbers. */
export function searchProblem(error) {
  const problem = error.fields?.find((each) => each.field === "filter");
  return problem ? `The search ${problem.description.replace(/\.*$/, "")}.` : "";
}

function conditions(text) {
  const words = text.replaceAll('"', "").split(/\s+/);
  const tokens = words.flatMap((word) => word.split(/([<>]=?)/)).filter(Boolean);
  const list = [];
  let note = "";
  for (let place = 0; place < tokens.length; place += 1) {
    const token = tokens[place];
    if (isOperator(token)) note = `Write a metric before ${token}, for example loss ${token} 0.1.`;
    else if (isOperator(tokens[place + 1])) {
      const [operator, value] = [tokens[place + 1], tokens[place + 2]];
      const field = metricField(token);
      if (value === undefined) note = `Write a number after ${token} ${operator}.`;
      else {
        list.push(metricCondition(field, operator, value));
        if (field !== token) note = `${token} is that of the test set. For the training set, write ${field.replace("test.", "train.")}.`;
      }
      place += 2;
    } else list.push(wordCondition(token));
  }
  return { list, note };
}

const isOperator = (token) => Object.hasOwn(COMPARE, token);

/** A metric without a set is that of the test set. */
const metricField = (name) => (name.includes(".") || name === "running_loss" ? name : `test.${name}`);

function metricCondition(field, operator, value) {
  return {
    filter: `${field} ${operator} "${value}"`,
    matches: (job) => COMPARE[operator](metricOf(job.lastEpoch, field), Number(value)),
  };
}

/** The value of a metric such as "test.mean_absolute_error", or NaN. Protobuf omits numbers that are 0. */
function metricOf(epoch, field) {
  const [set, name] = field === "running_loss" ? ["", field] : field.split(".");
  const metrics = set ? epoch?.[set] : epoch;
  const key = name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  const absent = name.endsWith("loss") ? 0 : NaN;
  return Number(metrics ? (metrics[key] ?? absent) : NaN);
}

function wordCondition(word) {
  const [key, value] = word.split("=");
  if (value) return { filter: `labels.${key} = "${value}"`, matches: (job) => job.labels?.[key] === value };
  return { filter: `name : "${key}"`, matches: (job) => idOf(job.name).includes(key) };
}
