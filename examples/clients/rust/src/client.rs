//! A client for gradwire servers that uses tonic. The messages in `v1` are generated from the .proto files.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

#[allow(clippy::all)]
pub mod v1 {
    tonic::include_proto!("gradwire.v1");
}
use v1::model_service_client::ModelServiceClient;
use v1::tensor_service_client::TensorServiceClient;
use v1::training_service_client::TrainingServiceClient;
use v1::*;

// The chunks are small, so that even the small data in this example needs several chunks. For real data, use 1 MiB.
const CHUNK_BYTES: usize = 16 << 10;
const MAX_ATTEMPTS: u32 = 8;

type Authorized = InterceptedService<Channel, Token>;

/// Sends the token with every call.
#[derive(Clone)]
struct Token(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

/// A connection to a gradwire server and the services on it.
pub struct Client {
    pub channel: Channel,
    training: TrainingServiceClient<Authorized>,
    tensors: TensorServiceClient<Authorized>,
    models: ModelServiceClient<Authorized>,
}

/// Defines methods for unary calls. The methods retry a call while the server is unavailable.
macro_rules! unary {
    ($($service:ident.$method:ident($request:ty) -> $response:ty;)*) => {
        impl Client {
            $(pub async fn $method(&self, request: $request) -> Result<$response, Status> {
                let mut backoff = Backoff::default();
                loop {
                    match self.$service.clone().$method(request.clone()).await {
                        Ok(response) => return Ok(response.into_inner()),
                        Err(status) => backoff.wait(status).await?,
                    }
                }
            })*
        }
    };
}

unary! {
    training.create_job(CreateJobRequest) -> Job;
    training.get_job(GetJobRequest) -> Job;
    training.list_jobs(ListJobsRequest) -> ListJobsResponse;
    training.delete_job(DeleteJobRequest) -> ();
    tensors.find_missing_tensors(FindMissingTensorsRequest) -> FindMissingTensorsResponse;
    models.get_model(GetModelRequest) -> Model;
    models.predict(PredictRequest) -> PredictResponse;
    models.delete_model(DeleteModelRequest) -> ();
}

impl Client {
    /// Prepares a connection, which the first call opens. If the token is empty, it is not sent. If there are no
    /// trusted certificates, the connection is not encrypted.
    pub fn new(address: &str, token: &str, certificates: Option<Vec<u8>>) -> Result<Self, Box<dyn Error>> {
        let channel = match certificates {
            Some(pem) => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                Channel::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect_lazy()
            }
            None => Channel::from_shared(format!("http://{address}"))?.connect_lazy(),
        };
        let header = (!token.is_empty()).then(|| format!("Bearer {token}").parse());
        let token = Token(header.transpose()?);
        Ok(Self {
            training: TrainingServiceClient::with_interceptor(channel.clone(), token.clone()),
            tensors: TensorServiceClient::with_interceptor(channel.clone(), token.clone()),
            models: ModelServiceClient::with_interceptor(channel.clone(), token),
            channel,
        })
    }

    /// Sends the tensors that the server does not have. If an upload was interrupted, in this run or in an earlier run,
    /// it continues with the first missing byte.
    pub async fn upload(&self, contents: &[(TensorRef, &[u8])]) -> Result<(), Status> {
        let tensors = contents.iter().map(|(tensor, _)| tensor.clone()).collect();
        let request = FindMissingTensorsRequest { tensors, ..Default::default() };
        let mut backoff = Backoff::default();
        loop {
            match self.send_missing(&request, contents).await {
                Ok(()) => return Ok(()),
                Err(status) => backoff.wait(status).await?,
            }
        }
    }

    async fn send_missing(
        &self,
        request: &FindMissingTensorsRequest,
        contents: &[(TensorRef, &[u8])],
    ) -> Result<(), Status> {
        for missing in self.find_missing_tensors(request.clone()).await?.missing {
            let found = contents.iter().find(|(tensor, _)| Some(tensor) == missing.tensor.as_ref());
            let (tensor, data) = found.ok_or_else(|| Status::internal("a tensor is missing that nobody asked for"))?;
            self.send(tensor, data, missing.received_bytes).await?;
        }
        Ok(())
    }

    /// Uploads a tensor, starting at an offset.
    pub async fn send(&self, tensor: &TensorRef, data: &[u8], offset: i64) -> Result<(), Status> {
        let header = UploadHeader { tensor: Some(tensor.clone()), offset, ..Default::default() };
        let chunks = data[offset as usize..].chunks(CHUNK_BYTES).map(<[u8]>::to_vec);
        let parts = std::iter::once(upload_tensor_request::Part::Header(header))
            .chain(chunks.map(upload_tensor_request::Part::Chunk))
            .map(|part| UploadTensorRequest { part: Some(part), ..Default::default() })
            .collect::<Vec<_>>();
        self.tensors.clone().upload_tensor(tokio_stream::iter(parts)).await?;
        Ok(())
    }

    /// Passes a job's events after a sequence number to a handler. Ends when the job ends or the handler breaks.
    /// If the connection breaks, this function reconnects and continues after the last event.
    pub async fn watch(
        &self,
        job: &str,
        mut after: i64,
        mut handler: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let mut backoff = Backoff::default();
        loop {
            let request = WatchJobRequest { name: job.into(), after_sequence: after, ..Default::default() };
            let followed = async {
                let mut stream = self.training.clone().watch_job(request).await?.into_inner();
                while let Some(response) = stream.message().await? {
                    for event in &response.events {
                        after = event.sequence;
                        backoff.reset();
                        if handler(event).is_break() {
                            return Ok(()); // Dropping the stream cancels the call.
                        }
                    }
                }
                Ok(())
            };
            match followed.await {
                Ok(()) => return Ok(()),
                Err(status) => backoff.wait(status).await?,
            }
        }
    }

    /// Downloads the rest of a model file, appends it to the bytes that have already arrived, and checks the digest of
    /// the whole file. If the connection breaks, this function reconnects and continues at the next byte.
    pub async fn download(&self, model: &str, file: &mut Vec<u8>) -> Result<(), Status> {
        let mut expected = String::new();
        let mut backoff = Backoff::default();
        loop {
            let arrived = file.len();
            match self.receive(model, file, &mut expected).await {
                Ok(()) if sha256(file) == expected => return Ok(()),
                Ok(()) => return Err(Status::data_loss("the file does not have the digest of its header")),
                Err(status) => {
                    if file.len() > arrived {
                        backoff.reset();
                    }
                    backoff.wait(status).await?;
                }
            }
        }
    }

    async fn receive(&self, model: &str, file: &mut Vec<u8>, expected: &mut String) -> Result<(), Status> {
        let offset = file.len() as i64;
        let request = DownloadModelRequest { name: model.into(), offset, ..Default::default() };
        let mut stream = self.models.clone().download_model(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            match response.part {
                Some(download_model_response::Part::Header(header)) => {
                    if !expected.is_empty() && header.sha256 != *expected {
                        return Err(Status::data_loss("the model changed during the download"));
                    }
                    *expected = header.sha256;
                }
                Some(download_model_response::Part::Chunk(chunk)) => file.extend(chunk),
                None => {}
            }
        }
        Ok(())
    }
}

/// Waits between attempts, and increases the delay each time.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }

    /// If the error is temporary, waits and returns. Otherwise, fails with the status.
    async fn wait(&mut self, status: Status) -> Result<(), Status> {
        self.failures += 1;
        // tonic reports a broken connection with one of several codes, but the status then has a source.
        let unavailable = status.code() == Code::Unavailable || status.source().is_some();
        if !unavailable || self.failures == MAX_ATTEMPTS {
            return Err(status);
        }
        tokio::time::sleep(Duration::from_millis(50 << self.failures)).await;
        Ok(())
    }
}

/// A reference to a byte tensor, which consists of its type, its shape and its digest.
pub fn reference(data: &[u8], shape: &[usize]) -> TensorRef {
    TensorRef {
        dtype: DataType::Uint8.into(),
        shape: shape.iter().map(|&size| size as i64).collect(),
        sha256: sha256(data),
    }
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reason of an error, for example "JOB_NOT_FOUND", and its metadata.
pub fn reason(status: &Status) -> (String, BTreeMap<String, String>) {
    let info = status.get_details_error_info();
    info.map(|info| (info.reason, info.metadata.into_iter().collect())).unwrap_or_default()
}

/// The paths of the invalid fields, if the error lists any.
pub fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|detail| detail.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// A complete description of an error, in one line.
pub fn describe(status: &Status) -> String {
    let (reason, metadata) = reason(status);
    let values: String = metadata.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    format!("{:?} {reason}: {}{values}", status.code(), status.message())
}
