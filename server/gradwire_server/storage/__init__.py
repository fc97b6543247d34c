"""Storage on disk or in an object store: blobs, checkpoints, uploads, and disk space."""
