"""The limits on what clients can send and hold. docs/protocol.md describes those that affect clients."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20

# The maximum size of one request message. A larger message is rejected before it is parsed.
MAX_REQUEST_BYTES = 64 * KIB
MAX_FIND_MISSING_BYTES = 256 * KIB
MAX_CREATE_JOB_BYTES = 256 * KIB
MAX_CHUNK_BYTES = 4 * MIB
# Requests of the standard services, which need no token.
MAX_PUBLIC_REQUEST_BYTES = 4 * KIB
# The maximum size of the inputs of one Predict call, and of its outputs.
MAX_PREDICT_BYTES = 8 * MIB
# gRPC itself rejects larger messages, without details, after it has received and copied them. Predict returns a more
# detailed error for inputs that are a little too large.
MAX_MESSAGE_BYTES = 10 * MIB
# The fields of a longer request are checked in a thread.
LONG_REQUEST_BYTES = 32 * KIB
# Space for the other fields of a message that contains a chunk.
_SLACK_BYTES = 64 * KIB
# The maximum number of fields and packed numbers in one request. It is low enough for parsing and checking to take only
# milliseconds.
MAX_REQUEST_FIELDS = 8_000
# An error names at most this many unknown fields.
MAX_NAMED_FIELDS = 10
MAX_TENSORS_PER_REQUEST = 1000
MAX_WATCHED_JOBS = 100

# The maximum number of calls in progress, including calls that wait for events or for their turn. The standard services
# have their own limits.
MAX_CONCURRENT_CALLS = 2000
# The maximum total size of the long responses that clients have not received yet.
MAX_UNRECEIVED_BYTES = 256 * MIB
LONG_RESPONSE_BYTES = 64 * KIB
# Each of these methods has its own limit, so that other calls cannot block health checks.
MAX_CONCURRENT_HEALTH_CHECKS = 200
MAX_CONCURRENT_HEALTH_WATCHES = 200
MAX_CONCURRENT_REFLECTIONS = 50
# The maximum number of concurrent calls of methods that keep a file open.
MAX_UPLOADS = 32
MAX_DOWNLOADS = 32
# The time that a call waits for its turn if its method has its own limit, in seconds.
MAX_WAIT_SECONDS = 10.0
# The time that a client that was too slow has to receive the status before its call is closed, in seconds.
STATUS_SECONDS = 5.0
# Slow requests: the maximum number received at a time, and the time after which a request counts as slow, in seconds.
MAX_SLOW_REQUESTS = 8
SLOW_REQUEST_SECONDS = 0.1
MAX_SLOW_PUBLIC_REQUESTS = 4
SLOW_PUBLIC_REQUEST_SECONDS = 0.02

# A connection is closed if it sends nothing at first, or has no calls for a long time.
MAX_HANDSHAKE_SECONDS = 10
MAX_IDLE_CONNECTION_SECONDS = 60
MAX_CONNECTIONS = 10_000
MAX_CALLS_PER_CONNECTION = 1000
# HTTP: calls and streams share one connection to the gRPC server, so together they stay below the limit above.
MAX_HTTP_CONNECTIONS = 1000
MAX_HTTP_CALLS = 500
MAX_HTTP_STREAMS = 400
MAX_HTTP_CALL_SECONDS = 60.0
# The maximum size of all requests in memory, and the space that JSON needs for the names of fields.
MAX_HTTP_BUFFERED_BYTES = 128 * MIB
HTTP_JSON_SLACK_BYTES = 512 * KIB
# The maximum size of the request line and headers, the maximum idle time of a connection, and the maximum time in which
# a client receives nothing.
MAX_HTTP_HEAD_BYTES = 32 * KIB
MAX_HTTP_IDLE_SECONDS = 75
MAX_HTTP_WRITE_SECONDS = 60.0
# File descriptors: the server needs at least MIN_DESCRIPTORS, and reserves RESERVED_DESCRIPTORS for Ray, the database
# and files.
MIN_DESCRIPTORS = 1024
RESERVED_DESCRIPTORS = 512
MAX_DESCRIPTORS = 65_536


@dataclass(frozen=True)
class MethodLimits:
    """The limits of one method.

    Attributes:
        message_bytes: The maximum size of one request message, after decompression.
        read_seconds: The time limit for receiving each request message, in seconds.
        write_seconds: The time that the client has to receive each response message, in seconds.
        concurrent_calls: The maximum number of concurrent calls, from receiving the request until the client has
            received the response. Further calls wait for their turn.
        long_response: Whether the response can be so long that it must be encoded in a thread.
    """

    message_bytes: int = MAX_REQUEST_BYTES
    read_seconds: float = 10.0
    write_seconds: float = 10.0
    concurrent_calls: int | None = None
    long_response: bool = False


DEFAULT_LIMITS = MethodLimits()
PUBLIC_LIMITS = MethodLimits(message_bytes=MAX_PUBLIC_REQUEST_BYTES)
# A reflection client keeps its stream open while it calls other methods.
REFLECTION_LIMITS = MethodLimits(message_bytes=MAX_PUBLIC_REQUEST_BYTES, read_seconds=300.0)
_DOWNLOAD_LIMITS = MethodLimits(write_seconds=60.0, concurrent_calls=MAX_DOWNLOADS)
METHOD_LIMITS = {
    "CreateJob": MethodLimits(MAX_CREATE_JOB_BYTES, concurrent_calls=16),
    "FindMissingTensors": MethodLimits(MAX_FIND_MISSING_BYTES, concurrent_calls=16),
    "UploadTensor": MethodLimits(MAX_CHUNK_BYTES + _SLACK_BYTES, read_seconds=30.0, concurrent_calls=MAX_UPLOADS),
    "Predict": MethodLimits(
        MAX_MESSAGE_BYTES, read_seconds=60.0, write_seconds=20.0, concurrent_calls=8, long_response=True
    ),
    "WatchJob": MethodLimits(write_seconds=60.0),
    "DownloadModel": _DOWNLOAD_LIMITS,
    "DownloadCheckpoint": _DOWNLOAD_LIMITS,
}
