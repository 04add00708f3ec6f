"""What flows and where it lies: records, artifacts, the log."""
