"""Conversion between the engine and the messages of gradwire.v1. No other part of the engine uses the messages."""
