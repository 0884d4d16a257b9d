"""The shipped dictionaries reach what they must, the table says by how much, and a small part can be made again."""

import inspect
import json

import pytest
import torch

from mechkit.data import sae as data
from mechkit.data.corpus import load_corpus
from mechkit.data.sae import BASELINES, FOLDER, KINDS, RESULTS, SWEEP, load_features, main, sae_results, sae_texts
from mechkit.methods.sae import TopK
from mechkit.methods.sae_activations import gather, middle_layer
from mechkit.methods.sae_files import WEIGHTS_FILE
from mechkit.methods.sae_metrics import loss_recovered, sae_metrics

TABLES = {"shipped": KINDS, "sweep": tuple(recipe.name for recipe in SWEEP), "baselines": BASELINES}


def row(name):
    results = sae_results()
    return next(each for table in TABLES for each in results[table] if each["name"] == name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_dictionary_is_there_small_and_says_what_it_reads(kind):
    sae = load_features(kind)
    assert sae.activation == TopK(32)
    assert sae.site == (("mlp_in", "mlp_out") if kind == "transcoder" else "resid_post")
    assert sae.layer == sae_results()["about"]["layer"] == 15
    assert sae.d_sae == row(kind)["d_sae"]
    assert sae.W_dec.norm(dim=-1).tolist() == pytest.approx([1.0] * sae.d_sae, abs=1e-4)
    size = (FOLDER / f"sae_{kind}" / WEIGHTS_FILE).stat().st_size
    assert size < (3_000_000 if kind == "small" else 12_000_000)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_there(table):
    assert tuple(each["name"] for each in sae_results()[table]) == TABLES[table]


def test_held_out_text_is_explained_and_the_model_goes_on_from_it():
    found = row("sae")
    assert found["metrics"]["l0"] == pytest.approx(32, abs=0.1)
    assert found["metrics"]["variance_explained"] >= 0.80
    assert found["loss"]["against_mean"] >= 0.95
    assert found["metrics"]["dead"] < 0.05 * found["d_sae"]


def test_it_beats_what_was_not_learned_by_a_wide_margin():
    found = row("sae")
    for name in ("main components", "best components", "random directions"):
        other = row(name)
        assert other["metrics"]["l0"] == 32
        left_over = 1 - found["metrics"]["variance_explained"]
        assert left_over < 0.6 * (1 - other["metrics"]["variance_explained"]), name
        lost = found["loss"]["spliced"] - found["loss"]["clean"]
        assert lost < 0.5 * (other["loss"]["spliced"] - other["loss"]["clean"]), name


def test_the_transcoder_beats_a_linear_map_of_full_rank():
    assert row("transcoder")["metrics"]["variance_explained"] > row("linear map")["metrics"]["variance_explained"]


def test_a_penalty_trades_what_is_explained_for_few_features_and_topk_does_better():
    relu = [row(name)["metrics"] for name in TABLES["sweep"] if name.startswith("ReLU")]
    topk = [row(name)["metrics"] for name in TABLES["sweep"] if name.startswith("TopK")]
    for measure in ("l0", "variance_explained", "size"):
        values = [each[measure] for each in relu]
        assert values == sorted(values, reverse=True), measure
    assert [each["variance_explained"] for each in topk] == sorted(each["variance_explained"] for each in topk)
    for each in relu:
        fewer = [other["variance_explained"] for other in topk if other["l0"] <= each["l0"]]
        assert not fewer or max(fewer) > each["variance_explained"] or each["l0"] > 300


@pytest.mark.parametrize("name", KINDS + TABLES["sweep"])
def test_there_is_a_training_curve(name):
    found = row(name)
    curve = found["curve"]
    assert curve["steps"][0] == 0
    assert curve["steps"][-1] <= found["steps"]
    assert len({len(values) for values in curve.values()}) == 1
    assert curve["loss"][-1] < curve["loss"][0]


def test_texts_are_of_either_kind_and_every_tenth_is_held_out():
    known, held = sae_texts(), sae_texts(held_out=True)
    corpus = load_corpus(None)
    assert sorted(known + held) == sorted(corpus)
    assert held[0] == corpus[9]
    assert sae_texts(3) == corpus[:3]
    about = sae_results()["about"]
    assert (about["texts"], about["held_out_texts"]) == (len(known), len(held))


def test_results_are_a_fresh_copy():
    sae_results()["shipped"].clear()
    assert sae_results()["shipped"]


def test_its_help_shows_no_path_of_the_machine_that_made_it():
    for function in (load_features, sae_results):
        assert "/" not in str(inspect.signature(function))


def test_what_is_not_shipped_or_for_another_model_is_told(tiny_models):
    with pytest.raises(ValueError, match="one of the shipped dictionaries; came 'big': use one of sae, small, tr"):
        load_features("big")
    with pytest.raises(ValueError, match="an SAE of tiny llama, whose activations have 32 numbers; sae_sae is one"):
        load_features("sae", tiny_models["llama"])


def test_the_command_makes_every_kind_of_row_and_goes_on_where_it_was(tiny_models, tmp_path, monkeypatch, capsys):
    texts = ["the store gave a book to Mary and John went to the city", "Alice and Emma went to Paris"] * 4
    monkeypatch.setattr(data, "load_model", lambda: tiny_models["llama"])
    monkeypatch.setattr(data, "sae_texts", lambda limit=None, *, held_out=False: texts[:2] if held_out else texts[2:])
    options = ["--steps", "4", "--short", "2", "--judged", "1", "--out", str(tmp_path), "--work", str(tmp_path / "w")]
    main([*options, "--first", "2"])
    assert "random directions" not in capsys.readouterr().out
    main(options)
    made = capsys.readouterr().out
    assert "random directions" in made
    assert "main components" not in made  # it was there already
    results = json.loads((tmp_path / RESULTS).read_text(encoding="utf-8"))
    for table, names in TABLES.items():
        assert sorted(each["name"] for each in results[table]) == sorted(names)
    assert load_features("transcoder", tiny_models["llama"], folder=tmp_path).layer == middle_layer(
        tiny_models["llama"]
    )


@pytest.mark.slow
def test_the_shipped_numbers_are_found_again_on_some_of_the_text(default_model):
    lm, sae = default_model, load_features()
    texts = sae_texts(12, held_out=True)
    found = gather(lm, texts, sae.site, sae.layer)
    assert sae_metrics(sae, found.x).variance_explained == pytest.approx(
        row("sae")["metrics"]["variance_explained"], abs=0.03
    )
    losses = loss_recovered(lm, sae, texts[:4], sae.site, sae.layer)
    assert losses.against_mean == pytest.approx(row("sae")["loss"]["against_mean"], abs=0.03)
    transcoder = load_features("transcoder", lm)
    both = gather(lm, texts, transcoder.site, transcoder.layer)
    explained = sae_metrics(transcoder, both.x, both.target).variance_explained
    assert explained == pytest.approx(row("transcoder")["metrics"]["variance_explained"], abs=0.05)


@pytest.mark.slow
def test_a_small_part_can_be_made_again(tmp_path):
    options = ["--texts", "20", "--steps", "30", "--short", "2", "--judged", "1", "--first", "1"]
    main([*options, "--out", str(tmp_path), "--work", str(tmp_path / "work")])
    results = json.loads((tmp_path / RESULTS).read_text(encoding="utf-8"))
    assert results["shipped"][0]["metrics"]["l0"] == pytest.approx(32)
    assert results["about"]["texts"] == 20
    assert results["about"]["layer"] == 15
    assert results["shipped"][0]["metrics"]["variance_explained"] > 0.2
    x = torch.zeros(1, load_features(folder=tmp_path).d_in)
    assert load_features(folder=tmp_path)(x).isfinite().all()
