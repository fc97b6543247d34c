// Trains a network on a gradwire server, and checks that the server follows the protocol. Usage: digits FOLDER JOB
//
// FOLDER contains inputs.bin (64 bytes for each image) and targets.bin (one byte for each image). The environment
// variables GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA specify the server. GRADWIRE_CA names a file of
// trusted certificates and turns on TLS.
//
// You can reuse the code in client.h and client.cc in other programs.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "client.h"

namespace gw = gradwire::v1;
using gradwire::example::Client;
using gradwire::example::Error;
using gradwire::example::Reference;

namespace {

constexpr std::int64_t kFeatures = 64;
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

Client Connect(const std::string& token) {
  const std::string ca_file = Environment("GRADWIRE_CA");
  return Client(Environment("GRADWIRE_ADDRESS"), token, ca_file.empty() ? "" : ReadFile(ca_file));
}

// Checks that a call fails with the given code and reason, prints the error, and returns it.
Error ExpectError(const std::function<void()>& call, grpc::StatusCode code, const std::string& reason) {
  try {
    call();
  } catch (const Error& error) {
    std::cout << error.what() << std::endl;
    Expect(error.code() == code && error.reason() == reason, "the error is not " + reason);
    return error;
  }
  throw std::runtime_error("a call succeeded that must fail");
}

void ExpectMetadata(const Error& error, const std::string& key, const std::string& value) {
  const auto found = error.metadata().find(key);
  Expect(found != error.metadata().end() && found->second == value, "the metadata does not have the right " + key);
}

class Digits {
 public:
  Digits(const std::string& folder, std::string job_id)
      : client_(Connect(Environment("GRADWIRE_TOKEN"))),
        inputs_(ReadFile(folder + "/inputs.bin")),
        targets_(ReadFile(folder + "/targets.bin")),
        job_id_(std::move(job_id)) {
    *dataset_.mutable_inputs() = Reference(inputs_, {static_cast<std::int64_t>(targets_.size()), kFeatures});
    *dataset_.mutable_targets() = Reference(targets_, {static_cast<std::int64_t>(targets_.size())});
  }

  void Run() {
    const std::vector<std::pair<const char*, void (Digits::*)()>> checks = {
        {"connect", &Digits::CheckConnection},
        {"unauthenticated", &Digits::CheckUnauthenticated},
        {"not-found", &Digits::CheckNotFound},
        {"bad-request", &Digits::CheckBadRequest},
        {"error-metadata", &Digits::CheckErrorMetadata},
        {"upload", &Digits::CheckUpload},
        {"validate-only", &Digits::CheckValidateOnly},
        {"create", &Digits::CheckCreate},
        {"labels-filter", &Digits::CheckLabelsFilter},
        {"watch", &Digits::CheckWatch},
        {"download", &Digits::CheckDownload},
        {"download-from-offset", &Digits::CheckDownloadFromOffset},
        {"predict", &Digits::CheckPredict},
        {"delete", &Digits::CheckDelete},
    };
    for (const auto& [name, check] : checks) {
      (this->*check)();
      std::cout << "ok " << name << std::endl;
    }
  }

 private:
  void CheckConnection() { Expect(client_.WaitForConnected(10), "no server responds"); }

  void CheckUnauthenticated() {
    if (Environment("GRADWIRE_TOKEN").empty()) return;
    Client stranger = Connect("not the token");
    ExpectError([&] { stranger.GetJob("jobs/any"); }, grpc::UNAUTHENTICATED, "INVALID_TOKEN");
  }

  void CheckNotFound() {
    ExpectError([&] { client_.GetJob("jobs/nobody"); }, grpc::NOT_FOUND, "JOB_NOT_FOUND");
  }

  void CheckBadRequest() {
    gw::CreateJobRequest wrong;
    *wrong.mutable_job()->mutable_spec() = Spec();
    wrong.mutable_job()->mutable_spec()->set_batch_size(0);
    const Error refused = ExpectError([&] { client_.CreateJob(wrong); }, grpc::INVALID_ARGUMENT, "INVALID_FIELDS");
    Expect(refused.fields() == std::vector<std::string>{"job.spec.batch_size"}, "the server refused another field");
  }

  void CheckErrorMetadata() {
    const Error missing = ExpectError([&] { client_.GetModel("models/nobody"); }, grpc::NOT_FOUND, "MODEL_NOT_FOUND");
    ExpectMetadata(missing, "model", "models/nobody");
    const std::string unknown = "a tensor of " + job_id_;
    const gw::TensorRef reference = Reference(unknown, {static_cast<std::int64_t>(unknown.size())});
    const Error refused =
        ExpectError([&] { client_.Send(reference, unknown, 5); }, grpc::OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE");
    ExpectMetadata(refused, "offset", "5");
    ExpectMetadata(refused, "received_bytes", "0");
  }

  void CheckUpload() {
    // The server already has the data if another client uploaded it, but it does not have this tensor.
    const std::string own = inputs_ + job_id_;
    const gw::TensorRef reference = Reference(own, {static_cast<std::int64_t>(own.size())});
    client_.Upload({{dataset_.inputs(), inputs_}, {dataset_.targets(), targets_}, {reference, own}});
    gw::FindMissingTensorsRequest request;
    for (const auto& tensor : {dataset_.inputs(), dataset_.targets(), reference}) *request.add_tensors() = tensor;
    Expect(client_.FindMissingTensors(request).missing().empty(), "tensors are missing after their upload");
  }

  gw::JobSpec Spec() const {
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
    *spec.mutable_train() = dataset_;
    spec.set_epochs(kEpochs);
    spec.set_batch_size(16);
    spec.set_shuffle(true);
    spec.set_seed(7);
    spec.set_device(gw::DEVICE_CPU);
    return spec;
  }

  // The request that creates the job. Because of its request_id, the request can be repeated safely.
  gw::CreateJobRequest Request() const {
    gw::CreateJobRequest request;
    *request.mutable_job()->mutable_spec() = Spec();
    auto& labels = *request.mutable_job()->mutable_labels();
    labels["example"] = "digits";
    labels["client"] = job_id_;
    request.set_job_id(job_id_);
    request.set_request_id("request-" + job_id_);
    return request;
  }

  void CheckValidateOnly() {
    gw::CreateJobRequest request = Request();
    request.set_validate_only(true);
    const gw::Job validated = client_.CreateJob(request);
    Expect(validated.name().empty(), "the job has the name " + validated.name());
    const gw::Layer& first = validated.spec().model().layers(0);
    Expect(first.linear().in_features() == kFeatures, "the widths are not filled in");
    ExpectError([&] { client_.GetJob("jobs/" + job_id_); }, grpc::NOT_FOUND, "JOB_NOT_FOUND");
  }

  // Sends the same request twice, as a client would if it did not receive the response.
  void CheckCreate() {
    job_ = client_.CreateJob(Request()).name();
    const std::string again = client_.CreateJob(Request()).name();
    Expect(job_ == again, "the same request created " + job_ + " and " + again);
  }

  void CheckLabelsFilter() {
    const gw::ListJobsResponse found = JobsOf(job_id_);
    Expect(found.jobs_size() == 1 && found.jobs(0).name() == job_, "the filter did not find the job alone");
    const bool basic = !found.jobs(0).has_spec() && found.jobs(0).architecture() == "64-32-10";
    Expect(basic, "the list does not have the basic view");
    Expect(JobsOf("nobody").jobs().empty(), "the filter found another job");
  }

  gw::ListJobsResponse JobsOf(const std::string& label) {
    gw::ListJobsRequest request;
    request.set_filter("labels.example = \"digits\" AND labels.client = \"" + label + "\"");
    return client_.ListJobs(request);
  }

  // Follows the job until it ends. Interrupts the watch after the first epoch, and continues with the next event.
  void CheckWatch() {
    std::int64_t sequence = 0;
    int epoch = 0;
    gw::JobState state = gw::JOB_STATE_UNSPECIFIED;
    for (const int last : {1, kEpochs + 1}) {
      client_.Watch(job_, sequence, [&](const gw::Event& event) {
        Expect(event.sequence() == sequence + 1, "event " + std::to_string(event.sequence()) + " is out of order");
        sequence = event.sequence();
        if (event.has_state_change()) state = event.state_change().state();
        if (event.has_epoch()) {
          Expect(event.epoch().epoch() == ++epoch, "an epoch is out of order");
          const gw::Metrics& train = event.epoch().train();
          std::printf("epoch %d: loss %.4f, accuracy %.4f\n", epoch, train.loss(), train.accuracy());
          std::fflush(stdout);
        }
        return epoch != last;
      });
    }
    Expect(epoch == kEpochs && state == gw::JOB_STATE_SUCCEEDED, "the job ended as " + gw::JobState_Name(state));
  }

  void CheckDownload() {
    model_ = client_.GetJob(job_).model();
    client_.Download(model_, file_);
  }

  // Continues a download after the first half of the file has arrived.
  void CheckDownloadFromOffset() {
    std::string file = file_.substr(0, file_.size() / 2);
    client_.Download(model_, file);
    file += '\0';
    const Error refused =
        ExpectError([&] { client_.Download(model_, file); }, grpc::OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE");
    ExpectMetadata(refused, "size_bytes", std::to_string(file_.size()));
  }

  void CheckPredict() {
    gw::PredictRequest request;
    request.set_name(model_);
    request.mutable_inputs()->set_dtype(gw::DATA_TYPE_UINT8);
    request.mutable_inputs()->add_shape(targets_.size());
    request.mutable_inputs()->add_shape(kFeatures);
    request.mutable_inputs()->set_data(inputs_);
    const gw::PredictResponse response = client_.Predict(request);
    // Tensors are little-endian, like the machines that this code is built for.
    std::vector<float> logits(response.outputs().data().size() / sizeof(float));
    std::memcpy(logits.data(), response.outputs().data().data(), logits.size() * sizeof(float));
    const std::size_t classes = logits.size() / targets_.size();
    std::size_t right = 0;
    for (std::size_t row = 0; row < targets_.size(); ++row) {
      auto first = logits.begin() + row * classes;
      right += std::max_element(first, first + classes) - first == targets_[row];
    }
    Expect(right > 0.9 * targets_.size(), "only " + std::to_string(right) + " predictions are right");
    std::cout << "weights " << client_.GetModel(model_).weights().sha256() << std::endl;
  }

  // Deletes the job and its model twice, as a client would if it did not receive the response.
  void CheckDelete() {
    for (int count = 0; count < 2; ++count) {
      client_.DeleteJob(job_, /*allow_missing=*/true);
      client_.DeleteModel(model_, /*allow_missing=*/true);
    }
    ExpectError([&] { client_.DeleteJob(job_, /*allow_missing=*/false); }, grpc::NOT_FOUND, "JOB_NOT_FOUND");
  }

  Client client_;
  std::string inputs_, targets_;
  gw::Dataset dataset_;
  std::string job_id_, job_, model_, file_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: digits FOLDER JOB" << std::endl;
    return 2;
  }
  try {
    Digits(arguments[1], arguments[2]).Run();
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  return 0;
}
