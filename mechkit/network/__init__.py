"""Reach inside a model: name, load, read and edit its activations."""
