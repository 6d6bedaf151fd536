"""Compiled functions where there is nowhere to keep them."""

from dark_halo_scope.lensing.jit import compiled


def test_a_function_without_a_place_for_its_cache_compiles_all_the_same() -> None:
    """As from a read-only folder without a home: numba finds no locator for code that lies in no file."""
    scope: dict[str, object] = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), scope)
    double = compiled(scope["double"])  # type: ignore[arg-type]
    assert double(21) == 42
    assert double.signatures  # it was compiled, not interpreted
