"""What the chapters feed the model: prompts, facts and sampled text, each file beside the code that reads it."""
