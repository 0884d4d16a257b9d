"""Draw numbers already computed, and let the reader move one thing: tensors in, never models."""

from mechkit.show import captions, explorers, plots, style

__all__ = ["captions", "explorers", "plots", "style"]
