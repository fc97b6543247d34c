"""Bytes on disk or in an object store: blobs, checkpoints, uploads, and the space for them."""
