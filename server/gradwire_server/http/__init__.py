"""The HTTP gateway: JSON calls, server-sent events and the web page, for clients that do not speak gRPC."""
