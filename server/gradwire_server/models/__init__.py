"""Trained models: the registry and the export to files."""
