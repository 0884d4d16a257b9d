"""One explorer a chapter: the reader moves one thing and sees what follows; saved, a still twin remains."""

from mechkit.show.explorers.analogy import AnalogyExplorer, AnalogyReading, analogy_table
from mechkit.show.explorers.circuit import CircuitExplorer, circuit_rows
from mechkit.show.explorers.facts import FactExplorer, FactReading, fact_reading, fact_table
from mechkit.show.explorers.features import FeatureExplorer
from mechkit.show.explorers.heads import HeadExplorer, HeadReading, head_table
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
    "CircuitExplorer",
    "FactExplorer",
    "FactReading",
    "FeatureExplorer",
    "Gallery",
    "HeadExplorer",
    "HeadReading",
    "LensExplorer",
    "LensReading",
    "PatchExplorer",
    "PatchReading",
    "ProbeExplorer",
    "SteerExplorer",
    "Steering",
    "SuperpositionExplorer",
    "analogy_table",
    "circuit_rows",
    "dimensionality_strip",
    "fact_reading",
    "fact_table",
    "feature_panels",
    "gallery_table",
    "head_table",
    "lens_reading",
    "lens_table",
    "patch_reading",
    "patch_table",
    "probe_table",
    "steer_lines",
    "steer_table",
]
