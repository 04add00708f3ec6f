"""The order of events: which stages make up a run, and how they are run."""
