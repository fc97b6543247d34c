// Calls the server: unary calls as JSON (the Connect protocol), and streams as server-sent events.
//
// A test checks the methods and the fields of their requests against the .proto files.

const METHODS = {
  ListJobs: ["TrainingService", ["pageSize", "pageToken", "filter"]],
  GetJob: ["TrainingService", ["name"]],
  CreateJob: ["TrainingService", ["job", "jobId", "requestId"]],
  PauseJob: ["TrainingService", ["name"]],
  ResumeJob: ["TrainingService", ["name"]],
  CancelJob: ["TrainingService", ["name"]],
  DeleteJob: ["TrainingService", ["name", "allowMissing"]],
  SampleEpochs: ["TrainingService", ["name", "firstEpoch", "lastEpoch", "maxEpochs"]],
  ListJobEvents: ["TrainingService", ["name"]],
  ListWorkers: ["TrainingService", []],
  WatchJobs: ["TrainingService", ["names", "includeNew"]],
  ListModels: ["ModelService", ["pageSize", "pageToken", "filter"]],
  GetModel: ["ModelService", ["name"]],
  GetModelCard: ["ModelService", ["name"]],
  GetClassCounts: ["ModelService", ["name", "epoch"]],
  DeleteModel: ["ModelService", ["name", "allowMissing"]],
  DownloadModel: ["ModelService", ["name", "format"]],
  Predict: ["ModelService", ["name", "inputs"]],
};

const TOKEN = "gradwire-token";

/** A call that failed: `code` is that of Connect, and `reason` is the stable reason of gradwire. */
export class CallError extends Error {
  constructor(code, message, details = []) {
    super(message);
    this.code = code;
    const debug = details.map((each) => each.debug ?? {});
    this.reason = debug.find((each) => each.reason)?.reason ?? "";
    this.fields = debug.flatMap((each) => each.fieldViolations ?? []);
  }

  /** Whether the server cannot be reached now, but may be soon. */
  get isTemporary() {
    return this.code === "unavailable" || this.code === "deadline_exceeded";
  }
}

// The token is kept for this tab only. It is sent in a header, never in a cookie, so that no other site can use it.
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  clear: () => sessionStorage.removeItem(TOKEN),
};

/** Makes a unary call. */
export async function call(method, request = {}, { signal } = {}) {
  const response = await send(pathOf(method, request), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  return response.json();
}

/** Yields the responses of a call that returns a stream. Throws CallError when the stream fails. */
export async function* stream(method, request, { signal, onopen } = {}) {
  const response = await send(`${pathOf(method, request)}?${query(request)}`, { signal });
  onopen?.();
  for await (const event of serverSentEvents(response.body, signal)) {
    if (event.name === "end") return;
    const data = JSON.parse(event.data);
    if (event.name === "failure") throw new CallError(data.code, data.message, data.details);
    yield data;
  }
}

/** Downloads a file: a call whose stream is a header and chunks. */
export async function download(method, request) {
  const response = await send(`${pathOf(method, request)}?${query(request)}`, {});
  const name = /filename="([^"]*)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "model";
  return { name, blob: await response.blob() };
}

function pathOf(method, request) {
  const [service, fields] = METHODS[method];
  const unknown = Object.keys(request).find((name) => !fields.includes(name));
  if (unknown) throw new Error(`${method} has no field ${unknown}`);
  return `/gradwire.v1.${service}/${method}`;
}

function query(request) {
  const pairs = Object.entries(request).flatMap(([name, value]) => [value].flat().map((each) => [name, String(each)]));
  return new URLSearchParams(pairs);
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("unavailable", "The server does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new CallError(body.code ?? "unknown", body.message ?? `The server answered ${response.status}.`, body.details);
}

async function* serverSentEvents(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let event = { name: "message", data: "" };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new CallError("unavailable", "The connection was closed.");
      const lines = (text + value).split("\n");
      text = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ")) event.data += line.slice(6);
        else if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line === "" && event.data) {
          yield event;
          event = { name: "message", data: "" };
        }
      }
    }
  } catch (error) {
    if (signal?.aborted || error instanceof CallError) throw error;
    throw new CallError("unavailable", "The connection was lost.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
