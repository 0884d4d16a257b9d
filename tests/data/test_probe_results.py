"""The shipped sweeps cover every property and layer, and a slice made again agrees."""

import json

import pytest
import torch

from mechkit.data import probe_results
from mechkit.data.probe_results import MEASURES, RESULTS_FILE, SEEDS, four_layers, load_probe_results, main, measure
from mechkit.data.properties import PROPERTIES, Property, Sentences, load_property
from mechkit.methods.probes import features
from mechkit.network.tiny import tiny_model


def small(name="number", words=8):
    """A property with a few of its words."""

    def part(sentences):
        known = list(dict.fromkeys(sentences.words))
        known = known[:: len(known) // words]
        rows = [i for i, word in enumerate(sentences.words) if word in known]
        return Sentences(*(tuple(column[i] for i in rows) for column in vars(sentences).values()))

    task = load_property(name)
    return Property(task.name, task.read_at, task.classes, task.changed, part(task.inside), part(task.outside))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_every_property_is_there_with_every_measure(kind):
    sweeps = load_probe_results(kind)
    assert list(sweeps) == list(PROPERTIES)
    for name, sweep in sweeps.items():
        assert sweep.layers == tuple(range(30) if kind == "linear" else four_layers(30))
        assert sweep.chance == 1 / len(load_property(name).classes)
        assert set(MEASURES) - set(sweep.measures) <= {"outside, order"}
        for table in (*sweep.measures.values(), sweep.selectivity):
            assert table.shape == (SEEDS, len(sweep.layers))
            assert bool((table.abs() <= 1).all())


def test_what_the_chapter_teaches_is_in_the_shipped_numbers():
    linear = {name: sweep.measures for name, sweep in load_probe_results().items()}
    assert linear["number"]["new words"][:, 27:].mean() > 0.95
    assert linear["truth"]["new words"].mean(0).max() > 0.8
    assert linear["truth"]["outside, order"].mean(0).min() < 0.1  # far below chance on negations
    control = {name: tables["control"].mean() for name, tables in linear.items()}
    assert control["part of speech"] > 0.8 > 0.7 > control["number"]


def test_an_unknown_kind_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match="wanted probes of the kind 'linear' or 'mlp'; came 'forest'"):
        load_probe_results("forest")


@pytest.mark.parametrize("mlp", [False, True])
def test_measuring_is_seeded(mlp):
    lm, task = tiny_model(), small()
    found = [features(lm, part.prompts) for part in (task.inside, task.outside)]
    first, again = (measure(task, *found, layers=[0, 2], seeds=2, mlp=mlp) for _ in range(2))
    assert first.measures.keys() == MEASURES.keys()
    assert all(torch.equal(table, again.measures[name]) for name, table in first.measures.items())
    assert first.selectivity.shape == (2, 2)


def test_the_command_writes_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(probe_results, "load_model", tiny_model)
    monkeypatch.setattr(probe_results, "load_property", small)
    main(["--seeds", "1", "--out", str(tmp_path / "results.json")])
    sweeps = load_probe_results("linear", tmp_path / "results.json")
    assert list(sweeps) == list(PROPERTIES)
    assert sweeps["language"].measures["control"].shape == (1, 3)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["model"] == "tiny llama"


@pytest.mark.slow
def test_a_slice_made_again_agrees_with_the_shipped_file(default_model):
    task, layers = load_property("sentiment"), [3, 15, 27]
    found = [features(default_model, part.prompts) for part in (task.inside, task.outside)]
    again = measure(task, *found, layers=layers, seeds=2)
    shipped = load_probe_results("linear", RESULTS_FILE)["sentiment"]
    for name, table in again.measures.items():
        torch.testing.assert_close(table, shipped.measures[name][:2, layers], atol=0.04, rtol=0)
