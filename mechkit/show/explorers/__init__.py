"""One explorer a chapter: the reader moves one thing and sees what follows; saved, a still twin remains."""

from mechkit.show.explorers.analogy import AnalogyExplorer, AnalogyReading, analogy_table
from mechkit.show.explorers.lens import LensExplorer, LensReading, lens_reading, lens_table
from mechkit.show.explorers.steer import SteerExplorer, Steering, steer_lines, steer_table

__all__ = [
    "AnalogyExplorer",
    "AnalogyReading",
    "LensExplorer",
    "LensReading",
    "SteerExplorer",
    "Steering",
    "analogy_table",
    "lens_reading",
    "lens_table",
    "steer_lines",
    "steer_table",
]
