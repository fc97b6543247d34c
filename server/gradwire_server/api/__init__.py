"""The gRPC services: authentication, the translation of requests, and the statuses of errors."""
