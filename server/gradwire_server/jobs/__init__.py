"""Jobs: what clients ask of them, what their attempts record, and their log of events."""
