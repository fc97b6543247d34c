package dev.gradwire.example;

import com.google.protobuf.ByteString;
import com.google.rpc.ErrorInfo;
import dev.gradwire.v1.CreateJobRequest;
import dev.gradwire.v1.CrossEntropy;
import dev.gradwire.v1.DataType;
import dev.gradwire.v1.Dataset;
import dev.gradwire.v1.Device;
import dev.gradwire.v1.Event;
import dev.gradwire.v1.Job;
import dev.gradwire.v1.JobSpec;
import dev.gradwire.v1.JobState;
import dev.gradwire.v1.Layer;
import dev.gradwire.v1.Linear;
import dev.gradwire.v1.ListJobsRequest;
import dev.gradwire.v1.Loss;
import dev.gradwire.v1.ModelSpec;
import dev.gradwire.v1.Optimizer;
import dev.gradwire.v1.Relu;
import dev.gradwire.v1.Sgd;
import dev.gradwire.v1.Tensor;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Trains a network on a gradwire server, and checks that the server follows the protocol.
 *
 * <p>Arguments: FOLDER JOB. FOLDER contains inputs.bin (64 bytes for each image) and targets.bin (one byte for each
 * image). The environment variables GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA specify the server. GRADWIRE_CA
 * names a file of trusted certificates and turns on TLS. You can reuse the code in {@link Client} in other programs.
 */
public final class Digits {
  private static final int FEATURES = 64;
  private static final int EPOCHS = 20;
  private static final String ADDRESS = environment("GRADWIRE_ADDRESS", "localhost:50051");
  private static final String TOKEN = environment("GRADWIRE_TOKEN", "");
  private static final String CA_FILE = environment("GRADWIRE_CA", "");

  private final Client client;
  private final byte[] inputs;
  private final byte[] targets;
  private final Dataset dataset;
  private final String jobId;
  private String job;
  private String model;
  private byte[] file;

  private Digits(Client client, Path folder, String jobId) throws Exception {
    this.client = client;
    this.jobId = jobId;
    inputs = Files.readAllBytes(folder.resolve("inputs.bin"));
    targets = Files.readAllBytes(folder.resolve("targets.bin"));
    dataset =
        Dataset.newBuilder()
            .setInputs(Client.reference(inputs, targets.length, FEATURES))
            .setTargets(Client.reference(targets, targets.length))
            .build();
  }

  /** A check, which throws an exception if it fails. */
  private interface Check {
    void run() throws Exception;
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 2) {
      System.err.println("usage: digits FOLDER JOB");
      System.exit(2);
    }
    try (var client = new Client(ADDRESS, TOKEN, CA_FILE)) {
      for (var check : new Digits(client, Path.of(arguments[0]), arguments[1]).checks().entrySet()) {
        check.getValue().run();
        System.out.println("ok " + check.getKey());
      }
    } catch (StatusException error) {
      System.err.println(Client.describe(error));
      System.exit(1);
    }
  }

  private Map<String, Check> checks() {
    var checks = new LinkedHashMap<String, Check>();
    checks.put("connect", this::connect);
    checks.put("unauthenticated", this::unauthenticated);
    checks.put("not-found", this::notFound);
    checks.put("bad-request", this::badRequest);
    checks.put("error-metadata", this::errorMetadata);
    checks.put("upload", this::upload);
    checks.put("validate-only", this::validateOnly);
    checks.put("create", this::create);
    checks.put("labels-filter", this::labelsFilter);
    checks.put("watch", this::watch);
    checks.put("download", this::download);
    checks.put("download-from-offset", this::downloadFromOffset);
    checks.put("predict", this::predict);
    checks.put("delete", this::delete);
    return checks;
  }

  private void connect() throws Exception {
    var health = HealthGrpc.newBlockingV2Stub(client.channel).check(HealthCheckRequest.getDefaultInstance());
    require(health.getStatus() == ServingStatus.SERVING, "the server is not ready: " + health);
  }

  private void unauthenticated() throws Exception {
    if (!TOKEN.isEmpty()) {
      try (var stranger = new Client(ADDRESS, "not the token", CA_FILE)) {
        requireError(() -> stranger.getJob("jobs/any"), Status.Code.UNAUTHENTICATED, "INVALID_TOKEN");
      }
    }
  }

  private void notFound() throws Exception {
    requireError(() -> client.getJob("jobs/nobody"), Status.Code.NOT_FOUND, "JOB_NOT_FOUND");
  }

  private void badRequest() throws Exception {
    var wrong = Job.newBuilder().setSpec(spec().toBuilder().setBatchSize(0));
    var request = CreateJobRequest.newBuilder().setJob(wrong).build();
    var error =
        requireError(() -> client.createJob(request), Status.Code.INVALID_ARGUMENT, "INVALID_FIELDS");
    var fields = Client.fields(error);
    require(fields.equals(List.of("job.spec.batch_size")), "the server refused the fields " + fields);
  }

  private void errorMetadata() throws Exception {
    var missing = requireError(() -> client.getModel("models/nobody"), Status.Code.NOT_FOUND, "MODEL_NOT_FOUND");
    requireMetadata(missing, "model", "models/nobody");
    byte[] unknown = ("a tensor of " + jobId).getBytes();
    var reference = Client.reference(unknown, unknown.length);
    var refused =
        requireError(() -> client.send(reference, unknown, 5), Status.Code.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE");
    requireMetadata(refused, "offset", "5");
    requireMetadata(refused, "received_bytes", "0");
  }

  private void upload() throws Exception {
    // The server already has the data if another client uploaded it, but it does not have this tensor.
    byte[] own = ByteString.copyFrom(inputs).concat(ByteString.copyFromUtf8(jobId)).toByteArray();
    var contents =
        Map.of(dataset.getInputs(), inputs, dataset.getTargets(), targets, Client.reference(own, own.length), own);
    client.upload(contents);
    require(client.findMissingTensors(contents.keySet()).isEmpty(), "tensors are missing after their upload");
  }

  private JobSpec spec() {
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

  /** Returns the request that creates the job. Because of its request_id, the request can be repeated safely. */
  private CreateJobRequest request() {
    var labels = Map.of("example", "digits", "client", jobId);
    return CreateJobRequest.newBuilder()
        .setJob(Job.newBuilder().setSpec(spec()).putAllLabels(labels))
        .setJobId(jobId)
        .setRequestId("request-" + jobId)
        .build();
  }

  private void validateOnly() throws Exception {
    Job validated = client.createJob(request().toBuilder().setValidateOnly(true).build());
    require(validated.getName().isEmpty(), "the job has the name " + validated.getName());
    long width = validated.getSpec().getModel().getLayers(0).getLinear().getInFeatures();
    require(width == FEATURES, "the first layer has " + width + " inputs");
    requireError(() -> client.getJob("jobs/" + jobId), Status.Code.NOT_FOUND, "JOB_NOT_FOUND");
  }

  /** Sends the same request twice, as a client would if it did not receive the response. */
  private void create() throws Exception {
    job = client.createJob(request()).getName();
    String again = client.createJob(request()).getName();
    require(job.equals(again), "the same request created " + job + " and " + again);
  }

  private void labelsFilter() throws Exception {
    var found = jobsOf(jobId);
    require(found.size() == 1 && found.get(0).getName().equals(job), "the filter found " + found);
    var listed = found.get(0);
    require(!listed.hasSpec() && listed.getArchitecture().equals("64-32-10"), "the view is not basic: " + listed);
    require(jobsOf("nobody").isEmpty(), "the filter found another job");
  }

  private List<Job> jobsOf(String label) throws Exception {
    String filter = "labels.example = \"digits\" AND labels.client = \"" + label + "\"";
    return client.listJobs(ListJobsRequest.newBuilder().setFilter(filter).build()).getJobsList();
  }

  /** The progress of a job, as seen by a watcher. */
  private static final class Progress {
    private long sequence;
    private int epoch;
    private JobState state = JobState.JOB_STATE_UNSPECIFIED;

    void add(Event event) {
      require(event.getSequence() == sequence + 1, "event " + event.getSequence() + " came after event " + sequence);
      sequence = event.getSequence();
      if (event.hasStateChange()) {
        state = event.getStateChange().getState();
      }
      if (event.hasEpoch()) {
        epoch++;
        require(event.getEpoch().getEpoch() == epoch, "epoch " + epoch + " is out of order");
        var train = event.getEpoch().getTrain();
        System.out.printf("epoch %d: loss %.4f, accuracy %.4f%n", epoch, train.getLoss(), train.getAccuracy());
      }
    }
  }

  /** Follows the job until it ends. Interrupts the watch after the first epoch, and continues with the next event. */
  private void watch() throws Exception {
    var progress = new Progress();
    for (int last : new int[] {1, EPOCHS + 1}) {
      client.watch(
          job,
          progress.sequence,
          event -> {
            progress.add(event);
            return progress.epoch != last;
          });
    }
    require(
        progress.epoch == EPOCHS && progress.state == JobState.JOB_STATE_SUCCEEDED,
        "the job is " + progress.state + " after " + progress.epoch + " epochs");
  }

  private void download() throws Exception {
    model = client.getJob(job).getModel();
    file = client.download(model, new byte[0]);
  }

  /** Continues a download after the first half of the file has arrived. */
  private void downloadFromOffset() throws Exception {
    client.download(model, Arrays.copyOf(file, file.length / 2));
    byte[] longer = Arrays.copyOf(file, file.length + 1);
    var error =
        requireError(() -> client.download(model, longer), Status.Code.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE");
    requireMetadata(error, "size_bytes", String.valueOf(file.length));
  }

  private void predict() throws Exception {
    var tensor =
        Tensor.newBuilder()
            .setDtype(DataType.DATA_TYPE_UINT8)
            .addShape(targets.length)
            .addShape(FEATURES)
            .setData(ByteString.copyFrom(inputs))
            .build();
    var outputs = client.predict(model, tensor);
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
    require(right > 0.9 * targets.length, "only " + right + " of " + targets.length + " predictions are right");
    System.out.println("weights " + client.getModel(model).getWeights().getSha256());
  }

  /** Deletes the job and its model twice, as a client would if it did not receive the response. */
  private void delete() throws Exception {
    for (int count = 0; count < 2; count++) {
      client.deleteJob(job, true);
      client.deleteModel(model, true);
    }
    requireError(() -> client.deleteJob(job, false), Status.Code.NOT_FOUND, "JOB_NOT_FOUND");
  }

  /** Checks that a call fails with the given code and reason, prints the error, and returns it. */
  private static StatusException requireError(Check call, Status.Code code, String reason) throws Exception {
    try {
      call.run();
    } catch (StatusException error) {
      String description = Client.describe(error);
      System.out.println(description);
      boolean expected = error.getStatus().getCode() == code && Client.errorInfo(error).getReason().equals(reason);
      require(expected, "expected " + code + " " + reason + ", got " + description);
      return error;
    }
    throw new IllegalStateException("a call succeeded that must fail");
  }

  private static void requireMetadata(StatusException error, String key, String expected) {
    ErrorInfo info = Client.errorInfo(error);
    String value = info.getMetadataOrDefault(key, "missing");
    require(value.equals(expected), "the metadata has the " + key + " " + value + " instead of " + expected);
  }

  private static void require(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }

  private static String environment(String name, String otherwise) {
    return System.getenv().getOrDefault(name, otherwise);
  }
}
