"""Converts between engine objects and gradwire.v1 messages. No other part of the engine uses the messages."""
