"""Between the engine and the wire: the only part of the engine that knows the messages of gradwire.v1."""
