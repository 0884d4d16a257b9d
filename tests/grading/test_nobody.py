"""Without namespaces root's answers run as nobody, where nobody can read Python; the record says which it was."""

import os
import sys
import threading

import pytest

from mechkit.grading import sandbox
from mechkit.grading.grade import Grader
from mechkit.grading.judge import Judge
from mechkit.grading.sandbox import NOBODY, PROCESS, Lent, Limits, Sandbox
from tests.grading.conftest import cells, text
from tests.grading.test_sandbox import look

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Linux only"),
    pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become nobody"),
]
LIMITS = Limits(seconds=5, whole=10, memory=512 * 2**20, files=4 * 2**20, processes=16)


@pytest.fixture(scope="module")
def box():
    with Sandbox(Lent(), LIMITS, strongest=PROCESS) as made:
        if made.level == PROCESS:
            pytest.skip("nobody may not read this system's Python")
        yield made


def test_an_answer_has_the_rights_of_nobody(box):
    assert box.level == NOBODY
    assert look(box, "return [os.getresuid(), os.getresgid(), os.getgroups()]") == [(65534,) * 3, (65534,) * 3, []]
    status = look(box, "return open('/proc/self/status').read()")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    body = "try: os.setuid(0)\nexcept OSError as error: return type(error).__name__"
    assert look(box, body) == "PermissionError"


def test_it_can_neither_end_nor_change_what_serves_the_next(box):
    assert look(box, "try: os.kill(os.getppid(), 9)\nexcept OSError as error: return type(error).__name__") == (
        "PermissionError"
    )
    body = (
        "import mechkit\nfound = []\ntree = os.path.dirname(os.path.dirname(mechkit.__file__))\n"
        "for folder in (tree, os.path.dirname(tree), os.path.dirname(mechkit.__file__), sys.prefix, os.getcwd()):\n"
        "    try: open(os.path.join(folder, 'torch.py'), 'w').close(); found.append(folder)\n"
        "    except OSError: pass\nreturn found == [os.getcwd()]"
    )
    assert look(box, body) is True
    assert look(box, "return os.listdir()") == []


def test_what_it_wrote_is_gone(box):
    look(box, "os.mkdir('deep'); open('deep/x', 'w').write('x'); os.chmod('deep', 0)\nreturn 1")
    assert not list(box._folder.glob("answer*"))


def test_two_answers_are_never_nobody_at_a_time(box):
    """Whoever is nobody may end what else is."""
    body = "import time\nstart = time.monotonic()\ntime.sleep(0.7)\nreturn [start, time.monotonic()]"
    with Sandbox(Lent(), LIMITS, strongest=PROCESS) as other:
        spans = []
        threads = [threading.Thread(target=lambda each=each: spans.append(look(each, body))) for each in (box, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    first, second = sorted(spans)
    assert first[1] <= second[0]


def test_the_record_says_it(box, template, models, tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(text(cells()))
    with Grader(template, LIMITS, judge=Judge(11, models), strongest=PROCESS) as grader:
        record = grader.grade(path)
    assert (record["isolation"], record["points"]) == (NOBODY, 8.0)


def test_where_nobody_cannot_read_python_an_answer_stays_root(tmp_path, monkeypatch):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    added = sandbox.BOOT.replace('[config["tree"]]', f'[config["tree"], {str(private)!r}]')
    monkeypatch.setattr(sandbox, "BOOT", added)
    with Sandbox(Lent(), LIMITS, strongest=PROCESS) as box:
        assert box.level == PROCESS
        assert look(box, "return os.getuid()") == 0
