"""Table 2 of the paper: how each stage of each generation was trained, from the settings that its weights carry.

The CSV file has every setting, a row each; Markdown and TeX have those that tell generations apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dark_halo_scope.core.cli import argument_parser, run
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.files import read_json
from dark_halo_scope.paper.tables import markdown_text, tex_text, write_tables

#: Parts of best.json that are settings; the rest is what came of them.
_SETTINGS = ("dataset", "in_channels", "stamp_size", "parameters", "meta", "training")

_NOTES = (
    "From the settings stored with each stage's weights. Hard negatives: their share of the loss from the first epoch "
    "to the end of the curriculum, and whether false positives of an earlier generation are among the negatives.",
)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as `a.b.c` -> value; lists stay as they are, an empty mapping is one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def stage_name(card: Mapping[str, Any], several: bool) -> str:
    """`gen3 a1` where its generation has several stages, else `gen2`."""
    return f"{card['generation']} {card['stage']}" if several else str(card["generation"])


def table(cards: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Every setting as rows of a column a stage, and the telling ones as text, a row a stage.

    Args:
        cards: best.json of every stage, in the order of the columns.

    Raises:
        BadInputError: a stage is there twice.
    """
    of_generation = [card["generation"] for card in cards]
    names = [stage_name(card, of_generation.count(card["generation"]) > 1) for card in cards]
    if len(set(names)) < len(names):
        raise BadInputError("The table has a stage twice; give each best.json once.")
    settings = [flattened({key: card[key] for key in _SETTINGS}) for card in cards]
    keys = list(dict.fromkeys(key for flat in settings for key in flat))
    rows = [
        {"setting": key} | {name: flat.get(key) for name, flat in zip(names, settings, strict=True)}
        for key in sorted(keys)
    ]
    return rows, [_text(name, card) for name, card in zip(names, cards, strict=True)]


def _text(name: str, card: Mapping[str, Any]) -> dict[str, str]:
    training, preprocessing = card["training"], card["preprocessing"]
    optimizer, sampler = training["optimizer"], training["sampler"]
    pairs = sampler["draw"] == "pairs"
    return {
        "stage": f"`{name}`",
        "trained on": card["dataset"],
        "arcs": _selection_text(training["selection"]),
        "network": _network_text(card),
        "channels": _channel_text(card["in_channels"], preprocessing),
        "metadata": f"{len(card['meta']['columns'])} {card['model']['fusion']}" if card["meta"]["columns"] else "none",
        "epochs": str(training["epochs"]),
        "batch": f"{sampler['batch_pairs']} pairs" if pairs else f"{sampler['batch_images']} images",
        "hard negatives": _hard_negative_text(sampler, card["hard_negatives_sha256"] is not None),
        "loss": _loss_text(training["loss"]),
        "learning rate": f"{optimizer['lr']:g} {optimizer['schedule'].replace('_', ' ')}",
        "weight decay": f"{optimizer['weight_decay']:g}",
        "seed": str(training["seed"]),
    }


def _network_text(card: Mapping[str, Any]) -> str:
    # A stage that starts from another's weights never sees the published ones.
    start = "from a stage" if card["start_sha256"] else "pretrained" if card["model"]["pretrained"] else "from scratch"
    return f"{card['model']['backbone'].replace('_', ' ')}, {card['parameters'] / 1e6:.2f}M, {start}"


def _channel_text(channels: int, preprocessing: Mapping[str, Any]) -> str:
    if preprocessing["control_source"] is not None:
        return f"{channels}: grz, control ({preprocessing['control_source'].replace('_', ' ')})"
    return f"{channels}: grz, residual" if preprocessing["residual"] else f"{channels}: grz"


def _selection_text(selection: Mapping[str, Any]) -> str:
    cuts = {"min_theta_over_psf": "θ_E/PSF ≥ {:g}", "min_arc_snr_maxpix": "peak S/N ≥ {:g}"}
    found = [text.format(selection[key]) for key, text in cuts.items() if selection[key] is not None]
    return ", ".join(found) or "all"


def _hard_negative_text(sampler: Mapping[str, Any], mined: bool) -> str:
    first, last = (sampler["curriculum"][f"{end}_hard_negative_prob"] for end in ("start", "end"))
    shares = [f"{first:g}" if first == last else f"{first:g} to {last:g}"] if max(first, last) > 0 else []
    repeat = sampler["mined_repeat"]
    return ", ".join([*shares, *(["mined" if repeat == 1 else f"mined, {repeat} times"] if mined else [])]) or "none"


def _loss_text(loss: Mapping[str, Any]) -> str:
    return f"focal ({loss['focal_alpha']:g}, {loss['focal_gamma']:g})" if loss["kind"] == "focal" else loss["kind"]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of hyperparameters."""
    parser = argument_parser("Write how every stage was trained as a table.")
    parser.add_argument("--models", nargs="+", required=True, type=Path, help="best.json of every stage, in order")
    parser.add_argument("--output", nargs="+", required=True, type=Path, help="tables to write: .csv, .md, .tex")
    arguments = parser.parse_args(argv)
    rows, lines = table([read_json(path) for path in arguments.models])
    write_tables(arguments.output, rows, markdown_text(lines, _NOTES), tex_text(lines, _NOTES))


if __name__ == "__main__":
    run(main)
