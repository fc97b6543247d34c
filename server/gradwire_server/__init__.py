"""gradwire_server: the gRPC services, the life of jobs, the scheduler, the store and the blobs."""
