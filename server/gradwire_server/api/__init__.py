"""The gRPC services: authentication, the conversion of requests, and the mapping of errors to statuses."""
