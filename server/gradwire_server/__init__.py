"""The server: gRPC services, the job life cycle, the scheduler, the store and the blobs."""
