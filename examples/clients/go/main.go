// Command digits trains a network on a gradwire server, and knows nothing of it but the .proto files.
//
//	digits FOLDER JOB
//
// FOLDER holds inputs.bin (bytes, 64 for each picture) and targets.bin (a byte for each). GRADWIRE_ADDRESS, GRADWIRE_TOKEN
// and GRADWIRE_CA (a file of certificates; turns TLS on) say where the server is.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	gw "gradwire.dev/proto/gradwire/v1"
)

const (
	features  = 64
	chunkSize = 16 << 10
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: digits FOLDER JOB")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, folder, job string) error {
	connection, err := connect()
	if err != nil {
		return err
	}
	defer connection.Close()
	health, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the server is not ready: %v %w", health, err)
	}
	passed("connect")

	training := gw.NewTrainingServiceClient(connection)
	if err := checkErrors(ctx, training); err != nil {
		return err
	}
	ctx = withToken(ctx, os.Getenv("GRADWIRE_TOKEN"))
	inputs, err := os.ReadFile(filepath.Join(folder, "inputs.bin"))
	if err != nil {
		return err
	}
	targets, err := os.ReadFile(filepath.Join(folder, "targets.bin"))
	if err != nil {
		return err
	}
	rows := int64(len(targets))
	dataset := &gw.Dataset{Inputs: reference(inputs, rows, features), Targets: reference(targets, rows)}
	if err := upload(ctx, gw.NewDatasetServiceClient(connection), dataset, inputs, targets); err != nil {
		return err
	}
	created, err := create(ctx, training, dataset, job)
	if err != nil {
		return err
	}
	if err := watch(ctx, training, created.Name); err != nil {
		return err
	}
	finished, err := training.GetJob(ctx, &gw.GetJobRequest{Name: created.Name})
	if err != nil {
		return err
	}
	models := gw.NewModelServiceClient(connection)
	if err := download(ctx, models, finished.Model); err != nil {
		return err
	}
	if err := predict(ctx, models, finished.Model, inputs, targets); err != nil {
		return err
	}
	model, err := models.GetModel(ctx, &gw.GetModelRequest{Name: finished.Model})
	if err != nil {
		return err
	}
	fmt.Println("weights", model.Weights.Sha256)
	return nil
}

// connect opens a channel: with TLS where there is a file of certificates.
func connect() (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if ca := os.Getenv("GRADWIRE_CA"); ca != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(ca, ""); err != nil {
			return nil, err
		}
	}
	return grpc.NewClient(os.Getenv("GRADWIRE_ADDRESS"), grpc.WithTransportCredentials(transport))
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func reference(data []byte, shape ...int64) *gw.TensorRef {
	digest := sha256.Sum256(data)
	return &gw.TensorRef{Dtype: gw.DataType_DATA_TYPE_UINT8, Shape: shape, Sha256: hex.EncodeToString(digest[:])}
}

// upload sends what the server does not have yet, each tensor from where an earlier upload broke off.
func upload(ctx context.Context, datasets gw.DatasetServiceClient, set *gw.Dataset, inputs, targets []byte) error {
	request := &gw.FindMissingTensorsRequest{Tensors: []*gw.TensorRef{set.Inputs, set.Targets}}
	found, err := datasets.FindMissingTensors(ctx, request)
	if err != nil {
		return err
	}
	contents := map[string][]byte{set.Inputs.Sha256: inputs, set.Targets.Sha256: targets}
	for _, missing := range found.Missing {
		stream, err := datasets.UploadTensor(ctx)
		if err != nil {
			return err
		}
		header := &gw.UploadHeader{Tensor: missing.Tensor, Offset: missing.ReceivedBytes}
		err = stream.Send(&gw.UploadTensorRequest{Part: &gw.UploadTensorRequest_Header{Header: header}})
		for rest := contents[missing.Tensor.Sha256][missing.ReceivedBytes:]; err == nil && len(rest) > 0; {
			size := min(chunkSize, len(rest))
			err = stream.Send(&gw.UploadTensorRequest{Part: &gw.UploadTensorRequest_Chunk{Chunk: rest[:size]}})
			rest = rest[size:]
		}
		// An error of the server ends the stream; only the answer says which one it was.
		if _, err = stream.CloseAndRecv(); err != nil {
			return err
		}
	}
	if found, err = datasets.FindMissingTensors(ctx, request); err != nil || len(found.Missing) > 0 {
		return fmt.Errorf("tensors are missing after their upload: %v %w", found, err)
	}
	passed("upload")
	return nil
}

func spec(set *gw.Dataset) *gw.JobSpec {
	linear := func(name string, outputs int64) *gw.Layer {
		return &gw.Layer{Name: name, Kind: &gw.Layer_Linear{Linear: &gw.Linear{OutFeatures: outputs}}}
	}
	relu := &gw.Layer{Name: "relu1", Kind: &gw.Layer_Relu{Relu: &gw.Relu{}}}
	return &gw.JobSpec{
		Model:     &gw.ModelSpec{Layers: []*gw.Layer{linear("fc1", 32), relu, linear("fc2", 10)}},
		Loss:      &gw.Loss{Kind: &gw.Loss_CrossEntropy{CrossEntropy: &gw.CrossEntropy{}}},
		Optimizer: &gw.Optimizer{Kind: &gw.Optimizer_Sgd{Sgd: &gw.Sgd{LearningRate: 0.005}}},
		Train:     set,
		Epochs:    20,
		BatchSize: 16,
		Shuffle:   true,
		Seed:      7,
		Device:    gw.Device_DEVICE_CPU,
	}
}

// create sends the same request twice, as after a lost answer: it makes one job.
func create(ctx context.Context, training gw.TrainingServiceClient, set *gw.Dataset, job string) (*gw.Job, error) {
	request := &gw.CreateJobRequest{Job: &gw.Job{Spec: spec(set)}, JobId: job, RequestId: "request-" + job}
	first, err := training.CreateJob(ctx, request)
	if err != nil {
		return nil, err
	}
	second, err := training.CreateJob(ctx, request)
	if err != nil || second.Name != first.Name {
		return nil, fmt.Errorf("the same request made another job: %v %w", second, err)
	}
	passed("create")
	return first, nil
}

// watch follows the job to its end, breaks off after its first epoch, and goes on where it was.
func watch(ctx context.Context, training gw.TrainingServiceClient, name string) error {
	var sequence int64
	var epochs int32
	state := gw.JobState_JOB_STATE_QUEUED
	follow := func(most int32) error {
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		stream, err := training.WatchJob(ctx, &gw.WatchJobRequest{Name: name, AfterSequence: sequence})
		if err != nil {
			return err
		}
		for epochs < most {
			response, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, event := range response.Events {
				if event.Sequence != sequence+1 {
					return fmt.Errorf("event %d came after event %d", event.Sequence, sequence)
				}
				sequence = event.Sequence
				switch kind := event.Kind.(type) {
				case *gw.Event_StateChange:
					state = kind.StateChange.State
				case *gw.Event_Epoch:
					epochs++
					if kind.Epoch.Epoch != epochs {
						return fmt.Errorf("epoch %d came as number %d", kind.Epoch.Epoch, epochs)
					}
					fmt.Printf("epoch %d: loss %.4f, accuracy %.4f\n", epochs, kind.Epoch.Train.Loss, *kind.Epoch.Train.Accuracy)
				}
			}
		}
		return nil
	}
	if err := follow(1); err != nil {
		return err
	}
	if err := follow(math.MaxInt32); err != nil {
		return err
	}
	if epochs != 20 || state != gw.JobState_JOB_STATE_SUCCEEDED {
		return fmt.Errorf("the job ended as %v after %d epochs", state, epochs)
	}
	passed("watch")
	return nil
}

func download(ctx context.Context, models gw.ModelServiceClient, name string) error {
	stream, err := models.DownloadModel(ctx, &gw.DownloadModelRequest{Name: name})
	if err != nil {
		return err
	}
	var header *gw.FileHeader
	var file bytes.Buffer
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if response.GetHeader() != nil {
			header = response.GetHeader()
		}
		file.Write(response.GetChunk())
	}
	digest := sha256.Sum256(file.Bytes())
	if header == nil || hex.EncodeToString(digest[:]) != header.Sha256 {
		return errors.New("the downloaded file does not have its digest")
	}
	passed("download")
	return nil
}

func predict(ctx context.Context, models gw.ModelServiceClient, name string, inputs, targets []byte) error {
	tensor := &gw.Tensor{
		Dtype: gw.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(len(targets)), features}, Data: inputs,
	}
	response, err := models.Predict(ctx, &gw.PredictRequest{Name: name, Inputs: tensor})
	if err != nil {
		return err
	}
	logits := make([]float32, len(response.Outputs.Data)/4)
	if _, err := binary.Decode(response.Outputs.Data, binary.LittleEndian, logits); err != nil {
		return err
	}
	classes, right := len(logits)/len(targets), 0
	for row, target := range targets {
		best := 0
		for class := range classes {
			if logits[row*classes+class] > logits[row*classes+best] {
				best = class
			}
		}
		if best == int(target) {
			right++
		}
	}
	if accuracy := float64(right) / float64(len(targets)); accuracy < 0.9 {
		return fmt.Errorf("only %.2f of the predictions are right", accuracy)
	}
	passed("predict")
	return nil
}

// checkErrors makes three mistakes and reads what the server says of each.
func checkErrors(ctx context.Context, training gw.TrainingServiceClient) error {
	if token := os.Getenv("GRADWIRE_TOKEN"); token != "" {
		_, err := training.GetJob(withToken(ctx, "not the token"), &gw.GetJobRequest{Name: "jobs/any"})
		if status.Code(err) != codes.Unauthenticated {
			return fmt.Errorf("expected UNAUTHENTICATED, got %w", err)
		}
		ctx = withToken(ctx, token)
	}
	passed("unauthenticated")

	_, err := training.GetJob(ctx, &gw.GetJobRequest{Name: "jobs/nobody"})
	reason := ""
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.Reason
		}
	}
	if status.Code(err) != codes.NotFound || reason != "NOT_FOUND" {
		return fmt.Errorf("expected NOT_FOUND, got %w with reason %q", err, reason)
	}
	passed("not-found")

	one := reference([]byte{0}, 1, 1)
	wrong := spec(&gw.Dataset{Inputs: one, Targets: reference([]byte{0}, 1)})
	wrong.BatchSize = 0
	_, err = training.CreateJob(ctx, &gw.CreateJobRequest{Job: &gw.Job{Spec: wrong}})
	fields := []string{}
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	if status.Code(err) != codes.InvalidArgument || len(fields) != 1 || fields[0] != "job.spec.batch_size" {
		return fmt.Errorf("expected job.spec.batch_size to be refused, got %w for %v", err, fields)
	}
	passed("bad-request")
	return nil
}

func passed(check string) { fmt.Println("ok", check) }
