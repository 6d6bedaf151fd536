"""Real images as stamps: one path for lenses and negatives, hosts' own pixels, and what is not usable kept out."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brick_scene import BRICK, open_brick
from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.core.manifest import Manifest, Target, load_manifest, verified_paths
from dark_halo_scope.images import pack
from dark_halo_scope.images.codec import decode_stamp
from dark_halo_scope.images.packed import open_packed
from dark_halo_scope.injection import cut_real
from dark_halo_scope.injection.cutout_quality import measure, why_unusable
from dark_halo_scope.injection.inject import cut_host
from dark_halo_scope.injection.real_config import RealImageSettings
from dark_halo_scope.injection.real_rows import REAL_SCHEMA
from dark_halo_scope.injection.real_stamp_config import CutoutQualitySettings
from dark_halo_scope.injection.real_stamps import REAL_STAMP_SCHEMA, RealJob, service_stamps
from dark_halo_scope.injection.stamp_config import StampSettings
from dark_halo_scope.survey.cutout_service import Cutout, NoCutout
from galaxy_scene import BRICKS, write_scene_coadds
from real_scene import SIZE, scene_rows, write_listed

RULES = CutoutQualitySettings()


@pytest.fixture
def coadds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    return write_scene_coadds(tmp_path)


def _cut(output: str, cores: int = 1, real: dict | None = None, *more: str) -> Manifest:
    arguments = ["--manifest", "manifest.json", "--coadds", "coadds.json", "--output", output]
    arguments += ["--real-settings", json.dumps({"size": SIZE} | (real or {})), "--spark-master", f"local[{cores}]"]
    cut_real.main([*arguments, "--settings", json.dumps({"rows_per_file": 3}), *more])
    return load_manifest(Path(output), "stamps")


def _rows(stamps: Manifest) -> list[dict]:
    return pa.concat_tables(pq.read_table(path) for path in verified_paths(stamps)).to_pylist()


def test_lenses_and_negatives_become_packed_images_that_are_the_hosts_pixels(tmp_path: Path, coadds: Manifest) -> None:
    """The whole chain, with one core and with two."""
    rows = scene_rows(24, edge=2, bricks=BRICKS)
    write_listed(rows)
    one, two = _cut("stamps1.json"), _cut("stamps2.json", 2)
    assert one.sha256 == two.sha256
    assert one.facts["pairs"] is False
    assert (one.facts["path"], one.facts["blobs"]) == ("coadds", ["stamp_npz"])
    assert one.facts["cutout_failed"] == {"off the edge of the brick": 2}
    stamps = {row["task_id"]: row for row in _rows(one)}
    assert set(stamps) == {row["task_id"] for row in rows}
    for listed in rows:
        stamp = stamps[listed["task_id"]]
        assert {name: stamp[name] for name in REAL_SCHEMA.names} == {name: listed[name] for name in REAL_SCHEMA.names}
    with open_brick(tmp_path / "again") as brick:
        for stamp in stamps.values():
            if stamp["brickname"] == BRICK and stamp["cutout_ok"]:
                x, y = brick.sky_to_pixel(stamp["ra"], stamp["dec"])
                host = cut_host(brick, float(x), float(y), SIZE, StampSettings())
                np.testing.assert_array_equal(decode_stamp(stamp["stamp_npz"]), host.image)
                offset = (stamp["host_offset_x_arcsec"], stamp["host_offset_y_arcsec"])
                # Of many positions at once, the last digits may be others.
                assert offset == pytest.approx(host.centre, abs=1e-9)
                assert stamp["mean_r"] == pytest.approx(host.image[1].mean(dtype=np.float64), rel=1e-9)
    stamp = next(row for row in stamps.values() if row["cutout_ok"])
    with np.load(io.BytesIO(stamp["stamp_npz"]), allow_pickle=False) as archive:
        assert archive["cutout"].shape == (SIZE, SIZE, 3)
        assert str(archive["meta_galaxy_id"]) == stamp["galaxy_id"]
        assert int(archive["meta_quality_ok"]) == 1
        assert all(archive[name].dtype.kind != "O" for name in archive)

    Path("quality.json").write_text(json.dumps({"verdict": "accepted", "stamps_sha256": one.sha256}))
    pack.main(["--stamps", "stamps1.json", "--quality", "quality.json", "--output", "packed.json"])
    found: Counter[str] = Counter()
    for split in ("train", "val", "test"):
        packed = open_packed(Path("packed.json"), split)
        assert not packed.pairs
        for kind, table, images in (
            ("lens", packed.rows, packed.positive),
            ("none", packed.negative_rows, packed.negative),
        ):
            for row, image in zip(table.to_pylist(), images, strict=True):
                assert row["label"] == (kind == "lens")
                expected = decode_stamp(stamps[row["task_id"]]["stamp_npz"]).astype(np.float16)
                np.testing.assert_array_equal(image, expected)
                found[kind] += 1
    assert found == {"lens": 7, "none": 15}


def _stored(folder: Path, rows: list[dict], image: np.ndarray) -> None:
    folder.mkdir()
    for row in rows:
        meta = np.array([{"tier": "A"}], dtype=object)
        np.savez(folder / f"{row['galaxy_id']}.npz", cutout=np.moveaxis(image, 0, 2), meta_all=meta)


def test_stored_cutouts_are_read_without_pickle_and_what_is_wrong_with_one_is_its_rows_reason(
    tmp_path: Path, coadds: Manifest
) -> None:
    rows = scene_rows(12, bricks=BRICKS)
    image = np.random.default_rng(3).normal(1, 0.1, (3, SIZE, SIZE)).astype(np.float32)
    lenses, others = [row for row in rows if row["label"]], [row for row in rows if not row["label"]]
    _stored(tmp_path / "positives", lenses, image)
    _stored(tmp_path / "negatives", others[2:], image)
    hole = image.copy()
    hole[1, SIZE // 2, SIZE // 2] = np.nan
    np.savez(tmp_path / "positives" / f"{lenses[0]['galaxy_id']}.npz", cutout=np.moveaxis(hole, 0, 2))
    np.savez(tmp_path / "positives" / f"{lenses[1]['galaxy_id']}.npz", cutout=np.moveaxis(image[:, :-1, :-1], 0, 2))
    (tmp_path / "negatives" / f"{others[2]['galaxy_id']}.npz").write_bytes(b"PK nothing")
    lenses[2] |= {"galaxy_id": "../../etc/passwd", "task_id": "../../etc/passwd"}
    write_listed(rows, "stored")
    real = {"path": "stored", "stored_positives": str(tmp_path / "positives")}
    stamps = _cut("stamps.json", 1, real | {"stored_negatives": str(tmp_path / "negatives")})
    assert stamps.facts["cutout_failed"] == {
        "no stored cutout": 2,
        "pixels missing in the core": 1,
        "the galaxy_id is not brick_objid": 1,
        "the stored cutout has another size": 1,
        "the stored cutout is not readable": 1,
    }
    good = [row for row in _rows(stamps) if row["cutout_ok"]]
    assert len(good) == 6
    for row in good:
        np.testing.assert_array_equal(decode_stamp(row["stamp_npz"]), image)


def test_paths_are_never_mixed(tmp_path: Path, coadds: Manifest) -> None:
    write_listed(scene_rows(3), "service")
    with pytest.raises(BadInputError, match="listed for path: service"):
        _cut("stamps.json")


def test_a_cutout_of_the_service_knows_where_its_galaxy_lies_and_a_refused_one_why(tmp_path: Path) -> None:
    rows = scene_rows(3)
    image = np.random.default_rng(3).normal(1, 0.1, (3, SIZE, SIZE)).astype(np.float32)
    table = pa.Table.from_pylist(rows, schema=REAL_SCHEMA).sort_by("task_id")
    galaxies = None
    job = RealJob(galaxies, RealImageSettings(size=SIZE, path="service"), StampSettings(), RULES, Target(str(tmp_path)))  # type: ignore[arg-type]

    def answers(asked: pa.Table):
        for number, row in enumerate(asked.to_pylist()):
            centre = (row["ra"] + 0.1 / 3600, row["dec"] - 0.1 / 3600)
            yield NoCutout("no data in g") if number == 0 else Cutout(image, None, None, *centre, 0.262, "DR10")

    (stamps,) = service_stamps(table, answers, job)
    assert stamps.schema == REAL_STAMP_SCHEMA
    first, *others = stamps.to_pylist()
    assert (first["cutout_ok"], first["cutout_reason"], first["stamp_npz"]) == (0, "no data in g", None)
    for row in others:
        assert row["pixel_path"] == "service"
        # The galaxy lies west of the centre, which is to the right, and north of it.
        assert row["host_offset_x_arcsec"] == pytest.approx(0.1, abs=1e-4)
        assert row["host_offset_y_arcsec"] == pytest.approx(0.1, abs=1e-4)


def _image(size: int = 101) -> np.ndarray:
    return np.random.default_rng(0).normal(1, 0.1, (3, size, size)).astype(np.float32)


def test_missing_pixels_count_by_where_they_are() -> None:
    image = _image()
    assert why_unusable(measure(image, RULES), RULES) is None
    image[0, :20] = np.nan
    values = measure(image, RULES)
    assert (values["quality_ok"], values["has_nan"], values["nan_pixel_count"]) == (1, 1, 2020)
    assert values["nan_fraction_centre"] == 0
    image[0, 30:32, 30:60] = 0
    values = measure(image, RULES)
    assert values["nan_fraction_centre"] > 0.02
    assert why_unusable(values, RULES) == "too many pixels missing in the centre"
    image = _image()
    image[2, 50, 57] = np.nan
    assert why_unusable(measure(image, RULES), RULES) == "pixels missing in the core"
    image = _image()
    image[2, 50, 59] = np.nan
    assert measure(image, RULES)["quality_ok"] == 1, "one pixel outside the core"


def test_a_band_that_is_missing_is_not_usable_and_has_no_statistics() -> None:
    image = _image()
    image[1] = 0
    values = measure(image, RULES)
    assert values["quality_ok"] == 0
    assert "mean_r" not in values
    assert values["p50_g"] == pytest.approx(np.median(image[0]), rel=1e-6)
    loose = CutoutQualitySettings(max_missing_centre=1, max_missing_core=1)
    assert why_unusable(measure(image, loose), loose) is not None
