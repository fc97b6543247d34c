// Command digits trains a network on a gradwire server, and checks that the server follows the protocol.
//
//	digits FOLDER JOB
//
// FOLDER contains inputs.bin (64 bytes for each image) and targets.bin (one byte for each image). The environment
// variables GRADWIRE_ADDRESS, GRADWIRE_TOKEN and GRADWIRE_CA specify the server. GRADWIRE_CA names a file of
// trusted certificates and turns on TLS.
//
// You can reuse the code in client.go in other programs.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	gw "gradwire.dev/proto/gradwire/v1"
)

const (
	features = 64
	epochs   = 20
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: digits FOLDER JOB")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		if _, ok := status.FromError(err); ok {
			log.Fatal(Describe(err))
		}
		log.Fatal(err)
	}
}

// digits contains the state that the checks share.
type digits struct {
	*Client
	inputs, targets []byte
	dataset         *gw.Dataset
	jobID           string
	job, model      string
	file            []byte
}

func run(ctx context.Context, folder, jobID string) error {
	client, err := Connect(os.Getenv("GRADWIRE_ADDRESS"), os.Getenv("GRADWIRE_TOKEN"), os.Getenv("GRADWIRE_CA"))
	if err != nil {
		return err
	}
	defer client.Close()
	inputs, err := os.ReadFile(filepath.Join(folder, "inputs.bin"))
	if err != nil {
		return err
	}
	targets, err := os.ReadFile(filepath.Join(folder, "targets.bin"))
	if err != nil {
		return err
	}
	rows := int64(len(targets))
	dataset := &gw.Dataset{Inputs: Reference(inputs, rows, features), Targets: Reference(targets, rows)}
	d := &digits{Client: client, inputs: inputs, targets: targets, dataset: dataset, jobID: jobID}
	checks := []struct {
		name string
		run  func(context.Context) error
	}{
		{"connect", d.connect},
		{"unauthenticated", d.unauthenticated},
		{"not-found", d.notFound},
		{"bad-request", d.badRequest},
		{"error-metadata", d.errorMetadata},
		{"upload", d.upload},
		{"validate-only", d.validateOnly},
		{"create", d.create},
		{"labels-filter", d.labelsFilter},
		{"watch", d.watch},
		{"download", d.download},
		{"download-from-offset", d.downloadFromOffset},
		{"predict", d.predict},
		{"early-stopping", d.earlyStopping},
		{"delete", d.delete},
	}
	for _, check := range checks {
		if err := check.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Println("ok", check.name)
	}
	return nil
}

func (d *digits) connect(ctx context.Context) error {
	health, err := grpc_health_v1.NewHealthClient(d).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil && health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the server is %v", health.Status)
	}
	return err
}

func (d *digits) unauthenticated(ctx context.Context) error {
	if os.Getenv("GRADWIRE_TOKEN") == "" {
		return nil
	}
	stranger, err := Connect(os.Getenv("GRADWIRE_ADDRESS"), "not the token", os.Getenv("GRADWIRE_CA"))
	if err != nil {
		return err
	}
	defer stranger.Close()
	_, err = stranger.Training.GetJob(ctx, &gw.GetJobRequest{Name: "jobs/any"})
	_, err = expect(err, codes.Unauthenticated, "INVALID_TOKEN")
	return err
}

func (d *digits) notFound(ctx context.Context) error {
	_, err := d.Training.GetJob(ctx, &gw.GetJobRequest{Name: "jobs/nobody"})
	_, err = expect(err, codes.NotFound, "JOB_NOT_FOUND")
	return err
}

func (d *digits) badRequest(ctx context.Context) error {
	wrong := d.spec()
	wrong.BatchSize = 0
	_, err := d.Training.CreateJob(ctx, &gw.CreateJobRequest{Job: &gw.Job{Spec: wrong}})
	fields := Fields(err)
	if _, err := expect(err, codes.InvalidArgument, "INVALID_FIELDS"); err != nil {
		return err
	}
	if !slices.Equal(fields, []string{"job.spec.batch_size"}) {
		return fmt.Errorf("the server refused the fields %v", fields)
	}
	return nil
}

func (d *digits) errorMetadata(ctx context.Context) error {
	_, err := d.Models.GetModel(ctx, &gw.GetModelRequest{Name: "models/nobody"})
	metadata, err := expect(err, codes.NotFound, "MODEL_NOT_FOUND")
	if err != nil {
		return err
	}
	if metadata["model"] != "models/nobody" {
		return fmt.Errorf("the metadata is %v", metadata)
	}
	unknown := []byte("a tensor of " + d.jobID)
	header := &gw.UploadHeader{Tensor: Reference(unknown, int64(len(unknown))), Offset: 5}
	metadata, err = expect(d.send(ctx, header, unknown[5:]), codes.OutOfRange, "OFFSET_OUT_OF_RANGE")
	if err != nil {
		return err
	}
	if metadata["offset"] != "5" || metadata["received_bytes"] != "0" {
		return fmt.Errorf("the metadata is %v", metadata)
	}
	return nil
}

func (d *digits) upload(ctx context.Context) error {
	// The server already has the data if another client uploaded it, but it does not have this tensor.
	own := slices.Concat(d.inputs, []byte(d.jobID))
	reference := Reference(own, int64(len(own)))
	tensors := map[*gw.TensorRef][]byte{d.dataset.Inputs: d.inputs, d.dataset.Targets: d.targets, reference: own}
	if err := d.Upload(ctx, tensors); err != nil {
		return err
	}
	request := &gw.FindMissingTensorsRequest{Tensors: []*gw.TensorRef{d.dataset.Inputs, d.dataset.Targets, reference}}
	found, err := d.Tensors.FindMissingTensors(ctx, request)
	if err == nil && len(found.Missing) > 0 {
		return fmt.Errorf("tensors are missing after their upload: %v", found)
	}
	return err
}

func (d *digits) spec() *gw.JobSpec {
	linear := func(name string, outputs int64) *gw.Layer {
		return &gw.Layer{Name: name, Kind: &gw.Layer_Linear{Linear: &gw.Linear{OutFeatures: outputs}}}
	}
	relu := &gw.Layer{Name: "relu1", Kind: &gw.Layer_Relu{Relu: &gw.Relu{}}}
	return &gw.JobSpec{
		Model:     &gw.ModelSpec{Layers: []*gw.Layer{linear("fc1", 32), relu, linear("fc2", 10)}},
		Loss:      &gw.Loss{Kind: &gw.Loss_CrossEntropy{CrossEntropy: &gw.CrossEntropy{}}},
		Optimizer: &gw.Optimizer{Kind: &gw.Optimizer_Sgd{Sgd: &gw.Sgd{LearningRate: 0.005}}},
		Train:     d.dataset,
		Epochs:    epochs,
		BatchSize: 16,
		Shuffle:   true,
		Seed:      7,
		Device:    gw.Device_DEVICE_CPU,
	}
}

// request returns the request that creates the job. Because of its request_id, the request can be repeated safely.
func (d *digits) request() *gw.CreateJobRequest {
	labels := map[string]string{"example": "digits", "client": d.jobID}
	job := &gw.Job{Spec: d.spec(), Labels: labels}
	return &gw.CreateJobRequest{Job: job, JobId: d.jobID, RequestId: "request-" + d.jobID}
}

func (d *digits) validateOnly(ctx context.Context) error {
	request := d.request()
	request.ValidateOnly = true
	job, err := d.Training.CreateJob(ctx, request)
	if err != nil {
		return err
	}
	if inputs := job.Spec.Model.Layers[0].GetLinear().InFeatures; job.Name != "" || inputs != features {
		return fmt.Errorf("the job is %q and has %d inputs", job.Name, inputs)
	}
	_, err = d.Training.GetJob(ctx, &gw.GetJobRequest{Name: "jobs/" + d.jobID})
	_, err = expect(err, codes.NotFound, "JOB_NOT_FOUND")
	return err
}

// create sends the same request twice, as a client would if it did not receive the response.
func (d *digits) create(ctx context.Context) error {
	first, err := d.Training.CreateJob(ctx, d.request())
	if err != nil {
		return err
	}
	second, err := d.Training.CreateJob(ctx, d.request())
	if err == nil && second.Name != first.Name {
		return fmt.Errorf("the same request created %s and %s", first.Name, second.Name)
	}
	d.job = first.Name
	return err
}

func (d *digits) labelsFilter(ctx context.Context) error {
	for client, expected := range map[string]int{d.jobID: 1, "nobody": 0} {
		filter := fmt.Sprintf("labels.example = %q AND labels.client = %q", "digits", client)
		found, err := d.Training.ListJobs(ctx, &gw.ListJobsRequest{Filter: filter})
		if err != nil {
			return err
		}
		if len(found.Jobs) != expected {
			return fmt.Errorf("%s found %v", filter, found.Jobs)
		}
		for _, job := range found.Jobs {
			if job.Name != d.job || job.Spec != nil || job.Architecture != "64-32-10" {
				return fmt.Errorf("%s found %v", filter, job)
			}
		}
	}
	return nil
}

// watch follows the job until it ends. It interrupts the watch after the first epoch, and continues with the next
// event.
func (d *digits) watch(ctx context.Context) error {
	var sequence int64
	var epoch int32
	state := gw.JobState_JOB_STATE_UNSPECIFIED
	for _, last := range []int32{1, epochs + 1} {
		for event, err := range d.Watch(ctx, d.job, sequence) {
			if err != nil {
				return err
			}
			if event.Sequence != sequence+1 {
				return fmt.Errorf("event %d came after event %d", event.Sequence, sequence)
			}
			sequence = event.Sequence
			switch kind := event.Kind.(type) {
			case *gw.Event_StateChange:
				state = kind.StateChange.State
			case *gw.Event_Epoch:
				if epoch++; kind.Epoch.Epoch != epoch {
					return fmt.Errorf("epoch %d came as number %d", kind.Epoch.Epoch, epoch)
				}
				fmt.Printf("epoch %d: loss %.4f, accuracy %.4f\n", epoch, kind.Epoch.Train.Loss, *kind.Epoch.Train.Accuracy)
			}
			if epoch == last {
				break
			}
		}
	}
	if epoch != epochs || state != gw.JobState_JOB_STATE_SUCCEEDED {
		return fmt.Errorf("the job is %v after %d epochs", state, epoch)
	}
	return nil
}

func (d *digits) download(ctx context.Context) error {
	job, err := d.Training.GetJob(ctx, &gw.GetJobRequest{Name: d.job})
	if err != nil {
		return err
	}
	d.model = job.Model
	file := &bytes.Buffer{}
	err = d.Download(ctx, d.model, 0, file)
	d.file = file.Bytes()
	return err
}

// downloadFromOffset continues a download after the first half of the file has arrived.
func (d *digits) downloadFromOffset(ctx context.Context) error {
	file := bytes.NewBuffer(slices.Clone(d.file[:len(d.file)/2]))
	if err := d.Download(ctx, d.model, 0, file); err != nil {
		return err
	}
	stream, err := d.Models.DownloadModel(ctx, &gw.DownloadModelRequest{Name: d.model, Offset: int64(len(d.file)) + 1})
	if err == nil {
		_, err = stream.Recv()
	}
	metadata, err := expect(err, codes.OutOfRange, "OFFSET_OUT_OF_RANGE")
	if err == nil && metadata["size_bytes"] != strconv.Itoa(len(d.file)) {
		return fmt.Errorf("the metadata is %v", metadata)
	}
	return err
}

func (d *digits) predict(ctx context.Context) error {
	rows := len(d.targets)
	inputs := &gw.Tensor{Dtype: gw.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(rows), features}, Data: d.inputs}
	response, err := d.Models.Predict(ctx, &gw.PredictRequest{Name: d.model, Inputs: inputs})
	if err != nil {
		return err
	}
	logits := make([]float32, len(response.Outputs.Data)/4)
	if _, err := binary.Decode(response.Outputs.Data, binary.LittleEndian, logits); err != nil {
		return err
	}
	classes, right := len(logits)/rows, 0
	for row, target := range d.targets {
		outputs := logits[row*classes : (row+1)*classes]
		if slices.Index(outputs, slices.Max(outputs)) == int(target) {
			right++
		}
	}
	if accuracy := float64(right) / float64(rows); accuracy < 0.9 {
		return fmt.Errorf("the accuracy is only %.2f", accuracy)
	}
	model, err := d.Models.GetModel(ctx, &gw.GetModelRequest{Name: d.model})
	if err == nil {
		fmt.Println("weights", model.Weights.Sha256)
	}
	return err
}

// earlyStopping trains a job that the server stops early, and downloads the model after one of its kept epochs. Only the
// first epoch is an improvement, because no later one is better by min_delta.
func (d *digits) earlyStopping(ctx context.Context) error {
	spec := d.spec()
	spec.EarlyStopping = &gw.EarlyStopping{Monitor: "train.loss", Patience: 3, MinDelta: 1000, RestoreBest: true}
	spec.Keep = &gw.KeepPolicy{Every: 2}
	id := d.jobID + "-stopped"
	job, err := d.Training.CreateJob(
		ctx, &gw.CreateJobRequest{Job: &gw.Job{Spec: spec}, JobId: id, RequestId: "request-" + id},
	)
	if err != nil {
		return err
	}
	for _, err := range d.Watch(ctx, job.Name, 0) {
		if err != nil {
			return err
		}
	}
	if job, err = d.Training.GetJob(ctx, &gw.GetJobRequest{Name: job.Name}); err != nil {
		return err
	}
	if job.StopReason != gw.StopReason_STOP_REASON_EARLY_STOPPING || !slices.Equal(job.KeptEpochs, []int32{1, 2, 4}) {
		return fmt.Errorf("the job ended with %v and kept the epochs %v", job.StopReason, job.KeptEpochs)
	}
	for epoch, expected := range map[int32]int32{0: 1, 2: 2} {
		model, err := d.Models.GetModel(ctx, &gw.GetModelRequest{Name: job.Model, Epoch: epoch})
		if err != nil {
			return err
		}
		if model.Epoch.Epoch != expected {
			return fmt.Errorf("the model has the weights after epoch %d", model.Epoch.Epoch)
		}
		if err := d.Download(ctx, job.Model, epoch, &bytes.Buffer{}); err != nil {
			return err
		}
	}
	return d.deleteAll(ctx, job.Name, job.Model)
}

// delete deletes the job and its model twice, as a client would if it did not receive the response.
func (d *digits) delete(ctx context.Context) error {
	for range 2 {
		if err := d.deleteAll(ctx, d.job, d.model); err != nil {
			return err
		}
	}
	_, err := d.Training.DeleteJob(ctx, &gw.DeleteJobRequest{Name: d.job})
	_, err = expect(err, codes.NotFound, "JOB_NOT_FOUND")
	return err
}

func (d *digits) deleteAll(ctx context.Context, job, model string) error {
	_, err := d.Training.DeleteJob(ctx, &gw.DeleteJobRequest{Name: job, AllowMissing: true})
	if err == nil {
		_, err = d.Models.DeleteModel(ctx, &gw.DeleteModelRequest{Name: model, AllowMissing: true})
	}
	return err
}

// expect checks that a call failed with the given code and reason, prints the error, and returns its metadata.
func expect(err error, code codes.Code, reason string) (map[string]string, error) {
	if err == nil {
		return nil, errors.New("a call succeeded that must fail")
	}
	fmt.Println(Describe(err))
	actual, metadata := Reason(err)
	if status.Code(err) != code || actual != reason {
		return nil, fmt.Errorf("expected %v %s, got %s", code, reason, Describe(err))
	}
	return metadata, nil
}
