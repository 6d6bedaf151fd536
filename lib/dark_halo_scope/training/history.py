"""A run's history on disk: history.json for people, and every number of every epoch as Parquet behind it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from dark_halo_scope.core.errors import BadInputError, CorruptDataError
from dark_halo_scope.core.files import make_directory, read_json, sha256_bytes, write_bytes
from dark_halo_scope.core.manifest import write_result

TABLE_FOLDER = "history"  # beside history.json
NAME_DIGITS = 16  # of the sha256, in the file's name

# Of every epoch that has them, in the summary.
_CURVES = (
    *("epoch", "train_loss", "val_loss", "val_auc", "val_auc_hard_negative"),
    *("train_auc", "val_auc_tier_a", "val_auc_tier_b", "val_ece"),
    *("val_precision_at_recall_0.9", "val_recall_at_precision_0.9"),
)
_DETAILS = ("checks", "gates", "gradient_norms")  # of an epoch, in the table and not in the summary

Entry = Mapping[str, Any]


class Trained(Protocol):
    """What a run found: the kept epoch's numbers, those of all epochs, and what was decided."""

    @property
    def best(self) -> Entry: ...

    @property
    def history(self) -> Sequence[Entry]: ...

    @property
    def decisions(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class History:
    """history.json, and one row per epoch with a column for each number."""

    summary: Mapping[str, Any]
    table: pa.Table


def write_history(
    path: Path,
    result: Trained,
    module: str,
    settings: BaseModel | Mapping[str, Any],
    inputs: Sequence[Path],
    started: datetime | None = None,
) -> dict[str, Any]:
    """Write the table, then history.json with its provenance, and return what history.json says.

    The table goes to `history/{sha256}.parquet`, so that one that is there is never overwritten with another.

    Args:
        path: history.json.
        result: of the run.
        module, settings, inputs, started: as `core.manifest.write_result` takes them.
    """
    table = epoch_table(result.history)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    sha256 = sha256_bytes(data)
    target = Path(path).parent / TABLE_FOLDER / f"{sha256[:NAME_DIGITS]}.parquet"
    make_directory(target.parent)
    write_bytes(target, data)
    described = {
        "best_epoch": result.best["epoch"],
        "epochs": [{name: entry[name] for name in _CURVES if name in entry} for entry in result.history],
        "best": {name: value for name, value in result.best.items() if name not in _DETAILS},
        "checks": check_summary(result.history),
        "decisions": list(result.decisions),
        "table": {
            "uri": f"{TABLE_FOLDER}/{target.name}",
            "bytes": len(data),
            "sha256": sha256,
            "rows": table.num_rows,
            "columns": table.num_columns,
        },
    }
    write_result(path, described, module, settings, inputs, started)
    return described


def read_history(path: Path) -> History:
    """history.json and the table that it names, verified.

    Raises:
        BadInputError: no history.json of this project, or a table outside of its folder.
        CorruptDataError: the table is missing or not what history.json was written for.
    """
    path = Path(path)
    summary = read_json(path)
    try:
        named = summary["table"]
        uri, size, sha256 = str(named["uri"]), int(named["bytes"]), str(named["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} is no history of a training run ({error!r}); train again.") from error
    target = path.parent / uri
    if not target.resolve().is_relative_to(path.parent.resolve()):
        raise BadInputError(f"{path} names a table outside of its own folder ({uri}), which is not read.")
    try:
        data = target.read_bytes()
    except OSError as error:
        raise CorruptDataError(f"{target} that {path} names cannot be read ({error.strerror}); train again.") from error
    if len(data) != size or sha256_bytes(data) != sha256:
        raise CorruptDataError(f"{target} is not the table that {path} was written for; restore it or train again.")
    return History(summary, pq.read_table(pa.BufferReader(data)))


def epoch_table(history: Sequence[Entry]) -> pa.Table:
    """One row per epoch, one column per number or text in its entry: `mean_p.control`, `checks.loss_gap.value`.

    Where an epoch lacks what another has, it has a null. Lists are left out but for records with a name.
    """
    rows = [_flat(entry) for entry in history]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def check_summary(history: Sequence[Entry]) -> dict[str, Any]:
    """Of each check: its last record, and the epochs (counted from 0) in which it did not hold."""
    summary: dict[str, Any] = {}
    for entry in history:
        for check in entry.get("checks", ()):
            record = summary.setdefault(check["name"], {"failed_epochs": []})
            record["last"] = check
            if check["passed"] is False:
                record["failed_epochs"].append(entry["epoch"])
    return summary


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str) or value is None:
            found[f"{prefix}{name}"] = value
        elif isinstance(value, list | tuple):
            named = {str(item["name"]): item for item in value if isinstance(item, Mapping) and "name" in item}
            found |= _flat(named, f"{prefix}{name}.")
    return found
