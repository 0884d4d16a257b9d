"""What a learner's code can see, reach and leave behind: looked at from inside."""

import os
import sys
from pathlib import Path

import pytest

from mechkit.grading.sandbox import NAMESPACES, PROCESS, Lent, Limits, Sandbox
from tests.grading.conftest import needs_namespaces

LIMITS = Limits(seconds=5, whole=10, memory=512 * 2**20, files=4 * 2**20, processes=16)
ROOT = Path(__file__).parents[2]

pytestmark = needs_namespaces


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    secret = tmp_path_factory.mktemp("submissions") / "someone_else.ipynb"
    secret.write_text("a secret")
    with Sandbox(Lent(), LIMITS, hidden=[secret.parent]) as made:
        made.secret = secret
        yield made


def look(box, body, *cases):
    """What code says that runs in a sandbox."""
    source = "def look(*args):\n" + "\n".join(f"    {line}" for line in body.split("\n"))
    task = {"name": "look", "source": source, "imports": "import os, sys", "earlier": [], "ours": [], "uses": []}
    with box.run() as run:
        run.channel.send(task | {"teaches": [], "cases": list(cases) or [()], "seconds": 5.0})
        said = [run.channel.receive() for _ in range(3)]
    assert said[-1]["trouble"] == ""
    return said[-1]["result"]


def test_it_is_the_strongest_that_this_system_has(box):
    assert box.level == NAMESPACES


def test_only_python_its_packages_and_the_course_without_answers_are_there(box):
    body = (
        "found = []\nfor folder, inside, files in os.walk('/'):\n"
        "    inside[:] = [each for each in inside if each not in ('proc', 'usr', 'torch', 'transformers')]\n"
        "    if 'mechkit' in folder: found += [os.path.join(folder, each) for each in files]\nreturn found"
    )
    names = look(box, body)
    assert any(name.endswith("mechkit/network/model.py") for name in names)
    assert not [name for name in names if any(word in name for word in ("exercises", "grading", "checks", "ipynb"))]
    assert look(box, f"return os.path.exists({str(box.secret)!r}) or os.path.exists({str(ROOT)!r})") is False


def test_nothing_can_be_written_but_an_empty_home(box):
    body = (
        "found = []\nfor folder in ('/', '/tmp', '/usr', '/home', '/dev', sys.prefix, *sys.path, os.getcwd()):\n"
        "    try: open(os.path.join(folder, 'mine'), 'w').close(); found.append(folder)\n    except OSError: pass\n"
        "return found"
    )
    assert look(box, body) == ["/home/learner"]
    assert look(box, "return os.listdir()") == []


@pytest.mark.parametrize("path", ["/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/self/oom_score_adj"])
def test_the_system_cannot_be_set(box, path):
    body = f"try: open({path!r}, 'w').write('1')\nexcept OSError as error: return type(error).__name__"
    assert look(box, body) in ("OSError", "PermissionError", "FileNotFoundError")


def test_there_is_no_network(box):
    body = (
        "import socket\nfound = []\nfor place in (('127.0.0.1', 9), ('192.0.2.1', 80)):\n"
        "    try: socket.create_connection(place, 1).close(); found.append('connected')\n"
        "    except OSError as error: found.append(error.errno)\nreturn found"
    )
    assert set(look(box, body)) <= {101, 99, 113}
    assert look(box, "import socket\nreturn [name for _, name in socket.if_nameindex()]") == ["lo"]


def test_there_are_no_rights_and_no_other_processes(box):
    status = look(box, "return open('/proc/self/status').read()")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert len(look(box, "return [each for each in os.listdir('/proc') if each.isdigit()]")) == 2
    tries = "try:\n    open('/proc/1/mem', 'rb')\n    return 'read'\nexcept OSError: return 'refused'"
    assert look(box, tries) == "refused"
    assert look(box, "os.kill(1, 9)\nreturn 'still here'") == "still here"


def test_the_environment_is_short_and_says_nothing_of_grading(box):
    names = look(box, "return sorted(os.environ)")
    known = "HOME HF_HUB_OFFLINE LANG LC_CTYPE MECHKIT_CACHE MECHKIT_HOME MPLBACKEND OMP_NUM_THREADS PATH TMPDIR"
    assert set(names) <= {*known.split(), "LD_LIBRARY_PATH"}
    assert look(box, "return [sys.argv, os.listdir('/proc/self/fd').__len__() <= 5]") == [[""], True]


@pytest.mark.parametrize("level", [NAMESPACES, PROCESS])
def test_only_a_few_megabytes_can_be_written(level):
    body = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\ntotal = 0\n"
        "try:\n    with open('big', 'wb', buffering=0) as file:\n"
        "        while total < 2**26: total += file.write(bytes(2**20))\nexcept OSError: pass\nreturn total"
    )
    with Sandbox(Lent(), LIMITS, strongest=level) as box:
        assert look(box, body) <= LIMITS.files


def test_a_process_cannot_read_how_it_was_started(box):
    assert "twin" not in look(box, "return open('/proc/self/cmdline').read()")


def test_pythons_own_folder_stays_where_the_submissions_lie_around_it():
    with Sandbox(Lent(), LIMITS, hidden=[Path(sys.prefix).parent, Path(sys.prefix)]) as other:
        assert other.level == NAMESPACES
        assert look(other, "return 4") == 4


@pytest.mark.parametrize("level", [NAMESPACES, PROCESS])
def test_what_an_answer_started_ends_with_it(level):
    body = (
        "import subprocess\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(78)'], start_new_session=True)\nreturn 1"
    )
    with Sandbox(Lent(), LIMITS, strongest=level) as other:
        assert look(other, body) == 1
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if b"sleep(78)" in line]


def test_no_folder_is_left_behind(box):
    before = set(os.listdir("/tmp"))
    with Sandbox(Lent(), LIMITS, strongest=PROCESS) as other:
        look(other, "open('x', 'w').write('x')\nreturn 1")
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith(("answer", "mechkit-sandbox"))]


def test_a_server_that_was_killed_is_replaced(box):
    box._server.kill()
    box._server.wait()
    assert look(box, "return 3") == 3


def test_the_answers_see_what_they_are_sent(box):
    assert look(box, "return [type(each).__name__ for each in args]", (1, "x", [2.0])) == ["int", "str", "list"]
