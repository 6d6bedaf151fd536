"""Settings of `pack_images`."""

from pydantic import Field

from dark_halo_scope.core.config import Settings


class PackSettings(Settings):
    """How stamps become arrays."""

    # Extra kinds of hard negatives (`hardneg_{kind}_stamp_npz`), packed as `hard_negative_{kind}.npy`.
    extra_hard_negatives: tuple[str, ...] = ()
    # Rows decoded at once; memory is about 150 kB each.
    batch_rows: int = Field(default=256, ge=1)
