"""The same grades from a cluster, also if a worker is killed in the middle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mechkit import cli
from tests.grading.conftest import cell, cells, mark, text

ROOT = Path(__file__).parents[2]
CLASS = 6
ANSWERS = {
    "cosine": "def cosine(a, b):\n    return a @ b / (a.norm() * b.norm())",
    "shadow": "def shadow(vectors, direction):\n    return vectors @ direction / direction.norm()",
}

# Workers are processes that import this module's folder's neighbours, so the cluster lives in a script of its own.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from distributed import LocalCluster
from mechkit.grading.classroom import Wishes, grade_class
from mechkit.grading.cluster import Cluster
from mechkit.grading.collect import collect

if __name__ == "__main__":
    told, folder = [], Path(sys.argv[1])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        cluster = Cluster(local.scheduler_address)

        def tell(record):
            told.append(record["learner"])
            if len(told) == 2:
                os.kill(next(iter(local.workers.values())).pid, signal.SIGKILL)

        handed = collect([folder / "in"], folder / "unpacked")
        wishes = Wishes(jobs=cluster.threads, seed=1)
        opened = cluster.open_grader
        records = grade_class(handed, folder / "t.ipynb", folder / "out", wishes, told=tell, open_grader=opened)
        cluster.close()
    print(json.dumps([told, [record["points"] for record in records], records[0]["isolation"]]))
"""


def made(answers):
    found = [cell("import torch\nimport mechkit as mk", id="setup")]
    return found + [cell(answers.get(name, ""), id=name, metadata=mark(f"00_{name}")) for name in ANSWERS]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_graded_twice(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "in").mkdir()
    (tmp_path / "t.ipynb").write_text(text(made({})))
    for number in range(CLASS):
        (tmp_path / "in" / f"learner{number}.ipynb").write_text(text(made(ANSWERS)))
    (tmp_path / "cluster.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(tmp_path / "cluster.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told, points, isolation = json.loads(done.stdout.splitlines()[-1])
    assert sorted(told) == [f"learner{number}" for number in range(CLASS)]
    assert points == [3.0] * CLASS
    assert isolation


def test_a_scheduler_that_is_not_there_is_said(tmp_path, capsys, monkeypatch):
    (tmp_path / "x.ipynb").write_text(text(cells()).replace("99_", "00_"))
    asked = ["grade", str(tmp_path / "x.ipynb"), "--out", str(tmp_path / "out"), "--scheduler", "tcp://127.0.0.1:9"]
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(asked) == 1
    assert "--scheduler needs Dask: pip install distributed" in capsys.readouterr().err
