"""gradwire_worker: the Ray actor that runs one job at a time. It speaks in the terms of assignments and reports."""
