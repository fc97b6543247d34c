"""One file for each gRPC service: a message in, one call, a message out."""
