"""Is my answer right, and if not, why? Checks, hints, progress, and how a solution becomes a chapter."""
