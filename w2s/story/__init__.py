"""The order of events: which stages a run consists of, and running them."""
