"""The commands: what they print, their exit codes, and that our errors are sentences."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mechkit
from mechkit import cli
from mechkit.course import authoring, doctor, progress, workspace
from mechkit.course.doctor import Check
from mechkit.network import assets

COMMANDS = ("lab", "doctor", "fetch", "progress", "report", "build", "site", "grade", "export", "exercises", "bench")


def failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_of_itself(command, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([command, "--help"])
    assert exit.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"example: mechkit {command}" in text


def test_every_example_can_be_parsed(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        example = re.sub(r"\s+", " ", capsys.readouterr().out).split("example: mechkit ")[1]
        cli.parser().parse_args(example.split())


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["doctor", "--nonsense"], ["build", "--check", "--execute"], ["bench", "nonsense"]]
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert "usage: mechkit" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"mechkit {mechkit.__version__}\n"


def test_help_loads_nothing_heavy():
    code = "import sys, mechkit.cli as c; c.parser().format_help(); print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("ok", [True, False])
def test_the_doctors_exit_code_is_its_verdict(ok, monkeypatch, capsys):
    checks = [Check("python", True, "3.11"), Check("disk", ok, "0 GB free: free some")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(checks))
    assert cli.main(["doctor", "--json"]) == (0 if ok else 1)
    assert json.loads(capsys.readouterr().out) == {
        "ok": ok,
        "checks": [
            {"name": "python", "ok": True, "detail": "3.11"},
            {"name": "disk", "ok": ok, "detail": "0 GB free: free some"},
        ],
    }
    assert cli.main(["doctor"]) == (0 if ok else 1)
    assert ("All is well." if ok else "PROBLEM  disk: 0 GB free: free some\nProblems: 1.") in capsys.readouterr().out


def test_fetch_says_where_the_model_is(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(assets, "fetch", lambda repair: asked.append(repair) or tmp_path / "Model")
    assert cli.main(["fetch"]) == cli.main(["fetch", "--repair"]) == 0
    assert asked == [False, True]
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"Model is in {tmp_path / 'Model'}"
    assert second.startswith("GloVe 6B 50d came with the course, in ")


@pytest.mark.parametrize("error", [assets.AssetError("a sentence"), ValueError("a sentence"), OSError("a sentence")])
def test_our_errors_are_one_sentence(error, monkeypatch, capsys):
    monkeypatch.setattr(assets, "fetch", failing(error))
    assert cli.main(["fetch"]) == 1
    assert capsys.readouterr() == ("", "mechkit: a sentence\n")


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mechkit.course.doctor", None)
    assert cli.main(["doctor"]) == 1
    assert "install the course again" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(assets, "fetch", failing(ZeroDivisionError("a fault")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fetch"])


def test_an_interrupt_is_not_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr(assets, "fetch", failing(KeyboardInterrupt()))
    assert cli.main(["fetch"]) == 130
    assert capsys.readouterr().err == "mechkit: stopped\n"


def test_progress_is_summed(monkeypatch, capsys):
    done = {
        "file": "progress.json",
        "passed": 1,
        "points": 2.5,
        "exercises": {"04_rank_of": {"status": "passed", "points": 2.5}, "04_lock_in": {"status": "failed"}},
        "predictions": {},
        "claims": {},
    }
    monkeypatch.setattr(progress, "summary", lambda: done)
    assert cli.main(["progress", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == done


def test_progress_is_drawn_together_and_may_be_taken_back(capsys):
    progress.Progress().change(lambda record: record["exercises"].update({"04_rank_of": {"status": "passed"}}))
    assert cli.main(["progress"]) == 0
    assert "04 the logit lens" in capsys.readouterr().out
    assert cli.main(["progress", "--csv"]) == 0
    assert "04,rank_of,passed" in capsys.readouterr().out
    assert cli.main(["progress", "--reset", "04_rank_of"]) == 0
    assert "`mechkit progress --undo` brings it back" in capsys.readouterr().out
    assert cli.main(["progress", "--reset", "04_rank_of"]) == 1
    assert "nothing was done of '04_rank_of'" in capsys.readouterr().err
    assert cli.main(["progress", "--undo"]) == 0
    assert capsys.readouterr().out == "04_rank_of is as it was\n"


@pytest.mark.parametrize("problems", [[], ["chapters/04_logit_lens.ipynb is missing; run `mechkit build`."]])
def test_build_check_reports_and_writes_nothing(problems, monkeypatch, capsys):
    monkeypatch.setattr(authoring, "check", lambda root, names: problems)
    monkeypatch.setattr(authoring, "build", failing(AssertionError("it should only look")))
    assert cli.main(["build", "--check"]) == len(problems)
    assert capsys.readouterr().out.splitlines() == problems


def test_build_uses_the_checkout_that_we_stand_in(monkeypatch, capsys, tmp_path):
    inside = tmp_path / "solutions" / "deep"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    asked = []

    def build(root, names, execute):
        asked.append((root, names, execute))
        return [root / "chapters" / "04_logit_lens.ipynb"]

    monkeypatch.setattr(authoring, "build", build)
    assert cli.main(["build", "--execute", "04"]) == 0
    assert asked == [(tmp_path, ["04"], True)]
    assert capsys.readouterr().out.replace("\\", "/") == "chapters/04_logit_lens.ipynb\n"


def test_a_site_without_sphinx_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "mechkit.course.site", None)
    assert cli.main(["site", str(tmp_path / "out")]) == 1
    assert "wanted Sphinx to write a site" in (said := capsys.readouterr().err)
    assert 'pip install -e ".[site]"' in said
    assert not (tmp_path / "out").exists()


def test_exercises_are_listed(capsys):
    assert cli.main(["exercises", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["exercises"]
    keys = {"id", "chapter", "kind", "level", "points", "minutes", "mistakes", "hints", "hidden_cases", "control"}
    assert rows
    assert all(set(row) == keys for row in rows)
    assert cli.main(["exercises"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"ratios": {"cached run / bare forward": 1.07}}, "cached run / bare forward: 1.07\n"),
        (
            {"chapters": [{"chapter": "04", "seconds": 60.0}, {"chapter": "05", "seconds": 50.5}]},
            "chapter: 04  seconds: 60.0\nchapter: 05  seconds: 50.5\n",
        ),
    ],
)
def test_a_bench_prints_what_it_found(found, text, monkeypatch, capsys):
    monkeypatch.setitem(cli.BENCHES, "cache", lambda: found)
    assert cli.main(["bench", "cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert cli.main(["bench", "cache"]) == 0
    assert capsys.readouterr().out == text


def test_a_bench_that_is_over_its_bar_is_exit_code_1(monkeypatch, capsys):
    asked, found = [], {"chapters": [{"chapter": "04", "peak_mb": 1700}], "over": ["04 takes too much."]}
    monkeypatch.setitem(cli.BENCHES, "chapters", lambda names: asked.append(names) or found)
    assert cli.main(["bench", "chapters", "04", "--json"]) == cli.main(["bench", "chapters", "04"]) == 1
    assert asked == [["04"], ["04"]]
    assert capsys.readouterr().out.endswith("chapter: 04  peak_mb: 1700\n04 takes too much.\n")
    assert cli.main(["bench", "cache", "04"]) == 1
    assert "go with `mechkit bench chapters`" in capsys.readouterr().err


def test_a_bench_of_grading_takes_a_number_of_notebooks(monkeypatch, capsys):
    monkeypatch.setitem(cli.BENCHES, "grading", lambda notebooks: {"ratios": {"notebooks": notebooks}})
    assert cli.main(["bench", "grading", "--notebooks", "30"]) == 0
    assert capsys.readouterr().out == "notebooks: 30\n"
    for wrong in (["cache", "--notebooks", "30"], ["grading", "--notebooks", "0"]):
        assert cli.main(["bench", *wrong]) == 1
        assert "goes with grading" in capsys.readouterr().err


@pytest.fixture
def opened(monkeypatch):
    """What `mechkit lab` would open; no chapters are copied and no model is made."""
    seen = SimpleNamespace(calls=[])
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)
    monkeypatch.setattr(workspace, "copy_chapters", lambda folder: workspace.Copied(added=("00_start_here.ipynb",)))
    monkeypatch.setattr(workspace, "open_lab", lambda folder, browser: seen.calls.append((folder.name, browser)) or 0)
    monkeypatch.setattr(assets, "default_model", lambda: None)
    return seen


def test_lab_copies_the_chapters_and_opens_them(opened, capsys):
    assert cli.main(["lab"]) == cli.main(["lab", "mine", "--no-browser"]) == 0
    assert opened.calls == [("mechkit-work", True), ("mine", False)]
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"Your work folder is {Path('mine').absolute()}.",
        "New: 00_start_here.ipynb.",
    ]


def test_a_folder_that_lab_cannot_use_is_a_sentence_and_nothing_is_opened(opened, monkeypatch, capsys):
    monkeypatch.setattr(workspace, "copy_chapters", failing(ValueError("name another folder")))
    assert cli.main(["lab", "other"]) == 1
    assert capsys.readouterr() == ("", "mechkit: name another folder\n")
    assert not opened.calls


def test_lab_opens_without_a_model_and_says_why(opened, monkeypatch, capsys):
    monkeypatch.setattr(assets, "default_model", failing(assets.AssetError("no network")))
    assert cli.main(["lab"]) == 0
    assert opened.calls
    assert capsys.readouterr().err == "mechkit: no network\n"


def test_lab_fetches_nothing_when_another_model_is_named(opened, monkeypatch):
    monkeypatch.setenv("MECHKIT_MODEL", "gpt2")
    monkeypatch.setattr(assets, "default_model", failing(AssertionError("it should not be asked for")))
    assert cli.main(["lab"]) == 0
