#include "client.h"

#include <openssl/sha.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gradwire::example {

namespace {

// The chunks are small, so that even the small data in this example needs several chunks. For real data, use 1 MiB.
constexpr std::size_t kChunkBytes = 16 << 10;
constexpr int kMaxAttempts = 8;

std::string Sha256(const std::string& data) {
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

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address, const std::string& certificates) {
  auto credentials = grpc::InsecureChannelCredentials();
  if (!certificates.empty()) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = certificates;
    credentials = grpc::SslCredentials(options);
  }
  return grpc::CreateChannel(address, credentials);
}

void Check(const grpc::Status& status) {
  if (!status.ok()) throw Error(status);
}

const char* Name(grpc::StatusCode code) {
  static const char* const names[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return names[code];
}

// Waits between attempts, and increases the delay each time.
class Backoff {
 public:
  void Reset() { failures_ = 0; }

  // If the error is temporary, waits and returns. Otherwise, throws the error.
  void Wait(const Error& error) {
    if (++failures_ == kMaxAttempts || error.code() != grpc::UNAVAILABLE) throw error;
    std::this_thread::sleep_for(std::chrono::milliseconds(50 << failures_));
  }

 private:
  int failures_ = 0;
};

}  // namespace

// The contents of google.rpc.ErrorInfo and google.rpc.BadRequest in an error.
struct Error::Details {
  explicit Details(const grpc::Status& error) {
    google::rpc::Status status;
    status.ParseFromString(error.error_details());
    google::rpc::BadRequest request;
    for (const auto& detail : status.details()) {
      detail.UnpackTo(&info);
      if (!detail.UnpackTo(&request)) continue;
      for (const auto& violation : request.field_violations()) fields.push_back(violation.field());
    }
    metadata = {info.metadata().begin(), info.metadata().end()};
    text = std::string(Name(error.error_code())) + " " + info.reason() + ": " + error.error_message();
    for (const auto& [key, value] : metadata) text += " " + key + "=" + value;
  }

  google::rpc::ErrorInfo info;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> fields;
  std::string text;
};

Error::Error(const grpc::Status& status) : Error(status, Details(status)) {}

Error::Error(const grpc::Status& status, Details details)
    : std::runtime_error(details.text),
      code_(status.error_code()),
      reason_(details.info.reason()),
      metadata_(std::move(details.metadata)),
      fields_(std::move(details.fields)) {}

Client::Client(const std::string& address, std::string token, const std::string& certificates)
    : token_(std::move(token)),
      channel_(NewChannel(address, certificates)),
      training_(v1::TrainingService::NewStub(channel_)),
      tensors_(v1::TensorService::NewStub(channel_)),
      models_(v1::ModelService::NewStub(channel_)) {}

bool Client::WaitForConnected(int seconds) {
  return channel_->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
}

std::unique_ptr<grpc::ClientContext> Client::NewContext() const {
  auto context = std::make_unique<grpc::ClientContext>();
  if (!token_.empty()) context->AddMetadata("authorization", "Bearer " + token_);
  return context;
}

template <typename Stub, typename Request, typename Response>
Response Client::Call(const std::unique_ptr<Stub>& stub,
                      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                      const Request& request) {
  for (Backoff backoff;;) {
    Response response;
    const grpc::Status status = (stub.get()->*method)(NewContext().get(), request, &response);
    if (status.ok()) return response;
    backoff.Wait(Error(status));
  }
}

v1::Job Client::CreateJob(const v1::CreateJobRequest& request) {
  return Call(training_, &v1::TrainingService::Stub::CreateJob, request);
}

v1::Job Client::GetJob(const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(name);
  return Call(training_, &v1::TrainingService::Stub::GetJob, request);
}

v1::ListJobsResponse Client::ListJobs(const v1::ListJobsRequest& request) {
  return Call(training_, &v1::TrainingService::Stub::ListJobs, request);
}

void Client::DeleteJob(const std::string& name, bool allow_missing) {
  v1::DeleteJobRequest request;
  request.set_name(name);
  request.set_allow_missing(allow_missing);
  Call(training_, &v1::TrainingService::Stub::DeleteJob, request);
}

v1::FindMissingTensorsResponse Client::FindMissingTensors(const v1::FindMissingTensorsRequest& request) {
  return Call(tensors_, &v1::TensorService::Stub::FindMissingTensors, request);
}

v1::Model Client::GetModel(const std::string& name) {
  v1::GetModelRequest request;
  request.set_name(name);
  return Call(models_, &v1::ModelService::Stub::GetModel, request);
}

v1::PredictResponse Client::Predict(const v1::PredictRequest& request) {
  return Call(models_, &v1::ModelService::Stub::Predict, request);
}

void Client::DeleteModel(const std::string& name, bool allow_missing) {
  v1::DeleteModelRequest request;
  request.set_name(name);
  request.set_allow_missing(allow_missing);
  Call(models_, &v1::ModelService::Stub::DeleteModel, request);
}

void Client::Upload(const std::vector<std::pair<v1::TensorRef, std::string>>& contents) {
  v1::FindMissingTensorsRequest request;
  for (const auto& content : contents) *request.add_tensors() = content.first;
  for (Backoff backoff;;) {
    try {
      const v1::FindMissingTensorsResponse found = FindMissingTensors(request);
      for (const v1::MissingTensor& missing : found.missing()) {
        for (const auto& [tensor, data] : contents) {
          if (tensor.sha256() == missing.tensor().sha256()) Send(tensor, data, missing.received_bytes());
        }
      }
      return;
    } catch (const Error& error) {
      backoff.Wait(error);
    }
  }
}

void Client::Send(const v1::TensorRef& tensor, const std::string& data, std::int64_t offset) {
  auto context = NewContext();
  v1::UploadTensorResponse response;
  auto stream = tensors_->UploadTensor(context.get(), &response);
  v1::UploadTensorRequest part;
  *part.mutable_header()->mutable_tensor() = tensor;
  part.mutable_header()->set_offset(offset);
  bool open = stream->Write(part);  // False if the server has ended the call. Finish returns the reason.
  for (std::size_t start = offset; open && start < data.size(); start += kChunkBytes) {
    part.set_chunk(data.substr(start, kChunkBytes));
    open = stream->Write(part);
  }
  stream->WritesDone();
  Check(stream->Finish());
}

void Client::Watch(const std::string& job, std::int64_t after, const std::function<bool(const v1::Event&)>& handler) {
  for (Backoff backoff;;) {
    v1::WatchJobRequest request;
    request.set_name(job);
    request.set_after_sequence(after);
    auto context = NewContext();
    auto stream = training_->WatchJob(context.get(), request);
    v1::WatchJobResponse response;
    while (stream->Read(&response)) {
      for (const v1::Event& event : response.events()) {
        after = event.sequence();
        backoff.Reset();
        if (handler(event)) continue;
        context->TryCancel();
        stream->Finish();
        return;
      }
    }
    grpc::Status status = stream->Finish();
    if (status.ok()) return;
    backoff.Wait(Error(status));
  }
}

void Client::Download(const std::string& model, std::string& file) {
  std::string expected;
  for (Backoff backoff;;) {
    v1::DownloadModelRequest request;
    request.set_name(model);
    request.set_offset(file.size());
    auto context = NewContext();
    auto stream = models_->DownloadModel(context.get(), request);
    v1::DownloadModelResponse response;
    while (stream->Read(&response)) {
      if (response.has_header()) {
        const std::string& digest = response.header().sha256();
        if (!expected.empty() && digest != expected) throw std::runtime_error("the model changed during the download");
        expected = digest;
      } else {
        file += response.chunk();
        backoff.Reset();
      }
    }
    grpc::Status status = stream->Finish();
    if (status.ok()) break;
    backoff.Wait(Error(status));
  }
  if (Sha256(file) != expected) throw std::runtime_error("the file does not have the digest of its header");
}

v1::TensorRef Reference(const std::string& data, const std::vector<std::int64_t>& shape) {
  v1::TensorRef reference;
  reference.set_dtype(v1::DATA_TYPE_UINT8);
  for (std::int64_t size : shape) reference.add_shape(size);
  reference.set_sha256(Sha256(data));
  return reference;
}

}  // namespace gradwire::example
