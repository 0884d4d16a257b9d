"""One file a method: what to measure, and what to change, once a model can be read."""
