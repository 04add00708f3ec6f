"""Texts that a generative model writes for prompts.

job.json: {"worker": "sample", "model": folder, or null and "learner" and "path", "examples": examples.jsonl, "samples":
texts per example, "max_new_tokens", "temperature" (0 = greedy), "stop": [texts that end an answer], "seed", "runtime"}
-> samples.jsonl, {"id", "texts"} a line, in the order of the examples
"""
