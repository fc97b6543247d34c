package dev.gradwire.example;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import dev.gradwire.v1.CreateJobRequest;
import dev.gradwire.v1.CrossEntropy;
import dev.gradwire.v1.DataType;
import dev.gradwire.v1.Dataset;
import dev.gradwire.v1.DatasetServiceGrpc;
import dev.gradwire.v1.Device;
import dev.gradwire.v1.DownloadModelRequest;
import dev.gradwire.v1.Event;
import dev.gradwire.v1.FindMissingTensorsRequest;
import dev.gradwire.v1.GetJobRequest;
import dev.gradwire.v1.GetModelRequest;
import dev.gradwire.v1.Job;
import dev.gradwire.v1.JobSpec;
import dev.gradwire.v1.JobState;
import dev.gradwire.v1.Layer;
import dev.gradwire.v1.Linear;
import dev.gradwire.v1.Loss;
import dev.gradwire.v1.MissingTensor;
import dev.gradwire.v1.ModelServiceGrpc;
import dev.gradwire.v1.ModelSpec;
import dev.gradwire.v1.Optimizer;
import dev.gradwire.v1.PredictRequest;
import dev.gradwire.v1.Relu;
import dev.gradwire.v1.Sgd;
import dev.gradwire.v1.Tensor;
import dev.gradwire.v1.TensorRef;
import dev.gradwire.v1.TrainingServiceGrpc;
import dev.gradwire.v1.UploadHeader;
import dev.gradwire.v1.UploadTensorRequest;
import dev.gradwire.v1.UploadTensorResponse;
import dev.gradwire.v1.WatchJobRequest;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.io.File;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/**
 * Trains a network on a gradwire server, and knows nothing of it but the .proto files.
 *
 * <p>Arguments: FOLDER JOB. FOLDER holds inputs.bin (bytes, 64 for each picture) and targets.bin (a byte for each).
 * GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA (a file of certificates; turns TLS on) say where the server is.
 */
public final class Digits {
  private static final int FEATURES = 64;
  private static final int CHUNK_BYTES = 16 << 10;
  private static final int EPOCHS = 20;
  private static final String TOKEN = System.getenv().getOrDefault("GRADWIRE_TOKEN", "");

  private final Channel channel;
  private final TrainingServiceGrpc.TrainingServiceBlockingStub training;
  private final ModelServiceGrpc.ModelServiceBlockingStub models;

  private Digits(Channel channel) {
    this.channel = channel;
    this.training = TrainingServiceGrpc.newBlockingStub(channel).withInterceptors(token(TOKEN));
    this.models = ModelServiceGrpc.newBlockingStub(channel).withInterceptors(token(TOKEN));
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 2) {
      System.err.println("usage: digits FOLDER JOB");
      System.exit(2);
    }
    String certificates = System.getenv().getOrDefault("GRADWIRE_CA", "");
    ManagedChannel channel =
        Grpc.newChannelBuilder(
                System.getenv().getOrDefault("GRADWIRE_ADDRESS", "localhost:50051"),
                certificates.isEmpty()
                    ? InsecureChannelCredentials.create()
                    : TlsChannelCredentials.newBuilder().trustManager(new File(certificates)).build())
            .build();
    try {
      new Digits(channel).run(Path.of(arguments[0]), arguments[1]);
    } finally {
      channel.shutdownNow();
    }
  }

  private void run(Path folder, String jobId) throws Exception {
    var health = HealthGrpc.newBlockingStub(channel).check(HealthCheckRequest.getDefaultInstance());
    expect(health.getStatus() == ServingStatus.SERVING, "the server is not ready: " + health);
    passed("connect");
    checkErrors();
    byte[] inputs = Files.readAllBytes(folder.resolve("inputs.bin"));
    byte[] targets = Files.readAllBytes(folder.resolve("targets.bin"));
    Dataset dataset =
        Dataset.newBuilder()
            .setInputs(reference(inputs, targets.length, FEATURES))
            .setTargets(reference(targets, targets.length))
            .build();
    upload(Map.of(dataset.getInputs(), inputs, dataset.getTargets(), targets));
    Job created = create(dataset, jobId);
    watch(created.getName());
    String model = training.getJob(GetJobRequest.newBuilder().setName(created.getName()).build()).getModel();
    download(model);
    predict(model, inputs, targets);
    var weights = models.getModel(GetModelRequest.newBuilder().setName(model).build()).getWeights();
    System.out.println("weights " + weights.getSha256());
  }

  private static ClientInterceptor token(String token) {
    Metadata headers = new Metadata();
    if (!token.isEmpty()) {
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    }
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  private static String digest(byte[] data) throws Exception {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
  }

  private static TensorRef reference(byte[] data, long... shape) throws Exception {
    var reference = TensorRef.newBuilder().setDtype(DataType.DATA_TYPE_UINT8).setSha256(digest(data));
    for (long size : shape) {
      reference.addShape(size);
    }
    return reference.build();
  }

  /** Sends what the server does not have yet, each tensor from where an earlier upload broke off. */
  private void upload(Map<TensorRef, byte[]> contents) throws Exception {
    var datasets = DatasetServiceGrpc.newBlockingStub(channel).withInterceptors(token(TOKEN));
    var streaming = DatasetServiceGrpc.newStub(channel).withInterceptors(token(TOKEN));
    var request = FindMissingTensorsRequest.newBuilder().addAllTensors(contents.keySet()).build();
    for (MissingTensor missing : datasets.findMissingTensors(request).getMissingList()) {
      var answer = new CompletableFuture<UploadTensorResponse>();
      StreamObserver<UploadTensorRequest> stream =
          streaming.uploadTensor(
              new StreamObserver<>() {
                @Override
                public void onNext(UploadTensorResponse response) {
                  answer.complete(response);
                }

                @Override
                public void onError(Throwable error) {
                  answer.completeExceptionally(error);
                }

                @Override
                public void onCompleted() {}
              });
      var header = UploadHeader.newBuilder().setTensor(missing.getTensor()).setOffset(missing.getReceivedBytes());
      stream.onNext(UploadTensorRequest.newBuilder().setHeader(header).build());
      byte[] data = contents.get(missing.getTensor());
      for (int start = (int) missing.getReceivedBytes(); start < data.length; start += CHUNK_BYTES) {
        var chunk = ByteString.copyFrom(data, start, Math.min(CHUNK_BYTES, data.length - start));
        stream.onNext(UploadTensorRequest.newBuilder().setChunk(chunk).build());
      }
      stream.onCompleted();
      answer.get();
    }
    expect(datasets.findMissingTensors(request).getMissingCount() == 0, "tensors are missing after their upload");
    passed("upload");
  }

  private static JobSpec spec(Dataset dataset) {
    return JobSpec.newBuilder()
        .setModel(
            ModelSpec.newBuilder()
                .addLayers(Layer.newBuilder().setName("fc1").setLinear(Linear.newBuilder().setOutFeatures(32)))
                .addLayers(Layer.newBuilder().setName("relu1").setRelu(Relu.getDefaultInstance()))
                .addLayers(Layer.newBuilder().setName("fc2").setLinear(Linear.newBuilder().setOutFeatures(10))))
        .setLoss(Loss.newBuilder().setCrossEntropy(CrossEntropy.getDefaultInstance()))
        .setOptimizer(Optimizer.newBuilder().setSgd(Sgd.newBuilder().setLearningRate(0.005)))
        .setTrain(dataset)
        .setEpochs(EPOCHS)
        .setBatchSize(16)
        .setShuffle(true)
        .setSeed(7)
        .setDevice(Device.DEVICE_CPU)
        .build();
  }

  /** Sends the same request twice, as after a lost answer: it makes one job. */
  private Job create(Dataset dataset, String jobId) {
    var request =
        CreateJobRequest.newBuilder()
            .setJob(Job.newBuilder().setSpec(spec(dataset)))
            .setJobId(jobId)
            .setRequestId("request-" + jobId)
            .build();
    Job first = training.createJob(request);
    Job second = training.createJob(request);
    expect(first.getName().equals(second.getName()), "the same request made another job");
    passed("create");
    return first;
  }

  /** What a watcher has seen of a job. */
  private static final class Seen {
    long sequence;
    int epochs;
    JobState state = JobState.JOB_STATE_UNSPECIFIED;

    void take(Event event) {
      expect(event.getSequence() == sequence + 1, "event " + event.getSequence() + " came after event " + sequence);
      sequence = event.getSequence();
      if (event.hasStateChange()) {
        state = event.getStateChange().getState();
      }
      if (event.hasEpoch()) {
        epochs++;
        var epoch = event.getEpoch();
        expect(epoch.getEpoch() == epochs, "epoch " + epoch.getEpoch() + " came as number " + epochs);
        var train = epoch.getTrain();
        System.out.printf("epoch %d: loss %.4f, accuracy %.4f%n", epochs, train.getLoss(), train.getAccuracy());
      }
    }
  }

  /** Follows the job to its end, breaks off after its first epoch, and goes on where it was. */
  private void watch(String name) {
    var seen = new Seen();
    for (int most : new int[] {1, Integer.MAX_VALUE}) {
      var request = WatchJobRequest.newBuilder().setName(name).setAfterSequence(seen.sequence).build();
      try (var connection = Context.current().withCancellation()) { // Closing it cancels the stream.
        connection.run(
            () -> {
              var responses = training.watchJob(request);
              while (seen.epochs < most && responses.hasNext()) {
                responses.next().getEventsList().forEach(seen::take);
              }
            });
      }
    }
    expect(
        seen.epochs == EPOCHS && seen.state == JobState.JOB_STATE_SUCCEEDED,
        "the job ended as " + seen.state + " after " + seen.epochs + " epochs");
    passed("watch");
  }

  private void download(String name) throws Exception {
    ByteString file = ByteString.EMPTY;
    String expected = "";
    var responses = models.downloadModel(DownloadModelRequest.newBuilder().setName(name).build());
    while (responses.hasNext()) {
      var response = responses.next();
      if (response.hasHeader()) {
        expected = response.getHeader().getSha256();
      } else {
        file = file.concat(response.getChunk());
      }
    }
    expect(digest(file.toByteArray()).equals(expected), "the downloaded file does not have its digest");
    passed("download");
  }

  private void predict(String name, byte[] inputs, byte[] targets) {
    var tensor =
        Tensor.newBuilder()
            .setDtype(DataType.DATA_TYPE_UINT8)
            .addShape(targets.length)
            .addShape(FEATURES)
            .setData(ByteString.copyFrom(inputs));
    var outputs = models.predict(PredictRequest.newBuilder().setName(name).setInputs(tensor).build()).getOutputs();
    FloatBuffer logits = outputs.getData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    int classes = logits.remaining() / targets.length;
    int right = 0;
    for (int row = 0; row < targets.length; row++) {
      int best = 0;
      for (int column = 1; column < classes; column++) {
        if (logits.get(row * classes + column) > logits.get(row * classes + best)) {
          best = column;
        }
      }
      right += best == targets[row] ? 1 : 0;
    }
    expect(right > 0.9 * targets.length, "only " + right + " of " + targets.length + " predictions are right");
    passed("predict");
  }

  /** Makes three mistakes and reads what the server says of each. */
  private void checkErrors() throws Exception {
    var any = GetJobRequest.newBuilder().setName("jobs/nobody").build();
    if (!TOKEN.isEmpty()) {
      var stranger = TrainingServiceGrpc.newBlockingStub(channel).withInterceptors(token("not the token"));
      expectCode(failure(() -> stranger.getJob(any)), Status.Code.UNAUTHENTICATED);
    }
    passed("unauthenticated");

    var missing = failure(() -> training.getJob(any));
    expectCode(missing, Status.Code.NOT_FOUND);
    expect(details(missing, ErrorInfo.class).get(0).getReason().equals("NOT_FOUND"), "the reason is another");
    passed("not-found");

    byte[] one = {0};
    var tiny = Dataset.newBuilder().setInputs(reference(one, 1, 1)).setTargets(reference(one, 1)).build();
    var wrong = Job.newBuilder().setSpec(spec(tiny).toBuilder().setBatchSize(0));
    var refused = failure(() -> training.createJob(CreateJobRequest.newBuilder().setJob(wrong).build()));
    expectCode(refused, Status.Code.INVALID_ARGUMENT);
    var violations = details(refused, BadRequest.class).get(0).getFieldViolationsList();
    expect(
        violations.size() == 1 && violations.get(0).getField().equals("job.spec.batch_size"),
        "expected job.spec.batch_size to be refused, got " + violations);
    passed("bad-request");
  }

  private static StatusRuntimeException failure(Runnable attempt) {
    try {
      attempt.run();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new IllegalStateException("a call that must fail did not");
  }

  /** The details of an error that are of one kind. */
  private static <T extends Message> List<T> details(StatusRuntimeException error, Class<T> kind)
      throws InvalidProtocolBufferException {
    List<T> found = new ArrayList<>();
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(kind)) {
        found.add(detail.unpack(kind));
      }
    }
    return found;
  }

  private static void expectCode(StatusRuntimeException error, Status.Code code) {
    expect(error.getStatus().getCode() == code, "expected " + code + ", got " + error.getStatus());
  }

  private static void expect(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }

  private static void passed(String check) {
    System.out.println("ok " + check);
  }
}
