"""Every success target of the plans as data: what is measured of which generation, and what it must come to.

Sources: the overview of Gen3 (2026-01-31), the project handoff, the execution plan of Gen5-Prime (2026-02-05), its
configuration review, and the calibration plan for real images (2026-02-10). Where two plans set one quantity two
thresholds, both are targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dark_halo_scope.evaluation.target_metrics import (
    At,
    Difference,
    GatesPassed,
    Keys,
    Largest,
    Metric,
    Nowhere,
    RedFlags,
    SmallestRate,
    Strata,
    Where,
)

Bound = Literal["at least", "at most", "above", "below", "equal to"]

SIGNS: Mapping[Bound, str] = {"at least": ">=", "at most": "<=", "above": ">", "below": "<", "equal to": "="}

_GEN3 = "overview of Gen3"
_PLAN = "execution plan of Gen5-Prime"
_REVIEW = "configuration review of Gen5-Prime"
_HANDOFF = "project handoff"
_CALIBRATION = "calibration plan"

_PRIME = ("gen5_prime",)
_PRIMES = ("gen5_prime", "gen5_prime_paired")
_REVIEWED = ("gen5_prime_paired", "gen5_prime")
_REAL = ("real_resnet18",)

_ON_PAIRS = "positives against controls of the gate dataset's test split"
_ON_INJECTIONS = f"{_ON_PAIRS}; arcs are injected"
_ON_VALIDATION = "the validation split, in training; one epoch, no interval"
_ON_LENSES = (
    "known lenses by cutouts of the cutout service; Tier-A are lists that machine learning made of the same images, so "
    "that recall on them is circular"
)
_REAL_TEST = "test split of real images that chose nothing"
_REAL_LENSES = (
    f"{_REAL_TEST}; circular where machine learning found the lenses in these very images, as it did all of them that "
    "the default settings take of lenscat: `not_circular` of known_lenses.json is of lenses that were found otherwise"
)

#: Resolved lenses of the handoff: theta_E / PSF of at least 0.5, as strata of stratified_fpr.csv.
_RESOLVED = ("res[0.5,0.7)", "res[0.7,0.9)", "res[0.9,1.1)", "res[1.1,1.4)", "res[1.4,2)")


def _performance(*steps: str | Where) -> At:
    return At("performance", ("positives_vs_controls", *steps))


def _day_3(name: str) -> At:
    return At("history", ("decisions", Where("name", "day 3"), "items", Where("name", name)))


def _check(name: str) -> At:
    return At("history", ("checks", name, "last"))


def _tier_a(threshold: str) -> At:
    return At("anchors", ("recall", "tier_gen5_prime", "A", threshold))


_HARD_NEGATIVE_FPR = At("performance", ("fpr_at_threshold", "hard_negative"))
_ECE = At("calibration", ("test", "probabilities", "platt", "ece"))

_REAL_ECE = At("validation", ("calibration", "test", "probabilities", "platt", "ece"))
_REAL_TIER_A = At("validation", ("recall", "tier", "A", "p0.5"))

_CONFUSERS = tuple(f"confuser {name}" for name in ("ring_proxy", "edge_on_proxy", "blue_clumpy", "large_galaxy"))


@dataclass(frozen=True)
class Target:
    """One success target.

    name: unique. source: the plan and its section. what: the quantity. condition: on what it is measured here, where
    that is not what the plan had in mind. generations: whom the plan sets it for. margin: how far from `equal to` is
    still equal.
    """

    name: str
    source: str
    what: str
    metric: Metric
    bound: Bound
    threshold: float
    generations: tuple[str, ...]
    condition: str
    margin: float = 0.0

    @property
    def due(self) -> str:
        """Bound and threshold for a reader."""
        return f"{SIGNS[self.bound]} {self.threshold:g}" + (f" +- {self.margin:g}" if self.margin else "")


_HYBRIDS = "hybrids of test pairs with theta_E / PSF >= 1"
_GATE_TARGETS: tuple[tuple[str, str, Bound, float, str], ...] = (
    ("G1", "core-only AUC", "at most", 0.60, _HYBRIDS),
    ("G2", "radial-profile AUC", "at most", 0.60, _HYBRIDS),
    ("G3", "arc-annulus AUC", "at least", 0.75, _HYBRIDS),
    ("G4", "mean p of hard negatives", "at most", 0.05, "hard negatives of the test split"),
    ("G5", "drop of p where the arc is occluded", "at least", 0.30, "positives of the test split"),
)
_GATES = tuple(
    Target(
        f"gate_{name}",
        f"{_PLAN}, section 3.2",
        what,
        At("gates", ("gates", name)),
        bound,
        threshold,
        _PRIMES,
        condition,
    )
    for name, what, bound, threshold, condition in _GATE_TARGETS
)

TARGETS: tuple[Target, ...] = (
    Target(
        "gen3_tpr_at_fpr_1e-4",
        f"{_GEN3}, expected performance",
        "TPR at FPR 1e-4",
        _performance("tpr_at_fpr", Where("fpr_target", 1e-4)),
        "above",
        0.85,
        ("gen3",),
        f"{_ON_INJECTIONS}; the plan had test scores of v4_sota_moffat",
    ),
    Target(
        "gen3_fpr_at_tpr_0.85",
        f"{_GEN3}, expected performance",
        "FPR at TPR 0.85",
        _performance("fpr_at_tpr", Where("tpr_target", 0.85)),
        "below",
        0.001,
        ("gen3",),
        f"{_ON_INJECTIONS}; the plan had test scores of v4_sota_moffat",
    ),
    *_GATES,
    Target(
        "critical_gates",
        f"{_PLAN}, section 3.2",
        "critical gates (G1, G2, G4) that pass, of three",
        GatesPassed(("critical",)),
        "at least",
        3,
        _PRIMES,
        "from those that pass with their whole interval to those that may",
    ),
    Target(
        "day_3_val_auc",
        f"{_PLAN}, day 3 checkpoint",
        "validation AUC mid-training",
        _day_3("val_auc"),
        "above",
        0.80,
        _PRIMES,
        _ON_VALIDATION,
    ),
    Target(
        "day_3_core_auc",
        f"{_PLAN}, day 3 checkpoint",
        "core AUC mid-training",
        _day_3("core_auc"),
        "below",
        0.75,
        _PRIMES,
        _ON_VALIDATION,
    ),
    Target(
        "day_3_hard_negative_mean_p",
        f"{_PLAN}, day 3 checkpoint",
        "mean p of hard negatives mid-training",
        _day_3("hard_negative_mean_p"),
        "below",
        0.20,
        _PRIMES,
        _ON_VALIDATION,
    ),
    Target(
        "day_5_gates",
        f"{_PLAN}, day 5 checkpoint",
        "gates that pass, of five (4 with justification)",
        GatesPassed(),
        "at least",
        4,
        _PRIMES,
        "from those that pass with their whole interval to those that may",
    ),
    Target(
        "day_5_tier_a_recall",
        f"{_PLAN}, day 5 checkpoint",
        "recall of Tier-A anchors at p = 0.5",
        _tier_a("p0.5"),
        "above",
        0.40,
        _PRIMES,
        _ON_LENSES,
    ),
    Target(
        "day_5_hard_negative_fpr",
        f"{_PLAN}, day 5 checkpoint",
        "share of hard negatives with p of at least 0.5",
        _HARD_NEGATIVE_FPR,
        "below",
        0.10,
        _PRIMES,
        "hard negatives of the test split",
    ),
    Target(
        "anchors_recall_at_0.5",
        f"{_PLAN}, section 4.3 (0.40-0.60 expected)",
        "recall of Tier-A anchors at p = 0.5",
        _tier_a("p0.5"),
        "at least",
        0.40,
        _PRIMES,
        _ON_LENSES,
    ),
    Target(
        "anchors_recall_at_0.3",
        f"{_PLAN}, section 4.3 (0.60-0.80 expected)",
        "recall of Tier-A anchors at p = 0.3",
        _tier_a("p0.3"),
        "at least",
        0.60,
        _PRIMES,
        _ON_LENSES,
    ),
    Target(
        "anchors_hard_negative_fpr",
        f"{_PLAN}, section 4.3",
        "share of hard negatives with p of at least 0.5",
        _HARD_NEGATIVE_FPR,
        "below",
        0.05,
        _PRIMES,
        "hard negatives of the test split",
    ),
    Target(
        "no_red_flags",
        f"{_PLAN}, section 2.4",
        "red flags raised in training",
        RedFlags(),
        "at most",
        0,
        _PRIMES,
        "all epochs; the plan's flags come after epoch 15, here after the epoch that the configuration says",
    ),
    Target(
        "handoff_completeness",
        f"{_HANDOFF}, success criteria",
        "completeness on resolved lenses at FPR 1e-3 (FPR <= 1e-3 at >= 80% completeness)",
        Strata("TPR@FPR0.001", _RESOLVED),
        "at least",
        0.80,
        ("gen1_resolved", "gen2", "gen5_prime"),
        f"{_ON_INJECTIONS}; 0.5 <= theta_E / PSF < 2, where the strata end",
    ),
    Target(
        "handoff_fpr_of_the_easiest_stratum",
        f"{_HANDOFF}, success criteria",
        "FPR at completeness 0.80 where it is smallest: resolved lenses together cannot have a lower one, nor a higher "
        "one than where it is largest, at which the interval ends",
        SmallestRate("FPR@TPR0.80", _RESOLVED),
        "at most",
        1e-3,
        ("gen1_resolved", "gen2", "gen5_prime"),
        f"{_ON_INJECTIONS}; strata of theta_E / PSF from 0.5 to 2",
    ),
    Target(
        "handoff_completeness_surfaces",
        f"{_HANDOFF}, success criteria",
        "completeness surfaces by theta_E, PSF and depth: how many of the three",
        Keys("completeness", ("marginals",), ("theta_e_arcsec", "psfsize_r", "psfdepth_r")),
        "at least",
        3,
        _PRIME,
        _ON_INJECTIONS,
    ),
    Target(
        "handoff_reproducible",
        f"{_HANDOFF}, success criteria",
        "reproducible pipeline from survey data to candidates",
        Nowhere("one run shows no number; tests/dag/test_reruns.py and tests/end_to_end/test_main_job.py show it"),
        "at least",
        1,
        _PRIME,
        "the embedded survey",
    ),
    Target(
        "review_auroc",
        f"{_REVIEW}, Q3",
        "AUROC on the simulated test set",
        _performance("auroc"),
        "above",
        0.97,
        _REVIEWED,
        _ON_INJECTIONS,
    ),
    Target(
        "review_precision_at_recall_0.90",
        f"{_REVIEW}, Q3",
        "precision at recall 0.90",
        _performance("precision_at_recall", Where("recall_target", 0.90)),
        "above",
        0.90,
        _REVIEWED,
        f"{_ON_INJECTIONS}; as many negatives as positives, unlike the sky",
    ),
    Target(
        "review_purity",
        f"{_REVIEW}, Q3",
        "sim-to-real purity: share of real lenses among real candidates",
        Nowhere("purity needs the graded candidates of a search of the sky, which nobody has made"),
        "above",
        0.75,
        _REVIEWED,
        "real images",
    ),
    Target(
        "review_val_auroc_by_epoch_20",
        f"{_REVIEW}, section 3.1",
        "validation AUROC by epoch 20",
        _check("val_auc"),
        "above",
        0.90,
        _REVIEWED,
        f"{_ON_VALIDATION}; the last epoch, where training was shorter",
    ),
    Target(
        "review_loss_gap",
        f"{_REVIEW}, section 3.1",
        "validation loss less training loss",
        _check("loss_gap"),
        "below",
        0.10,
        _REVIEWED,
        _ON_VALIDATION,
    ),
    Target(
        "review_gradient_norm",
        f"{_REVIEW}, section 3.1",
        "largest gradient norm of the last epoch's steps",
        _check("gradient_norm"),
        "below",
        10.0,
        _REVIEWED,
        _ON_VALIDATION,
    ),
    Target(
        "review_brick_auroc_std",
        f"{_REVIEW}, section 3.2",
        "standard deviation of AUROC over bricks",
        _check("brick_auc_std"),
        "below",
        0.05,
        _REVIEWED,
        f"{_ON_VALIDATION}; n counts bricks",
    ),
    Target(
        "review_undetectable_arcs",
        f"{_REVIEW}, section 3.2",
        "accuracy on arcs of arc_snr 0",
        _check("arc_snr_0_accuracy"),
        "below",
        0.60,
        _REVIEWED,
        f"{_ON_VALIDATION}; datasets that are built here have no such arcs",
    ),
    Target(
        "review_auroc_grows_with_theta_e",
        f"{_REVIEW}, section 3.2",
        "AUROC of the widest bin of theta_E less that of the narrowest",
        _check("theta_e_auc"),
        "above",
        0.0,
        _REVIEWED,
        f"{_ON_VALIDATION}; n counts bins",
    ),
    Target(
        "review_ece",
        f"{_REVIEW}, Q9 (threshold: {_CALIBRATION}, section 10.1)",
        "ECE in bins of equal mass after Platt scaling",
        _ECE,
        "at most",
        0.10,
        _REVIEWED,
        f"{_ON_PAIRS}; scaled on the validation split. A constant p passes as well: see the trivial predictor's ECE",
    ),
    Target(
        "minimum_tier_a_recall",
        f"{_CALIBRATION}, section 10.1",
        "recall of Tier-A at p = 0.5",
        _REAL_TIER_A,
        "at least",
        0.75,
        _REAL,
        _REAL_LENSES,
    ),
    Target(
        "validation_tier_a_recall",
        f"{_CALIBRATION}, section 6.3",
        "recall of Tier-A at p = 0.5",
        _REAL_TIER_A,
        "above",
        0.80,
        _REAL,
        _REAL_LENSES,
    ),
    Target(
        "minimum_tier_a_auc",
        f"{_CALIBRATION}, section 10.1",
        "AUC of Tier-A against negatives",
        At("validation", ("auc", "tier", "A")),
        "at least",
        0.90,
        _REAL,
        _REAL_TEST,
    ),
    Target(
        "minimum_contaminant_fpr",
        f"{_CALIBRATION}, section 10.1",
        "share of a confuser class (N2) with p of at least 0.5, of the class where it is largest",
        Largest("validation", ("fpr", "sample"), _CONFUSERS, ("p0.5",)),
        "at most",
        0.10,
        _REAL,
        _REAL_TEST,
    ),
    Target(
        "minimum_ece",
        f"{_CALIBRATION}, section 10.1",
        "ECE in bins of equal mass after Platt scaling",
        _REAL_ECE,
        "at most",
        0.10,
        _REAL,
        f"{_REAL_TEST}; scaled on the validation split. At 1:100 a constant p passes as well",
    ),
    Target(
        "minimum_stability",
        f"{_CALIBRATION}, section 10.1",
        "red flags of collapse in training (NaN stops it)",
        RedFlags(("auc_drop", "auc_stuck")),
        "at most",
        0,
        _REAL,
        "all epochs",
    ),
    Target(
        "publication_tier_a_recall",
        f"{_CALIBRATION}, section 10.2",
        "recall of Tier-A at p = 0.5",
        _REAL_TIER_A,
        "at least",
        0.85,
        _REAL,
        _REAL_LENSES,
    ),
    Target(
        "publication_confusers_reported",
        f"{_CALIBRATION}, section 10.2",
        "FPR reported by confuser category: how many of four",
        Keys("validation", ("fpr", "sample"), _CONFUSERS),
        "at least",
        4,
        _REAL,
        _REAL_TEST,
    ),
    Target(
        "publication_spatial_generalisation",
        f"{_CALIBRATION}, section 10.2 (validation AUC about test AUC)",
        "test AUROC less validation AUROC",
        Difference(At("validation", ("spatial", "test_auc")), At("validation", ("spatial", "val_auc"))),
        "equal to",
        0.0,
        _REAL,
        "splits by HEALPix cell; met where the whole interval of the difference lies within 0.02 of 0, a margin that "
        "the plan does not name",
        margin=0.02,
    ),
    Target(
        "publication_strata",
        f"{_CALIBRATION}, section 10.2",
        "metrics by PSF, depth and exposures: how many of three",
        Keys("validation", ("strata",), ("psfsize_r", "psfdepth_r", "nobs_z")),
        "at least",
        3,
        _REAL,
        _REAL_TEST,
    ),
    Target(
        "publication_selection_function",
        f"{_CALIBRATION}, section 10.2",
        "selection function computed after the model was frozen: axes measured of theta_E and z",
        Keys("selection_function", ("marginals",), ("theta_e_arcsec", "z_phot")),
        "at least",
        2,
        _REAL,
        "injections onto hosts of the test split",
    ),
)


def needed(generation: str) -> list[str]:
    """Artifacts that the targets of a generation read; empty where none is set for it."""
    own = [target for target in TARGETS if generation in target.generations]
    return list(dict.fromkeys(artifact for target in own for artifact in target.metric.artifacts))


def generations() -> list[str]:
    """Every generation that a target is set for, in the order of the registry."""
    return list(dict.fromkeys(generation for target in TARGETS for generation in target.generations))
