"""mechkit: take a language model apart, in numbered notebooks that check what you find.

    import mechkit as mk
    lesson = mk.lesson("04")

The names below are loaded when first used, so that importing mechkit is instant.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "network.loading": ("load_model",),
    "network.model": ("LanguageModel",),
    "network.sites": ("site_table",),
    "network.hooks": ("Edit", "edit"),
    "network.cache": ("Cache", "run"),
    "network.replay": ("Replay",),
    "methods.metrics": ("kl_divergence", "logit_difference", "loss", "rank_of"),
    "methods.toy": (
        "Toy",
        "anticorrelated",
        "correlated",
        "dimensionality",
        "independent",
        "interference",
        "is_represented",
        "near_orthogonal",
        "random_directions",
        "train_toys",
    ),
    "methods.words": ("UnknownWord", "WordVectors", "load_words", "token_words"),
    "methods.analogies": (
        "Solved",
        "analogy",
        "left_out_cosines",
        "pair_offsets",
        "principal_components",
        "random_offsets",
        "solve_analogies",
        "solve_offsets",
    ),
    "methods.splits": ("control_labels", "random_labels", "split_by_example", "split_by_word"),
    "methods.probes": (
        "LinearProbe",
        "MLPProbe",
        "accuracy",
        "at_layer",
        "auc",
        "cross_validate",
        "features",
        "fit_logistic",
        "fit_mass_mean",
        "fit_mlp",
        "last_logits",
        "layer_sweep",
    ),
    "methods.erasure": ("Eraser", "add_direction", "fit_leace", "mean_difference", "project_out", "random_like"),
    "methods.ccs": ("ContrastProbe", "ccs_loss", "fit_ccs"),
    "methods.lens": ("logit_lens", "patchscope"),
    "methods.affine": ("AffineLens", "LeastSquares", "affine_lens", "fit_affine_lens", "tune_layer"),
    "methods.attribution": ("Attribution", "direct_logit_attribution", "logit_direction", "written_logits"),
    "methods.heads": (
        "copying_scores",
        "duplicate_token_score",
        "head_scores",
        "induction_score",
        "ov_logits",
        "previous_token_score",
        "repeated_tokens",
        "without_sender",
    ),
    "methods.phase": ("AttentionOnly", "PhaseRun", "repeating_texts", "train_attention_only"),
    "methods.ablation": ("ablate_sweep", "mean", "resample", "zero"),
    "methods.circuits": (
        "Circuit",
        "Trial",
        "completeness",
        "end_attention",
        "faithfulness",
        "head_name",
        "matched_circuits",
        "minimality",
    ),
    "methods.patching": ("Pair", "patch_sweep", "patched_logits", "path_patch"),
    "methods.gradients": ("attribution_patch",),
    "methods.tracing": ("NoisyRuns", "Trace", "restore", "subject_positions", "trace"),
    "methods.editing": ("Request", "Rewrite", "key_covariance", "rank_one_update", "rewritten", "subject_key"),
    "methods.rewriting": ("fine_tune", "rome"),
    "methods.sae": ("SAE", "JumpReLU", "ReLU", "TopK", "sae_loss"),
    "methods.sae_activations": ("Activations", "gather", "middle_layer", "ordinary_tokens"),
    "methods.sae_training": ("SAETraining", "train_sae"),
    "methods.sae_metrics": (
        "LossRecovered",
        "SAEMetrics",
        "loss_recovered",
        "pca_dictionary",
        "random_dictionary",
        "sae_metrics",
        "splice",
        "variance_explained",
    ),
    "methods.sae_files": ("load_sae", "save_sae"),
    "methods.sae_features": (
        "Label",
        "change_features",
        "clearly_on",
        "detection_score",
        "feature_examples",
        "label_from_tokens",
        "promoted",
        "token_statistics",
    ),
    "methods.sae_quiz": ("Quiz", "feature_quiz"),
    "data.corpus": ("load_corpus",),
    "data.dictionaries": ("Dictionaries", "dictionaries"),
    "data.labels": ("load_labels", "make_labels"),
    "data.prompts": ("FACTS", "HIDDEN_FACTS", "VISIBLE_FACTS", "contrast"),
    "data.topics": ("TOPICS",),
    "data.ioi": ("IOI_NAMES", "IOI_TEMPLATES", "ioi_positions", "ioi_prompts", "ioi_reference"),
    "data.published": ("published",),
    "data.words": ("OCCUPATIONS", "WORD_PAIRS", "analogy_questions"),
    "data.counterfacts": ("COUNTERFACTS", "TRACED_FACTS", "known_prompts"),
    "data.properties": ("PROPERTIES", "load_property"),
    "data.probe_results": ("ProbeSweep", "load_probe_results", "measure"),
    "data.fact_results": ("by_role", "load_edits", "load_traces", "measure_edit"),
    "data.patching_results": ("Recipe", "StoredSweep", "load_patch_sweep", "measure_sweep"),
    "data.sae": ("load_features", "sae_results", "sae_texts"),
    "show.plots": (
        "attention_map",
        "contribution_bars",
        "layer_lines",
        "lens_map",
        "probability_bars",
        "probability_map",
        "signed_map",
        "vectors_2d",
    ),
    "show.attention": ("show_attention",),
    "show.circuits": ("circuit_graph",),
    "show.features": (
        "FeatureCard",
        "density_histogram",
        "feature_card",
        "feature_dashboard",
        "label_scores",
        "tradeoff",
    ),
    "show.words": ("share_dots", "word_line", "word_map"),
    "show.explorers.analogy": ("AnalogyExplorer", "AnalogyReading", "analogy_table"),
    "show.explorers.facts": ("FactExplorer", "FactReading", "fact_reading", "fact_table"),
    "show.explorers.features": ("FeatureExplorer",),
    "show.explorers.heads": ("HeadExplorer", "HeadReading", "head_table"),
    "show.explorers.circuit": ("CircuitExplorer",),
    "show.explorers.lens": ("LensExplorer", "LensReading", "lens_reading", "lens_table"),
    "show.explorers.patch": ("PatchExplorer", "PatchReading", "patch_reading", "patch_table"),
    "show.explorers.probes": ("ProbeExplorer", "probe_table"),
    "show.explorers.steer": ("SteerExplorer", "Steering", "steer_lines", "steer_table"),
    "show.explorers.superposition": (
        "Gallery",
        "SuperpositionExplorer",
        "dimensionality_strip",
        "feature_panels",
        "gallery_table",
    ),
    "course.lesson": ("lesson",),
    "course.dashboard": ("dashboard",),
    "course.glossary": ("glossary",),
    "course.selftest": ("self_test",),
}
_HOMES = {name: f"mechkit.{home}" for home, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"mechkit has no {name!r}; it offers {', '.join(sorted(_HOMES))}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
