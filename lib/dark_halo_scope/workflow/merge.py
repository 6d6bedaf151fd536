"""Settings over settings: how files, surveys and stages override one another."""

from collections.abc import Mapping
from typing import Any


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in place of its own; mappings are merged key by key, lists replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        current = merged.get(key)
        merged[key] = merge(current, value) if isinstance(current, Mapping) and isinstance(value, Mapping) else value
    return merged
