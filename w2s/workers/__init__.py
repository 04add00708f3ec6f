"""Processes that hold tensors: one job each, a folder in and a marker out."""
