"""The realism ladder: what each step towards real lenses does to a linear probe and to recall.

Every rung injects the same draws into the same hosts with one more thing that real lenses have. Its probe is a linear
classifier of the finder's penultimate features, real lenses against the rung's injections, judged on cells of sky that
it was not fitted on: 0.5 where injections cannot be told from lenses. The last rung takes the one before onto hosts
that look like the lenses' galaxies, in their seeing and depth. Beside them stands the floor: what such a probe
finds between hosts and hosts, where there is nothing to find.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dark_halo_scope.evaluation.features import Features
from dark_halo_scope.evaluation.intervals import clopper_pearson
from dark_halo_scope.evaluation.ladder_config import LadderSettings
from dark_halo_scope.evaluation.matching import Match, host_photometry
from dark_halo_scope.evaluation.pairs import column, host_labels
from dark_halo_scope.evaluation.realism import Galaxies, floor_auc, held_out_auc, match, match_quality, number
from dark_halo_scope.evaluation.realism_config import MatchSettings, RealismSettings
from dark_halo_scope.injection.recovery import RUNG_PHYSICS
from dark_halo_scope.injection.recovery_config import RUNGS

#: The rung after those of `RUNGS`.
MATCHED = "matched_hosts"
_CONDITIONS = ("psfsize_r", "psfdepth_r")


@dataclass(frozen=True)
class Seen:
    """Galaxies that the finder was shown, and its raw logits (N,)."""

    galaxies: Galaxies
    logit: NDArray[np.float64]

    def take(self, places: NDArray[np.intp]) -> "Seen":
        """Those at some places."""
        return Seen(self.galaxies.take(places), self.logit[places])


def show(extract: Features, images_N3HW: NDArray[np.floating], rows: pa.Table, settings: MatchSettings) -> Seen:
    """Features, logits and photometry of images and their rows (brickname, objid or position, healpix_128, conditions).

    Galaxies are taken to be in the middle, from where photometry finds their peak.
    """
    pixels = np.asarray(images_N3HW, dtype=np.float32)
    features, logits = extract(pixels, rows)
    centre = np.zeros((len(pixels), 2))
    conditions = {name: column(rows, name) for name in _CONDITIONS}
    photometry: Mapping[str, NDArray[np.float64]] = {**host_photometry(pixels, centre, settings), **conditions}
    # Nothing looks at pixels again: six rungs of them would take gigabytes.
    return Seen(Galaxies(pixels[:, :0], rows, centre, host_labels(rows), photometry, features), logits)


def measure_ladder(
    lenses: Seen, injections: Mapping[str, Seen], bare: Seen, thresholds: Mapping[str, float], settings: LadderSettings
) -> dict[str, Any]:
    """Probe and recall of every rung.

    Args:
        lenses: real ones.
        injections: of each rung, one a host, with `arc_snr` in their rows.
        bare: the hosts as they are.
        thresholds: raw logits by name.
        settings: arcs that are compared, matching and classifiers.

    Returns:
        rungs: in order, each with its number, family, description, probe, recall and counts; the matched one with how
            well it is matched.
        hosts_alone: the probe of real lenses against hosts without arcs, and the share of those hosts that is found.
        real_lenses: the share of them that is found.
        floor: what a probe finds between hosts and hosts.
    """
    rng = np.random.default_rng(settings.seed)
    rungs, last = [], None
    for rung in RUNGS:
        if rung not in injections:
            continue
        seen = injections[rung]
        snr = column(seen.galaxies.rows, "arc_snr")
        compared = seen.take(np.flatnonzero((snr >= settings.arc_snr.low) & (snr <= settings.arc_snr.high)))
        physics = RUNG_PHYSICS[rung]
        counts = {"injected": len(snr), "compared": len(compared.logit)}
        entry = {"rung": rung, "family": physics.family, "description": physics.description, "counts": counts}
        rungs.append(entry | _compared(lenses, compared, thresholds, settings, rng))
        last = compared
    alone = _compared(lenses, bare, thresholds, settings, rng)
    confidence = settings.classifiers.confidence
    result: dict[str, Any] = {
        "hosts_alone": alone["probe"] | {"recall": alone["recall"]},
        "real_lenses": {"recall": recall(lenses.logit, thresholds, confidence)},
    }
    if last is not None:
        found = _matched(lenses.galaxies, last.galaxies, settings.match)
        chosen = lenses.take(found.lens), last.take(found.first)
        entry = {
            "rung": MATCHED,
            "family": rungs[-1]["family"],
            "description": "hosts that look like the galaxies of real lenses",
            "counts": {"injected": rungs[-1]["counts"]["injected"], "compared": len(found.lens)},
            "matching": match_quality(lenses.galaxies.photometry, last.galaxies.photometry, found),
        }
        rungs.append(entry | _compared(*chosen, thresholds, settings, rng))
    # Chance deals the hosts of the floor to its two sides: conditions would make them fewer, and no more alike.
    matched = match(lenses.galaxies, bare.galaxies, settings.match.variables, settings.match.caliper)
    repeats = RealismSettings(floor_repeats=settings.floor_repeats, classifiers=settings.classifiers)
    floor = floor_auc(bare.galaxies, matched, repeats, rng)
    numbered = [{"number": place, **rung} for place, rung in enumerate(rungs, 1)]
    return {"rungs": numbered, **result, "floor": floor}


def recall(logit: NDArray[np.float64], thresholds: Mapping[str, float], confidence: float) -> dict[str, dict[str, Any]]:
    """Share at or above each threshold, with its Clopper-Pearson interval."""
    entries = {}
    for name, threshold in thresholds.items():
        found = int((logit >= threshold).sum())
        if not len(logit):
            entries[name] = number(None, 0, None, "not measurable: nothing was shown")
            continue
        low, high = clopper_pearson(found, len(logit), confidence)
        entries[name] = number(found / len(logit), len(logit), (float(low), float(high)))
    return entries


def _matched(lenses: Galaxies, others: Galaxies, settings: MatchSettings) -> Match:
    """Others matched to lenses, in seeing and depth too where both have them: else hosts alike lie in other seeing."""

    def known(name: str) -> bool:
        return all(name in one.photometry and np.isfinite(one.photometry[name]).any() for one in (lenses, others))

    conditions = [name for name in settings.conditions if known(name)]
    return match(lenses, others, (*settings.variables, *conditions), settings.caliper)


def _compared(
    lenses: Seen,
    injections: Seen,
    thresholds: Mapping[str, float],
    settings: LadderSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    return {
        "probe": _probe(lenses.galaxies, injections.galaxies, settings, rng),
        "recall": recall(injections.logit, thresholds, settings.classifiers.confidence),
    }


def _probe(lenses: Galaxies, others: Galaxies, settings: LadderSettings, rng: np.random.Generator) -> dict[str, Any]:
    return held_out_auc(lenses.features, others.features, lenses, others, settings.classifiers, rng)
