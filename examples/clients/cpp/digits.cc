// Trains a network on a gradwire server, and knows nothing of it but the .proto files: digits FOLDER JOB
//
// FOLDER holds inputs.bin (bytes, 64 for each picture) and targets.bin (a byte for each). GRADWIRE_ADDRESS, GRADWIRE_TOKEN
// and GRADWIRE_CA (a file of certificates; turns TLS on) say where the server is.

#include <openssl/sha.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gradwire/v1/dataset_service.grpc.pb.h"
#include "gradwire/v1/model_service.grpc.pb.h"
#include "gradwire/v1/training_service.grpc.pb.h"

namespace gw = gradwire::v1;

namespace {

constexpr std::size_t kFeatures = 64;
constexpr std::size_t kChunkBytes = 16 << 10;
constexpr int kEpochs = 20;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Expect(bool holds, const std::string& otherwise) {
  if (!holds) throw std::runtime_error(otherwise);
}

void ExpectOk(const grpc::Status& status) {
  Expect(status.ok(), "error " + std::to_string(status.error_code()) + ": " + status.error_message());
}

void Passed(const char* check) { std::cout << "ok " << check << std::endl; }

// A context for one call, with the token.
std::unique_ptr<grpc::ClientContext> NewContext(const std::string& token = Environment("GRADWIRE_TOKEN")) {
  auto context = std::make_unique<grpc::ClientContext>();
  if (!token.empty()) context->AddMetadata("authorization", "Bearer " + token);
  return context;
}

std::string Digest(const std::string& data) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(), digest);
  std::string text;
  for (unsigned char byte : digest) {
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", byte);
    text += pair;
  }
  return text;
}

gw::TensorRef Reference(const std::string& data, const std::vector<std::int64_t>& shape) {
  gw::TensorRef reference;
  reference.set_dtype(gw::DATA_TYPE_UINT8);
  for (std::int64_t size : shape) reference.add_shape(size);
  reference.set_sha256(Digest(data));
  return reference;
}

gw::JobSpec Spec(const gw::Dataset& dataset) {
  gw::JobSpec spec;
  auto add = [&spec](const char* name) {
    gw::Layer* layer = spec.mutable_model()->add_layers();
    layer->set_name(name);
    return layer;
  };
  add("fc1")->mutable_linear()->set_out_features(32);
  add("relu1")->mutable_relu();
  add("fc2")->mutable_linear()->set_out_features(10);
  spec.mutable_loss()->mutable_cross_entropy();
  spec.mutable_optimizer()->mutable_sgd()->set_learning_rate(0.005);
  *spec.mutable_train() = dataset;
  spec.set_epochs(kEpochs);
  spec.set_batch_size(16);
  spec.set_shuffle(true);
  spec.set_seed(7);
  spec.set_device(gw::DEVICE_CPU);
  return spec;
}

// The detail of an error that is of one kind; an error that has none is one of ours.
template <typename Detail>
Detail DetailOf(const grpc::Status& error) {
  google::rpc::Status status;
  Expect(status.ParseFromString(error.error_details()), "the error has no details");
  Detail found;
  for (const auto& detail : status.details()) {
    if (detail.UnpackTo(&found)) return found;
  }
  throw std::runtime_error("the error lacks a detail: " + error.error_message());
}

class Client {
 public:
  explicit Client(const std::shared_ptr<grpc::Channel>& channel)
      : training_(gw::TrainingService::NewStub(channel)),
        datasets_(gw::DatasetService::NewStub(channel)),
        models_(gw::ModelService::NewStub(channel)) {}

  // Makes three mistakes and reads what the server says of each.
  void CheckErrors() {
    gw::Job job;
    gw::GetJobRequest nobody;
    nobody.set_name("jobs/nobody");
    if (!Environment("GRADWIRE_TOKEN").empty()) {
      grpc::Status status = training_->GetJob(NewContext("not the token").get(), nobody, &job);
      Expect(status.error_code() == grpc::UNAUTHENTICATED, "expected UNAUTHENTICATED: " + status.error_message());
    }
    Passed("unauthenticated");

    grpc::Status missing = training_->GetJob(NewContext().get(), nobody, &job);
    Expect(missing.error_code() == grpc::NOT_FOUND, "expected NOT_FOUND: " + missing.error_message());
    Expect(DetailOf<google::rpc::ErrorInfo>(missing).reason() == "NOT_FOUND", "the reason is another");
    Passed("not-found");

    gw::Dataset tiny;
    *tiny.mutable_inputs() = Reference(std::string(1, '\0'), {1, 1});
    *tiny.mutable_targets() = Reference(std::string(1, '\0'), {1});
    gw::CreateJobRequest wrong;
    *wrong.mutable_job()->mutable_spec() = Spec(tiny);
    wrong.mutable_job()->mutable_spec()->set_batch_size(0);
    grpc::Status refused = training_->CreateJob(NewContext().get(), wrong, &job);
    Expect(refused.error_code() == grpc::INVALID_ARGUMENT, "expected INVALID_ARGUMENT: " + refused.error_message());
    auto violations = DetailOf<google::rpc::BadRequest>(refused).field_violations();
    Expect(violations.size() == 1 && violations[0].field() == "job.spec.batch_size", "another field was refused");
    Passed("bad-request");
  }

  // Sends what the server does not have yet, each tensor from where an earlier upload broke off.
  void Upload(const gw::Dataset& dataset, const std::string& inputs, const std::string& targets) {
    gw::FindMissingTensorsRequest request;
    *request.add_tensors() = dataset.inputs();
    *request.add_tensors() = dataset.targets();
    gw::FindMissingTensorsResponse found;
    ExpectOk(datasets_->FindMissingTensors(NewContext().get(), request, &found));
    for (const gw::MissingTensor& missing : found.missing()) {
      const bool is_inputs = missing.tensor().sha256() == dataset.inputs().sha256();
      const std::string& data = is_inputs ? inputs : targets;
      auto context = NewContext();
      gw::UploadTensorResponse response;
      auto stream = datasets_->UploadTensor(context.get(), &response);
      gw::UploadTensorRequest part;
      *part.mutable_header()->mutable_tensor() = missing.tensor();
      part.mutable_header()->set_offset(missing.received_bytes());
      bool open = stream->Write(part);  // False once the server has ended the call; Finish says why.
      for (std::size_t start = missing.received_bytes(); open && start < data.size(); start += kChunkBytes) {
        part.set_chunk(data.substr(start, kChunkBytes));
        open = stream->Write(part);
      }
      stream->WritesDone();
      ExpectOk(stream->Finish());
    }
    ExpectOk(datasets_->FindMissingTensors(NewContext().get(), request, &found));
    Expect(found.missing().empty(), "tensors are missing after their upload");
    Passed("upload");
  }

  // Sends the same request twice, as after a lost answer: it makes one job.
  std::string Create(const gw::Dataset& dataset, const std::string& job_id) {
    gw::CreateJobRequest request;
    *request.mutable_job()->mutable_spec() = Spec(dataset);
    request.set_job_id(job_id);
    request.set_request_id("request-" + job_id);
    gw::Job first, second;
    ExpectOk(training_->CreateJob(NewContext().get(), request, &first));
    ExpectOk(training_->CreateJob(NewContext().get(), request, &second));
    Expect(first.name() == second.name(), "the same request made another job");
    Passed("create");
    return first.name();
  }

  // Follows the job to its end, breaks off after its first epoch, and goes on where it was.
  void Watch(const std::string& name) {
    std::int64_t sequence = 0;
    int epochs = 0;
    gw::JobState state = gw::JOB_STATE_UNSPECIFIED;
    for (int most : {1, std::numeric_limits<int>::max()}) {
      gw::WatchJobRequest request;
      request.set_name(name);
      request.set_after_sequence(sequence);
      auto context = NewContext();
      auto stream = training_->WatchJob(context.get(), request);
      gw::WatchJobResponse response;
      while (epochs < most && stream->Read(&response)) {
        for (const gw::Event& event : response.events()) {
          Expect(event.sequence() == sequence + 1, "event " + std::to_string(event.sequence()) + " is out of order");
          sequence = event.sequence();
          if (event.has_state_change()) state = event.state_change().state();
          if (!event.has_epoch()) continue;
          ++epochs;
          Expect(event.epoch().epoch() == epochs, "an epoch is out of order");
          const gw::Metrics& train = event.epoch().train();
          std::printf("epoch %d: loss %.4f, accuracy %.4f\n", epochs, train.loss(), train.accuracy());
          std::fflush(stdout);
        }
      }
      context->TryCancel();
      stream->Finish();
    }
    Expect(epochs == kEpochs && state == gw::JOB_STATE_SUCCEEDED, "the job ended as " + gw::JobState_Name(state));
    Passed("watch");
  }

  std::string ModelOf(const std::string& name) {
    gw::GetJobRequest request;
    request.set_name(name);
    gw::Job job;
    ExpectOk(training_->GetJob(NewContext().get(), request, &job));
    return job.model();
  }

  void Download(const std::string& name) {
    gw::DownloadModelRequest request;
    request.set_name(name);
    auto context = NewContext();
    auto stream = models_->DownloadModel(context.get(), request);
    gw::DownloadModelResponse response;
    std::string expected, file;
    while (stream->Read(&response)) {
      if (response.has_header()) expected = response.header().sha256();
      file += response.chunk();
    }
    ExpectOk(stream->Finish());
    Expect(Digest(file) == expected, "the downloaded file does not have its digest");
    Passed("download");
  }

  void Predict(const std::string& name, const std::string& inputs, const std::string& targets) {
    gw::PredictRequest request;
    request.set_name(name);
    request.mutable_inputs()->set_dtype(gw::DATA_TYPE_UINT8);
    request.mutable_inputs()->add_shape(targets.size());
    request.mutable_inputs()->add_shape(kFeatures);
    request.mutable_inputs()->set_data(inputs);
    gw::PredictResponse response;
    ExpectOk(models_->Predict(NewContext().get(), request, &response));
    // Tensors are little-endian, as are the machines that this is built for.
    std::vector<float> logits(response.outputs().data().size() / sizeof(float));
    std::memcpy(logits.data(), response.outputs().data().data(), logits.size() * sizeof(float));
    const std::size_t classes = logits.size() / targets.size();
    std::size_t right = 0;
    for (std::size_t row = 0; row < targets.size(); ++row) {
      auto first = logits.begin() + row * classes;
      right += std::max_element(first, first + classes) - first == targets[row];
    }
    Expect(right > 0.9 * targets.size(), "only " + std::to_string(right) + " predictions are right");
    Passed("predict");
  }

  std::string Weights(const std::string& name) {
    gw::GetModelRequest request;
    request.set_name(name);
    gw::Model model;
    ExpectOk(models_->GetModel(NewContext().get(), request, &model));
    return model.weights().sha256();
  }

 private:
  std::unique_ptr<gw::TrainingService::Stub> training_;
  std::unique_ptr<gw::DatasetService::Stub> datasets_;
  std::unique_ptr<gw::ModelService::Stub> models_;
};

// Opens a channel: with TLS where there is a file of certificates.
std::shared_ptr<grpc::Channel> Connect() {
  auto credentials = grpc::InsecureChannelCredentials();
  if (std::string path = Environment("GRADWIRE_CA"); !path.empty()) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadFile(path);
    credentials = grpc::SslCredentials(options);
  }
  auto channel = grpc::CreateChannel(Environment("GRADWIRE_ADDRESS"), credentials);
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(10);
  Expect(channel->WaitForConnected(deadline), "no server answers");
  Passed("connect");
  return channel;
}

void Run(const std::string& folder, const std::string& job_id) {
  Client client(Connect());
  client.CheckErrors();
  const std::string inputs = ReadFile(folder + "/inputs.bin"), targets = ReadFile(folder + "/targets.bin");
  const auto rows = static_cast<std::int64_t>(targets.size());
  gw::Dataset dataset;
  *dataset.mutable_inputs() = Reference(inputs, {rows, kFeatures});
  *dataset.mutable_targets() = Reference(targets, {rows});
  client.Upload(dataset, inputs, targets);
  const std::string name = client.Create(dataset, job_id);
  client.Watch(name);
  const std::string model = client.ModelOf(name);
  client.Download(model);
  client.Predict(model, inputs, targets);
  std::cout << "weights " << client.Weights(model) << std::endl;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: digits FOLDER JOB" << std::endl;
    return 2;
  }
  try {
    Run(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  return 0;
}
