// A client for gradwire servers that uses gRPC C++.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "gradwire/v1/model_service.grpc.pb.h"
#include "gradwire/v1/tensor_service.grpc.pb.h"
#include "gradwire/v1/training_service.grpc.pb.h"

namespace gradwire::example {

// A failed call. what() returns a complete description of the error, in one line.
class Error : public std::runtime_error {
 public:
  explicit Error(const grpc::Status& status);

  grpc::StatusCode code() const { return code_; }
  // The reason, for example "JOB_NOT_FOUND".
  const std::string& reason() const { return reason_; }
  // The metadata, which contains the names and numbers in the message.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // The paths of the invalid fields, if the error lists any.
  const std::vector<std::string>& fields() const { return fields_; }

 private:
  struct Details;
  Error(const grpc::Status& status, Details details);

  grpc::StatusCode code_;
  std::string reason_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> fields_;
};

// A connection to a gradwire server. Calls throw Error.
class Client {
 public:
  // If the token is empty, it is not sent. If there are no trusted certificates, the connection is not encrypted.
  Client(const std::string& address, std::string token, const std::string& certificates);

  // Waits until the server can be reached, and returns false if it cannot.
  bool WaitForConnected(int seconds);

  v1::Job CreateJob(const v1::CreateJobRequest& request);
  v1::Job GetJob(const std::string& name);
  v1::ListJobsResponse ListJobs(const v1::ListJobsRequest& request);
  void DeleteJob(const std::string& name, bool allow_missing);
  v1::FindMissingTensorsResponse FindMissingTensors(const v1::FindMissingTensorsRequest& request);
  v1::Model GetModel(const std::string& name);
  v1::PredictResponse Predict(const v1::PredictRequest& request);
  void DeleteModel(const std::string& name, bool allow_missing);

  // Sends the tensors that the server does not have. If an upload was interrupted, in this run or in an earlier run, it
  // continues with the first missing byte.
  void Upload(const std::vector<std::pair<v1::TensorRef, std::string>>& contents);

  // Uploads a tensor, starting at an offset.
  void Send(const v1::TensorRef& tensor, const std::string& data, std::int64_t offset);

  // Passes a job's events after a sequence number to a handler. Ends when the job ends or the handler returns
  // false. If the connection breaks, this function reconnects and continues after the last event.
  void Watch(const std::string& job, std::int64_t after, const std::function<bool(const v1::Event&)>& handler);

  // Downloads the rest of a model file, appends it to the bytes that have already arrived, and checks the digest of the
  // whole file. If the connection breaks, this function reconnects and continues at the next byte.
  void Download(const std::string& model, std::string& file);

 private:
  std::unique_ptr<grpc::ClientContext> NewContext() const;

  // Makes a unary call, and retries it while the server is unavailable. gRPC's retry policy is not sufficient, because
  // it does not retry a call if the connection breaks while the response arrives.
  template <typename Stub, typename Request, typename Response>
  Response Call(const std::unique_ptr<Stub>& stub,
                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                const Request& request);

  std::string token_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::TrainingService::Stub> training_;
  std::unique_ptr<v1::TensorService::Stub> tensors_;
  std::unique_ptr<v1::ModelService::Stub> models_;
};

// A reference to a byte tensor, which consists of its type, its shape and its digest.
v1::TensorRef Reference(const std::string& data, const std::vector<std::int64_t>& shape);

}  // namespace gradwire::example
