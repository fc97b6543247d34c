/** A client for gradwire servers that uses \@grpc/grpc-js. The types in gen/ are generated from the .proto files. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Readable, type Writable } from "node:stream";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

import type { DownloadModelResponse__Output } from "./gen/gradwire/v1/DownloadModelResponse.js";
import type { Event__Output } from "./gen/gradwire/v1/Event.js";
import type { TensorRef } from "./gen/gradwire/v1/TensorRef.js";
import type { UploadHeader } from "./gen/gradwire/v1/UploadHeader.js";
import type { UploadTensorRequest } from "./gen/gradwire/v1/UploadTensorRequest.js";
import type { UploadTensorResponse__Output } from "./gen/gradwire/v1/UploadTensorResponse.js";
import type { WatchJobResponse__Output } from "./gen/gradwire/v1/WatchJobResponse.js";
import type { ProtoGrpcType as Models } from "./gen/model_service.js";
import type { ProtoGrpcType as Tensors } from "./gen/tensor_service.js";
import type { ProtoGrpcType as Training } from "./gen/training_service.js";

// The chunks are small, so that even the small data in this example needs several chunks. For real data, use 1 MiB.
const CHUNK_BYTES = 16 << 10;
const MAX_ATTEMPTS = 8;

const here = dirname(fileURLToPath(import.meta.url));
const PROTOS = join(here, "../../../../proto");
const GOOGLE_PROTOS = join(here, "../node_modules/google-proto-files");

function load<T>(file: string): T {
  const options = {
    includeDirs: [PROTOS, GOOGLE_PROTOS],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    arrays: true,
    oneofs: true,
  };
  return grpc.loadPackageDefinition(loader.loadSync(`gradwire/v1/${file}.proto`, options)) as unknown as T;
}

/** Sends the token with every call. */
function bearer(token: string): grpc.Interceptor {
  return (options, next) =>
    new grpc.InterceptingCall(next(options), {
      start(metadata, listener, start) {
        metadata.set("authorization", `Bearer ${token}`);
        start(metadata, listener);
      },
    });
}

/**
 * Converts a unary method with a callback into a function that returns a promise and retries the call while the server
 * is unavailable. gRPC's retry policy is not sufficient, because it does not retry a call if the connection breaks
 * while the response arrives.
 */
function unary<Request, Response>(
  client: grpc.Client,
  method: (request: Request, done: grpc.requestCallback<Response>) => grpc.ClientUnaryCall,
): (request: Request) => Promise<Response> {
  const once = promisify(method.bind(client));
  return async (request) => {
    for (const backoff = new Backoff(); ; ) {
      try {
        return (await once(request))!;
      } catch (error) {
        await backoff.wait(error);
      }
    }
  };
}

export function sha256(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** A reference to a byte tensor, which consists of its type, its shape and its digest. */
export function reference(data: Uint8Array, shape: number[]): TensorRef {
  return { dtype: "DATA_TYPE_UINT8", shape, sha256: sha256(data) };
}

export class Client {
  private readonly training;
  private readonly tensors;
  private readonly models;
  readonly createJob;
  readonly getJob;
  readonly listJobs;
  readonly deleteJob;
  readonly findMissingTensors;
  readonly getModel;
  readonly predict;
  readonly deleteModel;

  /** If there is no file of trusted certificates, the connection is not encrypted. */
  constructor(address: string, token?: string, caFile?: string) {
    const credentials = caFile
      ? grpc.credentials.createSsl(readFileSync(caFile))
      : grpc.credentials.createInsecure();
    const options = { interceptors: token ? [bearer(token)] : [] };
    this.training = new (load<Training>("training_service").gradwire.v1.TrainingService)(address, credentials, options);
    this.tensors = new (load<Tensors>("tensor_service").gradwire.v1.TensorService)(address, credentials, options);
    this.models = new (load<Models>("model_service").gradwire.v1.ModelService)(address, credentials, options);
    this.createJob = unary(this.training, this.training.createJob);
    this.getJob = unary(this.training, this.training.getJob);
    this.listJobs = unary(this.training, this.training.listJobs);
    this.deleteJob = unary(this.training, this.training.deleteJob);
    this.findMissingTensors = unary(this.tensors, this.tensors.findMissingTensors);
    this.getModel = unary(this.models, this.models.getModel);
    this.predict = unary(this.models, this.models.predict);
    this.deleteModel = unary(this.models, this.models.deleteModel);
  }

  close(): void {
    for (const client of [this.training, this.tensors, this.models]) client.close();
  }

  /** Waits until the server can be reached. */
  connected(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) =>
      this.training.waitForReady(Date.now() + timeoutMs, (error) => (error ? reject(error) : resolve())),
    );
  }

  /**
   * Sends the tensors that the server does not have. If an upload was interrupted, in this run or in an earlier run, it
   * continues with the first missing byte.
   */
  async upload(contents: [TensorRef, Uint8Array][]): Promise<void> {
    const request = { tensors: contents.map(([tensor]) => tensor) };
    for (const backoff = new Backoff(); ; ) {
      try {
        for (const missing of (await this.findMissingTensors(request)).missing) {
          const [, data] = contents.find(([tensor]) => tensor.sha256 === missing.tensor!.sha256)!;
          const offset = Number(missing.received_bytes);
          await this.send({ tensor: missing.tensor, offset }, data.subarray(offset));
        }
        return;
      } catch (error) {
        await backoff.wait(error);
      }
    }
  }

  /** Uploads a tensor, or the rest of a tensor. */
  send(header: UploadHeader, data: Uint8Array): Promise<UploadTensorResponse__Output> {
    function* parts(): Generator<UploadTensorRequest> {
      yield { header };
      for (let start = 0; start < data.length; start += CHUNK_BYTES) {
        yield { chunk: data.subarray(start, start + CHUNK_BYTES) as Buffer };
      }
    }
    return new Promise((resolve, reject) => {
      const stream = this.tensors.uploadTensor((error, response) => (error ? reject(error) : resolve(response!)));
      Readable.from(parts()).pipe(stream as unknown as Writable);
    });
  }

  /**
   * Yields a job's events after a sequence number, until the job ends. If the connection breaks, this function
   * reconnects and continues after the last event. Leaving the loop cancels the call.
   */
  async *watch(job: string, after = "0"): AsyncGenerator<Event__Output> {
    for (const backoff = new Backoff(); ; ) {
      const stream = this.training.watchJob({ name: job, after_sequence: after });
      stream.on("error", () => {}); // Canceling raises an error after the reader has stopped.
      try {
        for await (const response of stream as AsyncIterable<WatchJobResponse__Output>) {
          for (const event of response.events) {
            after = event.sequence;
            backoff.reset();
            yield event;
          }
        }
        return;
      } catch (error) {
        await backoff.wait(error);
      } finally {
        stream.cancel();
      }
    }
  }

  /**
   * Downloads the rest of a model file, appends it to the bytes that have already arrived, and checks the digest of the
   * whole file. If the connection breaks, this function reconnects and continues at the next byte.
   */
  async download(model: string, arrived: Uint8Array = Buffer.alloc(0)): Promise<Buffer> {
    const chunks = [arrived];
    let offset = arrived.length;
    let expected = "";
    for (const backoff = new Backoff(); ; ) {
      try {
        const stream = this.models.downloadModel({ name: model, offset });
        for await (const { header, chunk } of stream as AsyncIterable<DownloadModelResponse__Output>) {
          if (header) {
            if (expected && header.sha256 !== expected) throw new Error("the model changed during the download");
            expected = header.sha256;
          }
          if (chunk) {
            chunks.push(chunk);
            offset += chunk.length;
            backoff.reset();
          }
        }
        break;
      } catch (error) {
        await backoff.wait(error);
      }
    }
    const file = Buffer.concat(chunks);
    if (sha256(file) !== expected) throw new Error("the downloaded file does not have the digest of its header");
    return file;
  }
}

/** Waits between attempts, and increases the delay each time. */
class Backoff {
  private failures = 0;

  reset(): void {
    this.failures = 0;
  }

  /** If the error is temporary, waits and returns. Otherwise, throws the error. */
  async wait(error: unknown): Promise<void> {
    this.failures += 1;
    if ((error as grpc.ServiceError).code !== grpc.status.UNAVAILABLE || this.failures === MAX_ATTEMPTS) throw error;
    await setTimeout(50 << this.failures);
  }
}

/** The contents of google.rpc.ErrorInfo and google.rpc.BadRequest in an error. */
export interface Details {
  reason: string;
  metadata: Record<string, string>;
  fields: string[];
}

const rpc = new protobuf.Root();
rpc.resolvePath = (_, file) => join(GOOGLE_PROTOS, file.replace(/^.*google\//, "google/"));
rpc.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]);

export function details(error: grpc.ServiceError): Details {
  const found: Details = { reason: "", metadata: {}, fields: [] };
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!bytes) return found;
  const status = rpc.lookupType("google.rpc.Status").decode(bytes as Buffer) as any;
  for (const { type_url, value } of status.details) {
    const type = type_url.split("/")[1];
    const detail = rpc.lookupType(type).decode(value) as any;
    if (type === "google.rpc.ErrorInfo") Object.assign(found, { reason: detail.reason, metadata: detail.metadata });
    if (type === "google.rpc.BadRequest") found.fields = detail.fieldViolations.map((each: any) => each.field);
  }
  return found;
}

/** A complete description of an error, in one line. */
export function describe(error: grpc.ServiceError): string {
  const { reason, metadata } = details(error);
  const values = Object.entries(metadata).map(([key, value]) => ` ${key}=${value}`);
  return `${grpc.status[error.code]} ${reason}: ${error.details}${values.sort().join("")}`;
}
