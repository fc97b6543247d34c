//! Trains a network on a gradwire server, and knows nothing of it but the .proto files: digits FOLDER JOB
//!
//! FOLDER holds inputs.bin (bytes, 64 for each picture) and targets.bin (a byte for each). GRADWIRE_ADDRESS,
//! GRADWIRE_TOKEN and GRADWIRE_CA (a file of certificates; turns TLS on) say where the server is.

use std::{env, error::Error, fs, path::Path, process::ExitCode};

use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};
use tonic_health::pb::{health_check_response::ServingStatus, health_client::HealthClient, HealthCheckRequest};
use tonic_types::StatusExt;

#[allow(clippy::all)]
mod v1 {
    tonic::include_proto!("gradwire.v1");
}
use v1::dataset_service_client::DatasetServiceClient;
use v1::model_service_client::ModelServiceClient;
use v1::training_service_client::TrainingServiceClient;
use v1::*;

const FEATURES: usize = 64;
const CHUNK_BYTES: usize = 16 << 10;
const EPOCHS: i32 = 20;

type Outcome<T> = Result<T, Box<dyn Error>>;
type Authorized = InterceptedService<Channel, Token>;

/// Sends the token with each call.
#[derive(Clone)]
struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    fn new(token: &str) -> Outcome<Self> {
        let header = (!token.is_empty()).then(|| format!("Bearer {token}").parse());
        Ok(Self(header.transpose()?))
    }
}

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, job] = arguments.as_slice() else {
        eprintln!("usage: digits FOLDER JOB");
        return ExitCode::from(2);
    };
    match run(Path::new(folder), job).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(folder: &Path, job: &str) -> Outcome<()> {
    let channel = connect().await?;
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await?;
    expect(health.into_inner().status() == ServingStatus::Serving, "the server is not ready")?;
    passed("connect");

    let token = Token::new(&env::var("GRADWIRE_TOKEN").unwrap_or_default())?;
    check_errors(&channel, &token).await?;
    let inputs = fs::read(folder.join("inputs.bin"))?;
    let targets = fs::read(folder.join("targets.bin"))?;
    let dataset = Dataset {
        inputs: Some(reference(&inputs, &[targets.len(), FEATURES])),
        targets: Some(reference(&targets, &[targets.len()])),
    };
    let datasets = DatasetServiceClient::with_interceptor(channel.clone(), token.clone());
    upload(datasets, &dataset, &inputs, &targets).await?;
    let mut training = TrainingServiceClient::with_interceptor(channel.clone(), token.clone());
    let created = create(&mut training, dataset, job).await?;
    watch(&mut training, &created.name).await?;
    let model = training.get_job(GetJobRequest { name: created.name }).await?.into_inner().model;
    let mut models = ModelServiceClient::with_interceptor(channel, token);
    download(&mut models, &model).await?;
    predict(&mut models, &model, inputs, &targets).await?;
    let weights = models.get_model(GetModelRequest { name: model }).await?.into_inner().weights;
    println!("weights {}", weights.unwrap_or_default().sha256);
    Ok(())
}

/// Opens a channel: with TLS where there is a file of certificates.
async fn connect() -> Outcome<Channel> {
    let address = env::var("GRADWIRE_ADDRESS").unwrap_or("localhost:50051".into());
    Ok(match env::var("GRADWIRE_CA") {
        Ok(path) if !path.is_empty() => {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(fs::read(path)?));
            Channel::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?
        }
        _ => Channel::from_shared(format!("http://{address}"))?.connect().await?,
    })
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn reference(data: &[u8], shape: &[usize]) -> TensorRef {
    TensorRef {
        dtype: DataType::Uint8.into(),
        shape: shape.iter().map(|&size| size as i64).collect(),
        sha256: digest(data),
    }
}

/// Sends what the server does not have yet, each tensor from where an earlier upload broke off.
async fn upload(
    mut datasets: DatasetServiceClient<Authorized>,
    dataset: &Dataset,
    inputs: &[u8],
    targets: &[u8],
) -> Outcome<()> {
    let tensors: Vec<TensorRef> = [&dataset.inputs, &dataset.targets].into_iter().flatten().cloned().collect();
    let request = FindMissingTensorsRequest { tensors };
    for missing in datasets.find_missing_tensors(request.clone()).await?.into_inner().missing {
        let tensor = missing.tensor.unwrap_or_default();
        let data = if Some(&tensor) == dataset.inputs.as_ref() { inputs } else { targets };
        let header = UploadHeader { tensor: Some(tensor), offset: missing.received_bytes };
        let rest = data[missing.received_bytes as usize..].chunks(CHUNK_BYTES).map(<[u8]>::to_vec);
        let parts = std::iter::once(upload_tensor_request::Part::Header(header))
            .chain(rest.map(upload_tensor_request::Part::Chunk))
            .map(|part| UploadTensorRequest { part: Some(part) })
            .collect::<Vec<_>>();
        datasets.upload_tensor(tokio_stream::iter(parts)).await?;
    }
    let left = datasets.find_missing_tensors(request).await?.into_inner().missing;
    expect(left.is_empty(), "tensors are missing after their upload")?;
    passed("upload");
    Ok(())
}

fn spec(dataset: Dataset) -> JobSpec {
    let linear = |outputs| layer::Kind::Linear(Linear { out_features: outputs, ..Default::default() });
    let layer = |name: &str, kind| Layer { name: name.into(), kind: Some(kind) };
    let layers = vec![
        layer("fc1", linear(32)),
        layer("relu1", layer::Kind::Relu(Relu {})),
        layer("fc2", linear(10)),
    ];
    JobSpec {
        model: Some(ModelSpec { layers }),
        loss: Some(Loss { kind: Some(loss::Kind::CrossEntropy(CrossEntropy::default())) }),
        optimizer: Some(Optimizer { kind: Some(optimizer::Kind::Sgd(Sgd { learning_rate: 0.005 })) }),
        train: Some(dataset),
        epochs: EPOCHS,
        batch_size: 16,
        shuffle: true,
        seed: 7,
        device: Device::Cpu.into(),
        ..Default::default()
    }
}

/// Sends the same request twice, as after a lost answer: it makes one job.
async fn create(training: &mut TrainingServiceClient<Authorized>, dataset: Dataset, job: &str) -> Outcome<Job> {
    let request = CreateJobRequest {
        job: Some(Job { spec: Some(spec(dataset)), ..Default::default() }),
        job_id: job.into(),
        request_id: format!("request-{job}"),
        ..Default::default()
    };
    let first = training.create_job(request.clone()).await?.into_inner();
    let second = training.create_job(request).await?.into_inner();
    expect(first.name == second.name, "the same request made another job")?;
    passed("create");
    Ok(first)
}

/// Follows the job to its end, breaks off after its first epoch, and goes on where it was.
async fn watch(training: &mut TrainingServiceClient<Authorized>, name: &str) -> Outcome<()> {
    let (mut sequence, mut epochs, mut state) = (0, 0, JobState::Unspecified);
    for most in [1, i32::MAX] {
        let request = WatchJobRequest { name: name.into(), after_sequence: sequence };
        let mut stream = training.watch_job(request).await?.into_inner();
        while epochs < most {
            let Some(response) = stream.message().await? else { break };
            for event in response.events {
                let number = event.sequence;
                expect(number == sequence + 1, &format!("event {number} came after event {sequence}"))?;
                sequence = number;
                match event.kind {
                    Some(event::Kind::StateChange(change)) => state = change.state(),
                    Some(event::Kind::Epoch(epoch)) => {
                        epochs += 1;
                        expect(epoch.epoch == epochs, &format!("epoch {} came as number {epochs}", epoch.epoch))?;
                        let train = epoch.train.unwrap_or_default();
                        println!("epoch {epochs}: loss {:.4}, accuracy {:.4}", train.loss, train.accuracy());
                    }
                    _ => {}
                }
            }
        } // Leaving here drops the stream, which cancels it.
    }
    let ended = epochs == EPOCHS && state == JobState::Succeeded;
    expect(ended, &format!("the job ended as {state:?} after {epochs} epochs"))?;
    passed("watch");
    Ok(())
}

async fn download(models: &mut ModelServiceClient<Authorized>, name: &str) -> Outcome<()> {
    let request = DownloadModelRequest { name: name.into(), ..Default::default() };
    let mut stream = models.download_model(request).await?.into_inner();
    let (mut expected, mut file) = (String::new(), Vec::new());
    while let Some(response) = stream.message().await? {
        match response.part {
            Some(download_model_response::Part::Header(header)) => expected = header.sha256,
            Some(download_model_response::Part::Chunk(chunk)) => file.extend(chunk),
            None => {}
        }
    }
    expect(digest(&file) == expected, "the downloaded file does not have its digest")?;
    passed("download");
    Ok(())
}

async fn predict(
    models: &mut ModelServiceClient<Authorized>,
    name: &str,
    inputs: Vec<u8>,
    targets: &[u8],
) -> Outcome<()> {
    let shape = vec![targets.len() as i64, FEATURES as i64];
    let tensor = Tensor { dtype: DataType::Uint8.into(), shape, data: inputs };
    let request = PredictRequest { name: name.into(), inputs: Some(tensor) };
    let outputs = models.predict(request).await?.into_inner().outputs.unwrap_or_default();
    let logits: Vec<f32> =
        outputs.data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    let right = logits
        .chunks_exact(logits.len() / targets.len())
        .zip(targets)
        .filter(|(row, &target)| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.is_some_and(|(class, _)| class == target as usize)
        })
        .count();
    let enough = right as f64 > 0.9 * targets.len() as f64;
    expect(enough, &format!("only {right} of {} predictions are right", targets.len()))?;
    passed("predict");
    Ok(())
}

/// Makes three mistakes and reads what the server says of each.
async fn check_errors(channel: &Channel, token: &Token) -> Outcome<()> {
    let nobody = GetJobRequest { name: "jobs/nobody".into() };
    if token.0.is_some() {
        let mut stranger = TrainingServiceClient::with_interceptor(channel.clone(), Token::new("not the token")?);
        failure(stranger.get_job(nobody.clone()).await, Code::Unauthenticated)?;
    }
    passed("unauthenticated");

    let mut training = TrainingServiceClient::with_interceptor(channel.clone(), token.clone());
    let missing = failure(training.get_job(nobody).await, Code::NotFound)?;
    let reason = missing.get_details_error_info().map(|info| info.reason);
    expect(reason.as_deref() == Some("NOT_FOUND"), &format!("the reason is {reason:?}"))?;
    passed("not-found");

    let tiny = Dataset { inputs: Some(reference(&[0], &[1, 1])), targets: Some(reference(&[0], &[1])) };
    let wrong = JobSpec { batch_size: 0, ..spec(tiny) };
    let request = CreateJobRequest { job: Some(Job { spec: Some(wrong), ..Default::default() }), ..Default::default() };
    let refused = failure(training.create_job(request).await, Code::InvalidArgument)?;
    let violations = refused.get_details_bad_request().map(|detail| detail.field_violations).unwrap_or_default();
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    expect(fields == ["job.spec.batch_size"], &format!("the fields refused are {fields:?}"))?;
    passed("bad-request");
    Ok(())
}

fn failure<T>(outcome: Result<T, Status>, code: Code) -> Outcome<Status> {
    match outcome {
        Err(status) if status.code() == code => Ok(status),
        Err(status) => Err(format!("expected {code:?}, got {status}").into()),
        Ok(_) => Err("a call that must fail did not".into()),
    }
}

fn expect(holds: bool, otherwise: &str) -> Outcome<()> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.into())
    }
}

fn passed(check: &str) {
    println!("ok {check}");
}
