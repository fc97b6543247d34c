"""gradwire_server: the gRPC services, the job life cycle, the scheduler, the store and the blobs."""
