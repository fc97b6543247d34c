/**
 * Trains a network on a gradwire server, and knows nothing of it but the .proto files: node dist/digits.js FOLDER JOB
 *
 * FOLDER holds inputs.bin (bytes, 64 for each picture) and targets.bin (a byte for each). GRADWIRE_ADDRESS,
 * GRADWIRE_TOKEN and GRADWIRE_CA (a file of certificates; turns TLS on) say where the server is.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

import type { Dataset } from "./gen/gradwire/v1/Dataset.js";
import type { DownloadModelResponse__Output } from "./gen/gradwire/v1/DownloadModelResponse.js";
import type { FindMissingTensorsResponse__Output } from "./gen/gradwire/v1/FindMissingTensorsResponse.js";
import type { Job__Output } from "./gen/gradwire/v1/Job.js";
import type { JobSpec } from "./gen/gradwire/v1/JobSpec.js";
import type { Model__Output } from "./gen/gradwire/v1/Model.js";
import type { PredictResponse__Output } from "./gen/gradwire/v1/PredictResponse.js";
import type { TensorRef } from "./gen/gradwire/v1/TensorRef.js";
import type { UploadTensorResponse__Output } from "./gen/gradwire/v1/UploadTensorResponse.js";
import type { WatchJobResponse__Output } from "./gen/gradwire/v1/WatchJobResponse.js";
import type { ProtoGrpcType as Datasets } from "./gen/dataset_service.js";
import type { ProtoGrpcType as Models } from "./gen/model_service.js";
import type { ProtoGrpcType as Training } from "./gen/training_service.js";

const FEATURES = 64;
const CHUNK_BYTES = 16 << 10;
const EPOCHS = 20;

const here = dirname(fileURLToPath(import.meta.url));
const protos = [join(here, "../../../../proto"), join(here, "../node_modules/google-proto-files")];

function load<T>(file: string): T {
  const options = { includeDirs: protos, keepCase: true, longs: String, enums: String, defaults: true, arrays: true, oneofs: true };
  return grpc.loadPackageDefinition(loader.loadSync(`gradwire/v1/${file}.proto`, options)) as unknown as T;
}

const address = process.env.GRADWIRE_ADDRESS ?? "localhost:50051";
const token = process.env.GRADWIRE_TOKEN;
const ca = process.env.GRADWIRE_CA;
const credentials = ca ? grpc.credentials.createSsl(readFileSync(ca)) : grpc.credentials.createInsecure();
const training = new (load<Training>("training_service").gradwire.v1.TrainingService)(address, credentials);
const datasets = new (load<Datasets>("dataset_service").gradwire.v1.DatasetService)(address, credentials);
const models = new (load<Models>("model_service").gradwire.v1.ModelService)(address, credentials);

function withToken(value: string | undefined): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (value) metadata.set("authorization", `Bearer ${value}`);
  return metadata;
}
const metadata = withToken(token);

/** Make a unary call and wait for its answer. */
function call<Request, Response>(
  method: (request: Request, metadata: grpc.Metadata, done: (error: grpc.ServiceError | null, value?: Response) => void) => unknown,
  request: Request,
  using = metadata,
): Promise<Response> {
  return new Promise((resolve, reject) =>
    method(request, using, (error, value) => (error ? reject(error) : resolve(value as Response))),
  );
}

function expect(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise);
}

function passed(check: string): void {
  console.log(`ok ${check}`);
}

function reference(data: Buffer, shape: number[]): TensorRef {
  return { dtype: "DATA_TYPE_UINT8", shape, sha256: createHash("sha256").update(data).digest("hex") };
}

/** Sends what the server does not have yet, each tensor from where an earlier upload broke off. */
async function upload(contents: [TensorRef, Buffer][]): Promise<void> {
  const request = { tensors: contents.map(([tensor]) => tensor) };
  const find = () => call<typeof request, FindMissingTensorsResponse__Output>(datasets.findMissingTensors.bind(datasets), request);
  for (const missing of (await find()).missing) {
    const data = contents.find(([tensor]) => tensor.sha256 === missing.tensor!.sha256)![1];
    await new Promise<UploadTensorResponse__Output>((resolve, reject) => {
      const stream = datasets.uploadTensor(metadata, (error, value) => (error ? reject(error) : resolve(value!)));
      stream.write({ header: { tensor: missing.tensor, offset: missing.received_bytes } });
      for (let start = Number(missing.received_bytes); start < data.length; start += CHUNK_BYTES) {
        stream.write({ chunk: data.subarray(start, start + CHUNK_BYTES) });
      }
      stream.end();
    });
  }
  expect((await find()).missing.length === 0, "tensors are missing after their upload");
  passed("upload");
}

function spec(train: Dataset): JobSpec {
  return {
    model: {
      layers: [
        { name: "fc1", linear: { out_features: 32 } },
        { name: "relu1", relu: {} },
        { name: "fc2", linear: { out_features: 10 } },
      ],
    },
    loss: { cross_entropy: {} },
    optimizer: { sgd: { learning_rate: 0.005 } },
    train,
    epochs: EPOCHS,
    batch_size: 16,
    shuffle: true,
    seed: 7,
    device: "DEVICE_CPU",
  };
}

/** Sends the same request twice, as after a lost answer: it makes one job. */
async function create(train: Dataset, job: string): Promise<Job__Output> {
  const request = { job: { spec: spec(train) }, job_id: job, request_id: `request-${job}` };
  const [first, second] = [
    await call<typeof request, Job__Output>(training.createJob.bind(training), request),
    await call<typeof request, Job__Output>(training.createJob.bind(training), request),
  ];
  expect(first.name === second.name, "the same request made another job");
  passed("create");
  return first;
}

/** Follows the job to its end, breaks off after its first epoch, and goes on where it was. */
async function watch(name: string): Promise<void> {
  let sequence = 0;
  let epochs = 0;
  let state = "";
  const follow = async (most: number): Promise<void> => {
    const stream = training.watchJob({ name, after_sequence: sequence }, metadata);
    for await (const response of stream as AsyncIterable<WatchJobResponse__Output>) {
      for (const event of response.events) {
        expect(Number(event.sequence) === sequence + 1, `event ${event.sequence} came after event ${sequence}`);
        sequence += 1;
        if (event.state_change) state = event.state_change.state;
        if (event.epoch) {
          epochs += 1;
          expect(event.epoch.epoch === epochs, `epoch ${event.epoch.epoch} came as number ${epochs}`);
          const { loss, accuracy } = event.epoch.train!;
          console.log(`epoch ${epochs}: loss ${Number(loss).toFixed(4)}, accuracy ${Number(accuracy).toFixed(4)}`);
        }
      }
      if (epochs >= most) return; // Leaving the loop cancels the stream.
    }
  };
  await follow(1).catch((error) => {
    if (error.code !== grpc.status.CANCELLED) throw error;
  });
  await follow(Infinity);
  expect(epochs === EPOCHS && state === "JOB_STATE_SUCCEEDED", `the job ended as ${state} after ${epochs} epochs`);
  passed("watch");
}

async function download(name: string): Promise<void> {
  const digest = createHash("sha256");
  let expected = "";
  const stream = models.downloadModel({ name }, metadata);
  for await (const response of stream as AsyncIterable<DownloadModelResponse__Output>) {
    if (response.header) expected = response.header.sha256;
    if (response.chunk) digest.update(response.chunk);
  }
  expect(digest.digest("hex") === expected, "the downloaded file does not have its digest");
  passed("download");
}

async function predict(name: string, inputs: Buffer, targets: Buffer): Promise<void> {
  const request = { name, inputs: { dtype: "DATA_TYPE_UINT8" as const, shape: [targets.length, FEATURES], data: inputs } };
  const { outputs } = await call<typeof request, PredictResponse__Output>(models.predict.bind(models), request);
  const logits = new DataView(outputs!.data.buffer, outputs!.data.byteOffset, outputs!.data.byteLength);
  const classes = outputs!.data.byteLength / 4 / targets.length;
  let right = 0;
  targets.forEach((target, row) => {
    const values = Array.from({ length: classes }, (_, column) => logits.getFloat32(4 * (row * classes + column), true));
    if (values.indexOf(Math.max(...values)) === target) right += 1;
  });
  expect(right / targets.length > 0.9, `only ${right} of ${targets.length} predictions are right`);
  passed("predict");
}

/** The details of an error: each is a google.rpc message in an Any. */
function details(error: grpc.ServiceError): Record<string, any>[] {
  const root = new protobuf.Root();
  root.resolvePath = (_, file) => (file.startsWith("/") ? file : join(protos[1], file.replace(/^.*google\//, "google/")));
  root.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"].map((file) => join(protos[1], file)));
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const status = root.lookupType("google.rpc.Status").decode(bytes as Buffer) as any;
  return status.details.map((any: any) => root.lookupType(any.type_url.split("/")[1]).decode(any.value));
}

async function failure(attempt: Promise<unknown>): Promise<grpc.ServiceError> {
  try {
    await attempt;
  } catch (error) {
    return error as grpc.ServiceError;
  }
  throw new Error("a call that must fail did not");
}

/** Makes three mistakes and reads what the server says of each. */
async function checkErrors(): Promise<void> {
  const get = (name: string, using = metadata) => call(training.getJob.bind(training), { name }, using);
  if (token) {
    const error = await failure(get("jobs/any", withToken("not the token")));
    expect(error.code === grpc.status.UNAUTHENTICATED, `expected UNAUTHENTICATED, got ${error}`);
  }
  passed("unauthenticated");

  const missing = await failure(get("jobs/nobody"));
  const reason = details(missing).find((detail) => "reason" in detail)?.reason;
  expect(missing.code === grpc.status.NOT_FOUND && reason === "NOT_FOUND", `expected NOT_FOUND, got ${missing}`);
  passed("not-found");

  const one = Buffer.from([0]);
  const wrong = { ...spec({ inputs: reference(one, [1, 1]), targets: reference(one, [1]) }), batch_size: 0 };
  const refused = await failure(call(training.createJob.bind(training), { job: { spec: wrong } }));
  const fields = details(refused).flatMap((detail) => (detail.fieldViolations ?? []).map((each: any) => each.field));
  expect(
    refused.code === grpc.status.INVALID_ARGUMENT && fields.join() === "job.spec.batch_size",
    `expected job.spec.batch_size to be refused, got ${refused} for ${fields}`,
  );
  passed("bad-request");
}

async function main(folder: string, job: string): Promise<void> {
  await promisify(training.waitForReady.bind(training))(Date.now() + 10_000);
  passed("connect");
  await checkErrors();
  const inputs = readFileSync(join(folder, "inputs.bin"));
  const targets = readFileSync(join(folder, "targets.bin"));
  const train = { inputs: reference(inputs, [targets.length, FEATURES]), targets: reference(targets, [targets.length]) };
  await upload([[train.inputs, inputs], [train.targets, targets]]);
  const created = await create(train, job);
  await watch(created.name);
  const finished = await call<{ name: string }, Job__Output>(training.getJob.bind(training), { name: created.name });
  await download(finished.model);
  await predict(finished.model, inputs, targets);
  const model = await call<{ name: string }, Model__Output>(models.getModel.bind(models), { name: finished.model });
  console.log(`weights ${model.weights!.sha256}`);
  for (const client of [training, datasets, models]) client.close();
}

const [folder, job] = process.argv.slice(2);
if (!folder || !job) {
  console.error("usage: digits FOLDER JOB");
  process.exit(2);
}
main(folder, job).catch((error) => {
  console.error(error);
  process.exit(1);
});
