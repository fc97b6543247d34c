package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	gw "gradwire.dev/proto/gradwire/v1"
)

const (
	// The chunks are small, so that even the small data in this example needs several chunks. For real data, use 1 MiB.
	chunkSize   = 16 << 10
	maxAttempts = 8
)

// Client holds a connection to a gradwire server, and a stub for each service.
type Client struct {
	*grpc.ClientConn
	Training gw.TrainingServiceClient
	Tensors  gw.TensorServiceClient
	Models   gw.ModelServiceClient
}

// Connect opens a connection. If the token is empty, it is not sent. If there is no file of trusted certificates, the
// connection is not encrypted.
func Connect(address, token, caFile string) (*Client, error) {
	transport := insecure.NewCredentials()
	if caFile != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(caFile, ""); err != nil {
			return nil, err
		}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport), grpc.WithUnaryInterceptor(retryUnary)}
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	connection, err := grpc.NewClient(address, options...)
	if err != nil {
		return nil, err
	}
	return &Client{
		ClientConn: connection,
		Training:   gw.NewTrainingServiceClient(connection),
		Tensors:    gw.NewTensorServiceClient(connection),
		Models:     gw.NewModelServiceClient(connection),
	}, nil
}

// bearer sends a token with every call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// Reference returns a reference to a byte tensor, which consists of its type, its shape and its digest.
func Reference(data []byte, shape ...int64) *gw.TensorRef {
	return &gw.TensorRef{Dtype: gw.DataType_DATA_TYPE_UINT8, Shape: shape, Sha256: digest(data)}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Upload sends the tensors that the server does not have. If an upload was interrupted, in this run or in an earlier
// run, it continues with the first missing byte.
func (c *Client) Upload(ctx context.Context, tensors map[*gw.TensorRef][]byte) error {
	request := &gw.FindMissingTensorsRequest{}
	contents := map[string][]byte{}
	for tensor, data := range tensors {
		request.Tensors = append(request.Tensors, tensor)
		contents[tensor.Sha256] = data
	}
	var retry backoff
	for {
		err := c.sendMissing(ctx, request, contents)
		if err == nil || !retry.wait(ctx, err) {
			return err
		}
	}
}

func (c *Client) sendMissing(
	ctx context.Context, request *gw.FindMissingTensorsRequest, contents map[string][]byte,
) error {
	found, err := c.Tensors.FindMissingTensors(ctx, request)
	if err != nil {
		return err
	}
	for _, missing := range found.Missing {
		header := &gw.UploadHeader{Tensor: missing.Tensor, Offset: missing.ReceivedBytes}
		if err := c.send(ctx, header, contents[missing.Tensor.Sha256][missing.ReceivedBytes:]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) send(ctx context.Context, header *gw.UploadHeader, data []byte) error {
	stream, err := c.Tensors.UploadTensor(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&gw.UploadTensorRequest{Part: &gw.UploadTensorRequest_Header{Header: header}})
	for err == nil && len(data) > 0 {
		size := min(chunkSize, len(data))
		err = stream.Send(&gw.UploadTensorRequest{Part: &gw.UploadTensorRequest_Chunk{Chunk: data[:size]}})
		data = data[size:]
	}
	// If the server ended the stream, Send returns io.EOF, and CloseAndRecv returns the error.
	_, err = stream.CloseAndRecv()
	return err
}

// Watch yields a job's events after a sequence number, until the job ends. If the connection breaks, this function
// reconnects and continues after the last event. Leaving the loop cancels the call.
func (c *Client) Watch(ctx context.Context, job string, after int64) iter.Seq2[*gw.Event, error] {
	return func(yield func(*gw.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var retry backoff
		for {
			stream, err := c.Training.WatchJob(ctx, &gw.WatchJobRequest{Name: job, AfterSequence: after})
			for err == nil {
				var response *gw.WatchJobResponse
				response, err = stream.Recv()
				for _, event := range response.GetEvents() {
					after = event.Sequence
					retry.reset()
					if !yield(event, nil) {
						return
					}
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if !retry.wait(ctx, err) {
				yield(nil, err)
				return
			}
		}
	}
}

// Download fetches the rest of a model file, appends it to the buffer, and checks the digest of the whole file. If the
// connection breaks, this function reconnects and continues at the next byte. If the epoch is not 0, the file has the
// weights after this epoch, which must be a kept epoch of the model's job.
func (c *Client) Download(ctx context.Context, model string, epoch int32, file *bytes.Buffer) error {
	expected := ""
	var retry backoff
	for {
		request := &gw.DownloadModelRequest{Name: model, Epoch: epoch, Offset: int64(file.Len())}
		stream, err := c.Models.DownloadModel(ctx, request)
		for err == nil {
			var response *gw.DownloadModelResponse
			response, err = stream.Recv()
			if header := response.GetHeader(); header != nil {
				if expected != "" && header.Sha256 != expected {
					return errors.New("the model changed during the download")
				}
				expected = header.Sha256
			}
			if chunk := response.GetChunk(); chunk != nil {
				file.Write(chunk)
				retry.reset()
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if !retry.wait(ctx, err) {
			return err
		}
	}
	if digest(file.Bytes()) != expected {
		return errors.New("the downloaded file does not have the digest of its header")
	}
	return nil
}

// retryUnary retries a unary call while the server is unavailable. gRPC's retry policy is not sufficient, because it
// does not retry a call if the connection breaks while the response arrives.
func retryUnary(
	ctx context.Context, method string, request, response any, connection *grpc.ClientConn, call grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	var retry backoff
	for {
		err := call(ctx, method, request, response, connection, options...)
		if err == nil || !retry.wait(ctx, err) {
			return err
		}
	}
}

// backoff counts the failed attempts since the last success.
type backoff int

func (b *backoff) reset() { *b = 0 }

// wait sleeps, longer each time, and reports whether to try again. For an error that is not temporary, it immediately
// returns false.
func (b *backoff) wait(ctx context.Context, err error) bool {
	if *b++; status.Code(err) != codes.Unavailable || *b == maxAttempts {
		return false
	}
	select {
	case <-time.After(50 * time.Millisecond << *b):
		return true
	case <-ctx.Done():
		return false
	}
}

// Reason returns the reason of an error, for example "JOB_NOT_FOUND", and its metadata.
func Reason(err error) (string, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason, info.Metadata
		}
	}
	return "", nil
}

// Fields returns the paths of the invalid fields, if the error lists any.
func Fields(err error) (fields []string) {
	for _, detail := range status.Convert(err).Details() {
		if request, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range request.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	return fields
}

// Describe returns a complete description of an error, in one line.
func Describe(err error) string {
	text := &strings.Builder{}
	reason, metadata := Reason(err)
	fmt.Fprintf(text, "%s %s: %s", status.Code(err), reason, status.Convert(err).Message())
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		fmt.Fprintf(text, " %s=%s", key, metadata[key])
	}
	return text.String()
}
