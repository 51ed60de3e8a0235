"""Applications that the system tests run on Janus."""
