"""Trained models: the registry, and the files they are exported as."""
