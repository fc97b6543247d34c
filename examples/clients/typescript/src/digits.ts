/**
 * Trains a network on a gradwire server, and checks that the server follows the protocol. Usage: node dist/digits.js
 * FOLDER JOB
 *
 * FOLDER contains inputs.bin (64 bytes for each image) and targets.bin (one byte for each image). The environment
 * variables GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA specify the server. GRADWIRE_CA names a file of
 * trusted certificates and turns on TLS.
 *
 * You can reuse the code in client.ts in other programs.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import * as grpc from "@grpc/grpc-js";

import { Client, describe, details, reference, type Details } from "./client.js";
import type { CreateJobRequest } from "./gen/gradwire/v1/CreateJobRequest.js";
import type { JobSpec } from "./gen/gradwire/v1/JobSpec.js";

const FEATURES = 64;
const EPOCHS = 20;

const [folder, jobId] = process.argv.slice(2);
if (!folder || !jobId) {
  console.error("usage: digits FOLDER JOB");
  process.exit(2);
}
const address = process.env.GRADWIRE_ADDRESS ?? "localhost:50051";
const token = process.env.GRADWIRE_TOKEN;
const caFile = process.env.GRADWIRE_CA;

const client = new Client(address, token, caFile);
const inputs = readFileSync(join(folder, "inputs.bin"));
const targets = readFileSync(join(folder, "targets.bin"));
const dataset = {
  inputs: reference(inputs, [targets.length, FEATURES]),
  targets: reference(targets, [targets.length]),
};
let job = "";
let model = "";
let file: Buffer;

const spec: JobSpec = {
  model: {
    layers: [
      { name: "fc1", linear: { out_features: 32 } },
      { name: "relu1", relu: {} },
      { name: "fc2", linear: { out_features: 10 } },
    ],
  },
  loss: { cross_entropy: {} },
  optimizer: { sgd: { learning_rate: 0.005 } },
  train: dataset,
  epochs: EPOCHS,
  batch_size: 16,
  shuffle: true,
  seed: 7,
  device: "DEVICE_CPU",
};

/** Because of its request_id, this request can be repeated safely. */
const request: CreateJobRequest = {
  job: { spec, labels: { example: "digits", client: jobId } },
  job_id: jobId,
  request_id: `request-${jobId}`,
};

function expect(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise);
}

/** Checks that a call fails with the given code and reason, prints the error, and returns its details. */
async function expectError(call: Promise<unknown>, code: grpc.status, reason: string): Promise<Details> {
  const error: grpc.ServiceError = await call.then(
    () => Promise.reject(new Error("a call succeeded that must fail")),
    (error) => error,
  );
  console.log(describe(error));
  const found = details(error);
  expect(error.code === code && found.reason === reason, `expected ${grpc.status[code]} ${reason}`);
  return found;
}

const checks: Record<string, () => Promise<void>> = {
  connect: () => client.connected(10_000),

  async unauthenticated() {
    if (!token) return;
    const stranger = new Client(address, "not the token", caFile);
    await expectError(stranger.getJob({ name: "jobs/any" }), grpc.status.UNAUTHENTICATED, "INVALID_TOKEN");
    stranger.close();
  },

  async "not-found"() {
    await expectError(client.getJob({ name: "jobs/nobody" }), grpc.status.NOT_FOUND, "JOB_NOT_FOUND");
  },

  async "bad-request"() {
    const wrong = { job: { spec: { ...spec, batch_size: 0 } } };
    const { fields } = await expectError(client.createJob(wrong), grpc.status.INVALID_ARGUMENT, "INVALID_FIELDS");
    expect(fields.join() === "job.spec.batch_size", `the server refused the fields ${fields}`);
  },

  async "error-metadata"() {
    const missing = client.getModel({ name: "models/nobody" });
    const { metadata } = await expectError(missing, grpc.status.NOT_FOUND, "MODEL_NOT_FOUND");
    expect(metadata.model === "models/nobody", "the metadata does not name the model");
    const unknown = Buffer.from(`a tensor of ${jobId}`);
    const header = { tensor: reference(unknown, [unknown.length]), offset: 5 };
    const sent = client.send(header, unknown.subarray(5));
    const refused = await expectError(sent, grpc.status.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE");
    expect(refused.metadata.offset === "5", "the metadata does not have the offset");
    expect(refused.metadata.received_bytes === "0", "the metadata does not have the number of received bytes");
  },

  async upload() {
    // The server already has the data if another client uploaded it, but it does not have this tensor.
    const own = Buffer.concat([inputs, Buffer.from(jobId)]);
    const tensors = [dataset.inputs, dataset.targets, reference(own, [own.length])];
    await client.upload([[tensors[0], inputs], [tensors[1], targets], [tensors[2], own]]);
    const { missing } = await client.findMissingTensors({ tensors });
    expect(missing.length === 0, "tensors are missing after their upload");
  },

  async "validate-only"() {
    const validated = await client.createJob({ ...request, validate_only: true });
    expect(validated.name === "", `the job has the name ${validated.name}`);
    expect(validated.spec!.model!.layers[0].linear!.in_features === "64", "the widths are not filled in");
    await expectError(client.getJob({ name: `jobs/${jobId}` }), grpc.status.NOT_FOUND, "JOB_NOT_FOUND");
  },

  /** Sends the same request twice, as a client would if it did not receive the response. */
  async create() {
    job = (await client.createJob(request)).name;
    const again = (await client.createJob(request)).name;
    expect(job === again, `the same request created ${job} and ${again}`);
  },

  async "labels-filter"() {
    const filter = (name: string) => `labels.example = "digits" AND labels.client = "${name}"`;
    const { jobs } = await client.listJobs({ filter: filter(jobId) });
    expect(jobs.length === 1 && jobs[0].name === job, `the filter found ${jobs.map((each) => each.name)}`);
    expect(!jobs[0].spec && jobs[0].architecture === "64-32-10", "the list does not have the basic view");
    expect((await client.listJobs({ filter: filter("nobody") })).jobs.length === 0, "the filter found another job");
  },

  /** Follows the job until it ends. Interrupts the watch after the first epoch, and continues with the next event. */
  async watch() {
    let sequence = 0;
    let epoch = 0;
    let state = "";
    for (const last of [1, EPOCHS + 1]) {
      for await (const event of client.watch(job, String(sequence))) {
        expect(event.sequence === String(sequence + 1), `event ${event.sequence} came after event ${sequence}`);
        sequence += 1;
        if (event.state_change) state = event.state_change.state;
        if (event.epoch) {
          epoch += 1;
          expect(event.epoch.epoch === epoch, `epoch ${event.epoch.epoch} came as number ${epoch}`);
          const { loss, accuracy } = event.epoch.train!;
          console.log(`epoch ${epoch}: loss ${Number(loss).toFixed(4)}, accuracy ${Number(accuracy).toFixed(4)}`);
        }
        if (epoch === last) break;
      }
    }
    expect(epoch === EPOCHS && state === "JOB_STATE_SUCCEEDED", `the job is ${state} after ${epoch} epochs`);
  },

  async download() {
    model = (await client.getJob({ name: job })).model;
    file = await client.download(model);
  },

  /** Continues a download after the first half of the file has arrived. */
  async "download-from-offset"() {
    await client.download(model, file.subarray(0, file.length / 2));
    const beyond = client.download(model, Buffer.concat([file, Buffer.alloc(1)]));
    const { metadata } = await expectError(beyond, grpc.status.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE");
    expect(metadata.size_bytes === String(file.length), "the metadata does not have the size of the file");
  },

  async predict() {
    const tensor = { dtype: "DATA_TYPE_UINT8" as const, shape: [targets.length, FEATURES], data: inputs };
    const { data } = (await client.predict({ name: model, inputs: tensor })).outputs!;
    const logits = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const classes = data.byteLength / 4 / targets.length;
    let right = 0;
    targets.forEach((target, row) => {
      const logit = (column: number) => logits.getFloat32(4 * (row * classes + column), true);
      const outputs = Array.from({ length: classes }, (_, column) => logit(column));
      if (outputs.indexOf(Math.max(...outputs)) === target) right += 1;
    });
    expect(right / targets.length > 0.9, `only ${right} of ${targets.length} predictions are right`);
    console.log(`weights ${(await client.getModel({ name: model })).weights!.sha256}`);
  },

  /** Deletes the job and its model twice, as a client would if it did not receive the response. */
  async delete() {
    for (let count = 0; count < 2; count += 1) {
      await client.deleteJob({ name: job, allow_missing: true });
      await client.deleteModel({ name: model, allow_missing: true });
    }
    await expectError(client.deleteJob({ name: job }), grpc.status.NOT_FOUND, "JOB_NOT_FOUND");
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    const isStatus = typeof (error as grpc.ServiceError).code === "number";
    console.error(`${name}:`, isStatus ? describe(error as grpc.ServiceError) : error);
    process.exit(1);
  }
  console.log(`ok ${name}`);
}
client.close();
