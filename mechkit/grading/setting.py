"""What one grading is done under, and the record that it leads to."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechkit.course.checks import Verdict
from mechkit.course.exercise import Exercise
from mechkit.grading.sandbox import Limits
from mechkit.grading.submission import Template


@dataclass(frozen=True)
class Setting:
    """The chapter, what an answer may take, the seed of hidden cases, and the isolation that answers run in."""

    template: Template
    limits: Limits
    seed: int
    level: str

    def record(self, status: str, problem: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The record of a submission, ready for JSON."""
        return {
            "status": status,
            "problem": problem,
            "chapter": self.template.chapter.number,
            "template": self.template.digest,
            "title": self.template.chapter.title,
            "points": sum(row["points"] for row in rows),
            "max_points": sum(row["max_points"] for row in rows),
            "exercises": list(rows),
            "seed": self.seed,
            "isolation": self.level,
            "limits": asdict(self.limits),
        }

    def nothing(self, status: str, problem: str = "") -> dict[str, Any]:
        """The record of somebody from whom there is nothing to grade."""
        rows = [row_of(exercise, Verdict("not attempted"), "") for exercise in self.template.exercises]
        return self.record(status, problem, rows) | {"sha256": "", "seconds": 0.0}


def row_of(exercise: Exercise, verdict: Verdict, warning: str) -> dict[str, Any]:
    """What a record says of one exercise."""
    return {
        "id": exercise.id,
        "name": exercise.name,
        "status": verdict.status,
        "points": float(exercise.worth(0)) if verdict.passed else 0.0,
        "max_points": float(exercise.points),
        "stage": verdict.stage,
        "message": verdict.message,
        "mistake": verdict.mistake,
        "warning": warning,
    }


def digest_of(path: Path | None) -> str:
    """What tells one submission from another; "" for what cannot be read."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
