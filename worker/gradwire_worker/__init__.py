"""The Ray actor that runs one job at a time. It receives assignments and returns reports."""
