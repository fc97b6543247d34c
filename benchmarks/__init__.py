"""Every figure that the project states, printed by one command: `make bench`."""
