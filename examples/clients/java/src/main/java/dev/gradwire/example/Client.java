package dev.gradwire.example;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import dev.gradwire.v1.CreateJobRequest;
import dev.gradwire.v1.DataType;
import dev.gradwire.v1.DeleteJobRequest;
import dev.gradwire.v1.DeleteModelRequest;
import dev.gradwire.v1.DownloadModelRequest;
import dev.gradwire.v1.Event;
import dev.gradwire.v1.FindMissingTensorsRequest;
import dev.gradwire.v1.GetJobRequest;
import dev.gradwire.v1.GetModelRequest;
import dev.gradwire.v1.Job;
import dev.gradwire.v1.ListJobsRequest;
import dev.gradwire.v1.ListJobsResponse;
import dev.gradwire.v1.MissingTensor;
import dev.gradwire.v1.Model;
import dev.gradwire.v1.ModelServiceGrpc;
import dev.gradwire.v1.PredictRequest;
import dev.gradwire.v1.Tensor;
import dev.gradwire.v1.TensorRef;
import dev.gradwire.v1.TensorServiceGrpc;
import dev.gradwire.v1.TrainingServiceGrpc;
import dev.gradwire.v1.UploadHeader;
import dev.gradwire.v1.UploadTensorRequest;
import dev.gradwire.v1.WatchJobRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Predicate;

/** A connection to a gradwire server and the services on it. */
public final class Client implements AutoCloseable {
  // The chunks are small, so that even the small data in this example needs several chunks. For real data, use 1 MiB.
  private static final int CHUNK_BYTES = 16 << 10;
  private static final int MAX_ATTEMPTS = 8;

  public final ManagedChannel channel;
  private final TrainingServiceGrpc.TrainingServiceBlockingV2Stub training;
  private final TensorServiceGrpc.TensorServiceBlockingV2Stub tensors;
  private final ModelServiceGrpc.ModelServiceBlockingV2Stub models;

  /**
   * Opens a connection.
   *
   * @param token sent with every call, unless it is empty
   * @param caFile certificates to trust; if it is empty, the connection is not encrypted
   */
  public Client(String address, String token, String caFile) throws IOException {
    var credentials =
        caFile.isEmpty()
            ? InsecureChannelCredentials.create()
            : TlsChannelCredentials.newBuilder().trustManager(new File(caFile)).build();
    var headers = new Metadata();
    if (!token.isEmpty()) {
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    }
    channel =
        Grpc.newChannelBuilder(address, credentials)
            .intercept(MetadataUtils.newAttachHeadersInterceptor(headers))
            .build();
    training = TrainingServiceGrpc.newBlockingV2Stub(channel);
    tensors = TensorServiceGrpc.newBlockingV2Stub(channel);
    models = ModelServiceGrpc.newBlockingV2Stub(channel);
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }

  public Job createJob(CreateJobRequest request) throws StatusException, InterruptedException {
    return call(training::createJob, request);
  }

  public Job getJob(String name) throws StatusException, InterruptedException {
    return call(training::getJob, GetJobRequest.newBuilder().setName(name).build());
  }

  public ListJobsResponse listJobs(ListJobsRequest request) throws StatusException, InterruptedException {
    return call(training::listJobs, request);
  }

  public void deleteJob(String name, boolean allowMissing) throws StatusException, InterruptedException {
    call(training::deleteJob, DeleteJobRequest.newBuilder().setName(name).setAllowMissing(allowMissing).build());
  }

  public List<MissingTensor> findMissingTensors(Iterable<TensorRef> references)
      throws StatusException, InterruptedException {
    var request = FindMissingTensorsRequest.newBuilder().addAllTensors(references).build();
    return call(tensors::findMissingTensors, request).getMissingList();
  }

  public Model getModel(String name) throws StatusException, InterruptedException {
    return call(models::getModel, GetModelRequest.newBuilder().setName(name).build());
  }

  public Tensor predict(String model, Tensor inputs) throws StatusException, InterruptedException {
    return call(models::predict, PredictRequest.newBuilder().setName(model).setInputs(inputs).build()).getOutputs();
  }

  public void deleteModel(String name, boolean allowMissing) throws StatusException, InterruptedException {
    call(models::deleteModel, DeleteModelRequest.newBuilder().setName(name).setAllowMissing(allowMissing).build());
  }

  /** A unary method of a stub. */
  @FunctionalInterface
  private interface Method<Q, R> {
    R call(Q request) throws StatusException, InterruptedException;
  }

  /**
   * Makes a unary call, and retries it while the server is unavailable. gRPC's retry policy is not sufficient, because
   * it does not retry a call if the connection breaks while the response arrives.
   */
  private <Q, R> R call(Method<Q, R> method, Q request) throws StatusException, InterruptedException {
    for (var backoff = new Backoff(); ; ) {
      try {
        return method.call(request);
      } catch (StatusException error) {
        backoff.pause(error);
      }
    }
  }

  /** Returns a reference to a byte tensor, which consists of its type, its shape and its digest. */
  public static TensorRef reference(byte[] data, long... shape) {
    var reference = TensorRef.newBuilder().setDtype(DataType.DATA_TYPE_UINT8).setSha256(sha256(data));
    for (long size : shape) {
      reference.addShape(size);
    }
    return reference.build();
  }

  /**
   * Sends the tensors that the server does not have. If an upload was interrupted, in this run or in an earlier run, it
   * continues with the first missing byte.
   */
  public void upload(Map<TensorRef, byte[]> contents) throws StatusException, InterruptedException {
    for (var backoff = new Backoff(); ; ) {
      try {
        for (var missing : findMissingTensors(contents.keySet())) {
          send(missing.getTensor(), contents.get(missing.getTensor()), missing.getReceivedBytes());
        }
        return;
      } catch (StatusException error) {
        backoff.pause(error);
      }
    }
  }

  /** Uploads a tensor, starting at an offset. */
  void send(TensorRef tensor, byte[] data, long offset) throws StatusException, InterruptedException {
    var call = tensors.uploadTensor();
    var header = UploadHeader.newBuilder().setTensor(tensor).setOffset(offset);
    call.write(UploadTensorRequest.newBuilder().setHeader(header).build());
    for (int start = (int) offset; start < data.length; start += CHUNK_BYTES) {
      var chunk = ByteString.copyFrom(data, start, Math.min(CHUNK_BYTES, data.length - start));
      if (!call.write(UploadTensorRequest.newBuilder().setChunk(chunk).build())) {
        break; // The server has ended the call. read throws the error.
      }
    }
    call.halfClose();
    call.read();
  }

  /**
   * Passes a job's events after a sequence number to a handler. Ends when the job ends or the handler returns
   * false. If the connection breaks, this function reconnects and continues after the last event.
   */
  public void watch(String job, long after, Predicate<Event> handler) throws StatusException, InterruptedException {
    for (var backoff = new Backoff(); ; ) {
      var call = training.watchJob(WatchJobRequest.newBuilder().setName(job).setAfterSequence(after).build());
      try {
        while (call.hasNext()) {
          for (var event : call.read().getEventsList()) {
            after = event.getSequence();
            backoff.reset();
            if (!handler.test(event)) {
              call.cancel("the handler has seen enough", null);
              return;
            }
          }
        }
        return;
      } catch (StatusException error) {
        backoff.pause(error);
      }
    }
  }

  /**
   * Downloads the rest of a model file, appends it to the bytes that have already arrived, and checks the digest of the
   * whole file. If the connection breaks, this function reconnects and continues at the next byte.
   */
  public byte[] download(String model, byte[] arrived) throws StatusException, InterruptedException {
    var file = new ByteArrayOutputStream();
    file.writeBytes(arrived);
    String expected = "";
    for (var backoff = new Backoff(); ; ) {
      try {
        var request = DownloadModelRequest.newBuilder().setName(model).setOffset(file.size()).build();
        for (var call = models.downloadModel(request); call.hasNext(); ) {
          var response = call.read();
          if (response.hasHeader()) {
            String digest = response.getHeader().getSha256();
            require(expected.isEmpty() || digest.equals(expected), "the model changed during the download");
            expected = digest;
          } else {
            file.writeBytes(response.getChunk().toByteArray());
            backoff.reset();
          }
        }
        break;
      } catch (StatusException error) {
        backoff.pause(error);
      }
    }
    byte[] content = file.toByteArray();
    require(sha256(content).equals(expected), "the downloaded file does not have the digest of its header");
    return content;
  }

  /** Waits between attempts, and increases the delay each time. */
  private static final class Backoff {
    private int failures;

    void reset() {
      failures = 0;
    }

    /** If the error is temporary, waits and returns. Otherwise, throws the error. */
    void pause(StatusException error) throws StatusException, InterruptedException {
      failures++;
      if (error.getStatus().getCode() != Status.Code.UNAVAILABLE || failures == MAX_ATTEMPTS) {
        throw error;
      }
      Thread.sleep(50L << failures);
    }
  }

  /** Returns the reason of an error and its metadata. */
  public static ErrorInfo errorInfo(StatusException error) {
    return detail(error, ErrorInfo.class).orElse(ErrorInfo.getDefaultInstance());
  }

  /** Returns the paths of the invalid fields, if the error lists any. */
  public static List<String> fields(StatusException error) {
    return detail(error, BadRequest.class).stream()
        .flatMap(request -> request.getFieldViolationsList().stream())
        .map(BadRequest.FieldViolation::getField)
        .toList();
  }

  /** Returns a complete description of an error, in one line. */
  public static String describe(StatusException error) {
    var info = errorInfo(error);
    var text = new StringBuilder();
    text.append(error.getStatus().getCode()).append(' ').append(info.getReason());
    text.append(": ").append(error.getStatus().getDescription());
    new TreeMap<>(info.getMetadataMap()).forEach((key, value) -> text.append(" " + key + "=" + value));
    return text.toString();
  }

  private static <T extends Message> Optional<T> detail(StatusException error, Class<T> kind) {
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(kind)) {
        try {
          return Optional.of(detail.unpack(kind));
        } catch (InvalidProtocolBufferException malformed) {
          throw new IllegalStateException("the server sent a malformed detail", malformed);
        }
      }
    }
    return Optional.empty();
  }

  private static String sha256(byte[] data) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    } catch (NoSuchAlgorithmException impossible) {
      throw new IllegalStateException("every Java platform has SHA-256", impossible);
    }
  }

  private static void require(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }
}
