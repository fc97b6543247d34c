"""Jobs: client commands and queries, the records of attempts, and the event log."""
