"""What others, and this project before, have measured: numbers as published or recorded, with their conditions.

None of these compares directly with another: surveys, negatives and arcs differ, so each says on what it was measured.
"""

from dataclasses import dataclass

#: A number, or the range that a source gives.
Published = float | tuple[float, float] | None


@dataclass(frozen=True)
class PriorResult:
    """One published or recorded result.

    auroc: area under the ROC curve. tpr_1e4, tpr_1e3, tpr_1e2: completeness at FPR 1e-4, 1e-3, 1e-2. fpr_85: FPR at a
    completeness of 0.85. recall: of real lenses, at p = 0.5 unless `also` says otherwise. also: what fits no column.
    """

    who: str
    measured_on: str
    source: str
    auroc: Published = None
    tpr_1e4: Published = None
    tpr_1e3: Published = None
    tpr_1e2: Published = None
    fpr_85: Published = None
    recall: Published = None
    also: str = ""


_RECORD = "records of the earlier pipeline"
_SIMULATED = "simulated arcs on DR10"

PRIOR_RESULTS: tuple[PriorResult, ...] = (
    PriorResult(
        "CMU DeepLens",
        "LSST-like simulations, θ_E > 1.4 arcsec, S/N > 20",
        "Lanusse et al. 2018, arXiv:1703.02642",
        tpr_1e2=0.90,
    ),
    PriorResult(
        "Bayesian ensemble",
        "HSC, wide-area survey settings",
        "MNRAS 2024, doi:10.1093/mnras/stae875",
        tpr_1e3=(0.34, 0.46),
    ),
    PriorResult("HOLISMOKES XVI", "HSC", "HOLISMOKES XVI", tpr_1e4=0.75),
    PriorResult("DR10 search of 2025", "DR10, real images", "Inchausti et al. 2025", auroc=(0.9984, 0.9989)),
    PriorResult(
        "state of the art as the configuration review puts it",
        "simulated test sets",
        "configuration review of Gen5-Prime, Q3 (Jacobs, Lanusse, Huang et al.)",
        auroc=(0.95, 0.98),
        also="precision 0.85 at recall 0.90; sim-to-real purity 0.50-0.70",
    ),
    PriorResult(
        "real-image finder on this survey (EfficientNetV2-S, gen4)",
        "DR10, real lenses; AUC on the validation split that also chose the epoch",
        f"{_RECORD}, 2026",
        auroc=0.9921,
        tpr_1e3=0.795,
        recall=0.839,
        also="recall of Tier-A, n = 112; TPR are of real lenses, 0.482 at FPR 3e-4; probe of real lenses against "
        "injections 0.997; completeness of Sersic injections 0.052",
    ),
    PriorResult(
        "ResNet18 on real images",
        "DR10, real lenses, test split",
        f"{_RECORD}, 2026",
        auroc=0.9579,
        recall=0.604,
        also="Tier-A, n = 48; all tiers 0.436; FPR 0.0015 at p = 0.5; ECE 0.0027",
    ),
    PriorResult(
        "Gen1, ResNet18",
        f"{_SIMULATED}, v3_color_relaxed; AUC of validation",
        _RECORD,
        auroc=0.9963,
        tpr_1e4=0.004,
        tpr_1e3=0.352,
        tpr_1e2=0.747,
        fpr_85=0.062,
    ),
    PriorResult(
        "Path A, ConvNeXt-Tiny",
        f"{_SIMULATED}, v3_color_relaxed, θ_E/PSF ≥ 0.5",
        _RECORD,
        tpr_1e4=0.0,
        tpr_1e3=0.710,
        tpr_1e2=0.855,
    ),
    PriorResult(
        "Gen2, ConvNeXt-Tiny",
        f"{_SIMULATED}, v4_sota",
        _RECORD,
        auroc=0.9906,
        tpr_1e4=0.751,
        tpr_1e3=0.861,
        tpr_1e2=0.933,
        recall=2 / 68,
        also="Gen3's overview has TPR 0.778 at FPR 1e-4 and FPR 0.0017 at TPR 0.85; real lenses: SLACS and BELLS",
    ),
    PriorResult(
        "Gen3, ConvNeXt-Tiny",
        f"{_SIMULATED}, v4_sota_moffat",
        _RECORD,
        auroc=0.9829,
        tpr_1e4=0.668,
        tpr_1e3=0.781,
        also="its target: TPR above 0.85 at FPR 1e-4, FPR below 0.001 at TPR 0.85",
    ),
    PriorResult(
        "Gen4, ConvNeXt-Tiny",
        f"{_SIMULATED}, v4_sota_moffat",
        _RECORD,
        auroc=0.9904,
        tpr_1e4=0.745,
        tpr_1e3=0.801,
        tpr_1e2=0.930,
    ),
    PriorResult(
        "Gen5, ConvNeXt-Tiny",
        f"{_SIMULATED}, COSMOS sources",
        _RECORD,
        auroc=0.9945,
        tpr_1e3=0.852,
        tpr_1e2=0.936,
        recall=3 / 68,
        also="validation AUC 0.8945; real lenses: SLACS and BELLS, 12 of 68 at p = 0.3",
    ),
    PriorResult(
        "Gen5-Prime, three-channel ResNet18, paired",
        f"{_SIMULATED}, COSMOS sources; AUC of validation",
        _RECORD,
        auroc=0.9913,
        also="core-only classifier of its data 0.9497, which fails its gate",
    ),
)
