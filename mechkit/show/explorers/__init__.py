"""One explorer a chapter: the reader moves one thing and sees what follows; saved, a still twin remains."""

from mechkit.show.explorers.analogy import AnalogyExplorer, AnalogyReading, analogy_table
from mechkit.show.explorers.lens import LensExplorer, LensReading, lens_reading, lens_table
from mechkit.show.explorers.patch import PatchExplorer, PatchReading, patch_reading, patch_table
from mechkit.show.explorers.probes import ProbeExplorer, probe_table
from mechkit.show.explorers.steer import SteerExplorer, Steering, steer_lines, steer_table
from mechkit.show.explorers.superposition import (
    Gallery,
    SuperpositionExplorer,
    dimensionality_strip,
    feature_panels,
    gallery_table,
)

__all__ = [
    "AnalogyExplorer",
    "AnalogyReading",
    "Gallery",
    "LensExplorer",
    "LensReading",
    "PatchExplorer",
    "PatchReading",
    "ProbeExplorer",
    "SteerExplorer",
    "Steering",
    "SuperpositionExplorer",
    "analogy_table",
    "dimensionality_strip",
    "feature_panels",
    "gallery_table",
    "lens_reading",
    "lens_table",
    "patch_reading",
    "patch_table",
    "probe_table",
    "steer_lines",
    "steer_table",
]
