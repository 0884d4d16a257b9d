"""An invented exercise, for tests of what does not depend on which exercise it is."""

import torch


def spread(x, base):
    """How far each value is from the mean, squared, above a base."""
    mean = sum(x.tolist()) / len(x)
    return torch.stack([base + (value - mean) ** 2 for value in x])


def spread_cases(seed):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, generator=generator), 0.0), (torch.randn(6, generator=generator), 1.0)]
