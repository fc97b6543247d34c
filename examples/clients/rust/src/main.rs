//! Trains a network on a gradwire server, and checks that the server follows the protocol. Usage: digits FOLDER JOB
//!
//! FOLDER contains inputs.bin (64 bytes for each image) and targets.bin (one byte for each image). The environment
//! variables GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA specify the server. GRADWIRE_CA names a file of
//! trusted certificates and turns on TLS.
//!
//! You can reuse the code in client.rs in other programs.

mod client;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::{env, error::Error, fs, path::Path, process::ExitCode};

use tonic::{Code, Status};
use tonic_health::pb::{health_check_response::ServingStatus, health_client::HealthClient, HealthCheckRequest};

use client::v1::*;
use client::{describe, fields, reason, reference, Client};

const FEATURES: usize = 64;
const EPOCHS: i32 = 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The state that the checks share.
struct Digits {
    client: Client,
    inputs: Vec<u8>,
    targets: Vec<u8>,
    dataset: Dataset,
    job_id: String,
    job: String,
    model: String,
    file: Vec<u8>,
}

macro_rules! run {
    ($digits:ident: $($check:ident),*) => {
        $($digits.$check().await?; println!("ok {}", stringify!($check).replace('_', "-"));)*
    };
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, job_id] = arguments.as_slice() else {
        eprintln!("usage: digits FOLDER JOB");
        return ExitCode::from(2);
    };
    match run(Path::new(folder), job_id).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.downcast_ref::<Status>().map_or_else(|| error.to_string(), describe));
            ExitCode::FAILURE
        }
    }
}

async fn run(folder: &Path, job_id: &str) -> Outcome<()> {
    let inputs = fs::read(folder.join("inputs.bin"))?;
    let targets = fs::read(folder.join("targets.bin"))?;
    let dataset = Dataset {
        inputs: Some(reference(&inputs, &[targets.len(), FEATURES])),
        targets: Some(reference(&targets, &[targets.len()])),
    };
    let client = connect(&env::var("GRADWIRE_TOKEN").unwrap_or_default())?;
    let (job, model, file) = Default::default();
    let mut digits = Digits { client, inputs, targets, dataset, job_id: job_id.into(), job, model, file };
    run!(digits: connect, unauthenticated, not_found, bad_request, error_metadata, upload, validate_only, create);
    run!(digits: labels_filter, watch, download, download_from_offset, predict, delete);
    Ok(())
}

fn connect(token: &str) -> Outcome<Client> {
    let address = env::var("GRADWIRE_ADDRESS").unwrap_or("localhost:50051".into());
    let certificates = match env::var("GRADWIRE_CA") {
        Ok(path) if !path.is_empty() => Some(fs::read(path)?),
        _ => None,
    };
    Client::new(&address, token, certificates)
}

impl Digits {
    async fn connect(&self) -> Outcome<()> {
        let health = HealthClient::new(self.client.channel.clone()).check(HealthCheckRequest::default()).await?;
        expect(health.into_inner().status() == ServingStatus::Serving, "the server is not ready")
    }

    async fn unauthenticated(&self) -> Outcome<()> {
        if env::var("GRADWIRE_TOKEN").is_ok_and(|token| !token.is_empty()) {
            let stranger = connect("not the token")?;
            expect_error(stranger.get_job(get_job("jobs/any")).await, Code::Unauthenticated, "INVALID_TOKEN")?;
        }
        Ok(())
    }

    async fn not_found(&self) -> Outcome<()> {
        let result = self.client.get_job(get_job("jobs/nobody")).await;
        expect_error(result, Code::NotFound, "JOB_NOT_FOUND")?;
        Ok(())
    }

    async fn bad_request(&self) -> Outcome<()> {
        let wrong = JobSpec { batch_size: 0, ..self.spec() };
        let job = Some(Job { spec: Some(wrong), ..Default::default() });
        let result = self.client.create_job(CreateJobRequest { job, ..Default::default() }).await;
        let refused = expect_error(result, Code::InvalidArgument, "INVALID_FIELDS")?;
        let fields = fields(&refused);
        expect(fields == ["job.spec.batch_size"], &format!("the server refused the fields {fields:?}"))
    }

    async fn error_metadata(&self) -> Outcome<()> {
        let result =
            self.client.get_model(GetModelRequest { name: "models/nobody".into(), ..Default::default() }).await;
        let missing = expect_error(result, Code::NotFound, "MODEL_NOT_FOUND")?;
        expect_metadata(&missing, &[("model", "models/nobody")])?;
        let unknown = format!("a tensor of {}", self.job_id).into_bytes();
        let result = self.client.send(&reference(&unknown, &[unknown.len()]), &unknown, 5).await;
        let refused = expect_error(result, Code::OutOfRange, "OFFSET_OUT_OF_RANGE")?;
        expect_metadata(&refused, &[("offset", "5"), ("received_bytes", "0")])
    }

    async fn upload(&self) -> Outcome<()> {
        // The server already has the data if another client uploaded it, but it does not have this tensor.
        let own = [self.inputs.as_slice(), self.job_id.as_bytes()].concat();
        let contents: [(TensorRef, &[u8]); 3] = [
            (self.dataset.inputs.clone().unwrap_or_default(), &self.inputs),
            (self.dataset.targets.clone().unwrap_or_default(), &self.targets),
            (reference(&own, &[own.len()]), &own),
        ];
        self.client.upload(&contents).await?;
        let tensors = contents.map(|(tensor, _)| tensor).to_vec();
        let missing = self
            .client
            .find_missing_tensors(FindMissingTensorsRequest { tensors, ..Default::default() })
            .await?
            .missing;
        expect(missing.is_empty(), "tensors are missing after their upload")
    }

    fn spec(&self) -> JobSpec {
        let linear = |outputs| layer::Kind::Linear(Linear { out_features: outputs, ..Default::default() });
        let layer = |name: &str, kind| Layer { name: name.into(), kind: Some(kind), ..Default::default() };
        let layers =
            vec![layer("fc1", linear(32)), layer("relu1", layer::Kind::Relu(Relu {})), layer("fc2", linear(10))];
        JobSpec {
            model: Some(ModelSpec { layers, ..Default::default() }),
            loss: Some(Loss { kind: Some(loss::Kind::CrossEntropy(CrossEntropy::default())), ..Default::default() }),
            optimizer: Some(Optimizer {
                kind: Some(optimizer::Kind::Sgd(Sgd { learning_rate: 0.005, ..Default::default() })),
                ..Default::default()
            }),
            train: Some(self.dataset.clone()),
            epochs: EPOCHS,
            batch_size: 16,
            shuffle: true,
            seed: 7,
            device: Device::Cpu.into(),
            ..Default::default()
        }
    }

    /// The request that creates the job. Because of its request_id, the request can be repeated safely.
    fn request(&self) -> CreateJobRequest {
        let labels = HashMap::from([("example", "digits"), ("client", &self.job_id)]);
        let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        CreateJobRequest {
            job: Some(Job { spec: Some(self.spec()), labels, ..Default::default() }),
            job_id: self.job_id.clone(),
            request_id: format!("request-{}", self.job_id),
            ..Default::default()
        }
    }

    async fn validate_only(&self) -> Outcome<()> {
        let validated = self.client.create_job(CreateJobRequest { validate_only: true, ..self.request() }).await?;
        expect(validated.name.is_empty(), &format!("the job has the name {}", validated.name))?;
        let layers = validated.spec.and_then(|spec| spec.model).map(|model| model.layers).unwrap_or_default();
        let width = match layers.first().and_then(|layer| layer.kind.as_ref()) {
            Some(layer::Kind::Linear(linear)) => linear.in_features as usize,
            _ => 0,
        };
        expect(width == FEATURES, &format!("the first layer has {width} inputs"))?;
        let result = self.client.get_job(get_job(&format!("jobs/{}", self.job_id))).await;
        expect_error(result, Code::NotFound, "JOB_NOT_FOUND")?;
        Ok(())
    }

    /// Sends the same request twice, as a client would if it did not receive the response.
    async fn create(&mut self) -> Outcome<()> {
        self.job = self.client.create_job(self.request()).await?.name;
        let again = self.client.create_job(self.request()).await?.name;
        expect(self.job == again, &format!("the same request created {} and {again}", self.job))
    }

    async fn labels_filter(&self) -> Outcome<()> {
        let found = self.jobs_of(&self.job_id).await?;
        let [job] = found.as_slice() else { return Err(format!("the filter found {found:?}").into()) };
        expect(job.name == self.job, &format!("the filter found {}", job.name))?;
        let basic = job.spec.is_none() && job.architecture == "64-32-10";
        expect(basic, "the list does not have the basic view")?;
        expect(self.jobs_of("nobody").await?.is_empty(), "the filter found another job")
    }

    async fn jobs_of(&self, label: &str) -> Result<Vec<Job>, Status> {
        let filter = format!("labels.example = \"digits\" AND labels.client = \"{label}\"");
        Ok(self.client.list_jobs(ListJobsRequest { filter, ..Default::default() }).await?.jobs)
    }

    /// Follows the job until it ends. Interrupts the watch after the first epoch, and continues with the next event.
    async fn watch(&self) -> Outcome<()> {
        let (mut sequences, mut epochs, mut state) = (Vec::new(), Vec::new(), JobState::Unspecified);
        for last in [1, EPOCHS + 1] {
            let after = sequences.last().copied().unwrap_or_default();
            let handler = |event: &Event| {
                sequences.push(event.sequence);
                match &event.kind {
                    Some(event::Kind::StateChange(change)) => state = change.state(),
                    Some(event::Kind::Epoch(epoch)) => {
                        epochs.push(epoch.epoch);
                        let train = epoch.train.unwrap_or_default();
                        println!("epoch {}: loss {:.4}, accuracy {:.4}", epoch.epoch, train.loss, train.accuracy());
                    }
                    _ => {}
                }
                if epochs.last() == Some(&last) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            self.client.watch(&self.job, after, handler).await?;
        }
        expect(sequences.iter().copied().eq(1..=sequences.len() as i64), &format!("the events are {sequences:?}"))?;
        expect(epochs.iter().copied().eq(1..=EPOCHS), &format!("the epochs are {epochs:?}"))?;
        expect(state == JobState::Succeeded, &format!("the job is {state:?}"))
    }

    async fn download(&mut self) -> Outcome<()> {
        self.model = self.client.get_job(get_job(&self.job)).await?.model;
        Ok(self.client.download(&self.model, &mut self.file).await?)
    }

    /// Continues a download after the first half of the file has arrived.
    async fn download_from_offset(&self) -> Outcome<()> {
        let mut file = self.file[..self.file.len() / 2].to_vec();
        self.client.download(&self.model, &mut file).await?;
        file.push(0);
        let result = self.client.download(&self.model, &mut file).await;
        let refused = expect_error(result, Code::OutOfRange, "OFFSET_OUT_OF_RANGE")?;
        expect_metadata(&refused, &[("size_bytes", &self.file.len().to_string())])
    }

    async fn predict(&self) -> Outcome<()> {
        let shape = vec![self.targets.len() as i64, FEATURES as i64];
        let inputs =
            Some(Tensor { dtype: DataType::Uint8.into(), shape, data: self.inputs.clone(), ..Default::default() });
        let response =
            self.client.predict(PredictRequest { name: self.model.clone(), inputs, ..Default::default() }).await?;
        let data = response.outputs.unwrap_or_default().data;
        let logits: Vec<f32> =
            data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        let right = logits
            .chunks_exact(logits.len() / self.targets.len())
            .zip(&self.targets)
            .filter(|(row, &target)| {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                best.is_some_and(|(class, _)| class == target as usize)
            })
            .count();
        let rows = self.targets.len();
        expect(right as f64 > 0.9 * rows as f64, &format!("only {right} of {rows} predictions are right"))?;
        let model = self.client.get_model(GetModelRequest { name: self.model.clone(), ..Default::default() }).await?;
        println!("weights {}", model.weights.unwrap_or_default().sha256);
        Ok(())
    }

    /// Deletes the job and its model twice, as a client would if it did not receive the response.
    async fn delete(&self) -> Outcome<()> {
        for _ in 0..2 {
            self.client
                .delete_job(DeleteJobRequest { name: self.job.clone(), allow_missing: true, ..Default::default() })
                .await?;
            self.client
                .delete_model(DeleteModelRequest {
                    name: self.model.clone(),
                    allow_missing: true,
                    ..Default::default()
                })
                .await?;
        }
        let request = DeleteJobRequest { name: self.job.clone(), allow_missing: false, ..Default::default() };
        expect_error(self.client.delete_job(request).await, Code::NotFound, "JOB_NOT_FOUND")?;
        Ok(())
    }
}

fn get_job(name: &str) -> GetJobRequest {
    GetJobRequest { name: name.into(), ..Default::default() }
}

/// Checks that a call failed with the given code and reason, prints the error, and returns it.
fn expect_error<T>(result: Result<T, Status>, code: Code, expected: &str) -> Outcome<Status> {
    let Err(status) = result else { return Err("a call succeeded that must fail".into()) };
    println!("{}", describe(&status));
    let matches = status.code() == code && reason(&status).0 == expected;
    expect(matches, &format!("expected {code:?} {expected}, got {}", describe(&status)))?;
    Ok(status)
}

fn expect_metadata(status: &Status, expected: &[(&str, &str)]) -> Outcome<()> {
    let metadata: BTreeMap<String, String> = reason(status).1;
    let holds = expected.iter().all(|(key, value)| metadata.get(*key).map(String::as_str) == Some(*value));
    expect(holds, &format!("expected {expected:?}, the metadata is {metadata:?}"))
}

fn expect(holds: bool, otherwise: &str) -> Outcome<()> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.into())
    }
}
