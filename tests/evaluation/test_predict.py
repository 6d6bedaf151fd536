"""A user's own list is scored in one command: as training's images were, nothing dropped, nothing guessed."""

import json
import sys
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

import tiny_survey
from brick_scene import BRICK, brick_wcs, planes, write_brick
from dark_halo_scope.core.config import validate
from dark_halo_scope.core.errors import BadInputError, ConfigError, StorageError
from dark_halo_scope.core.files import read_json, write_json
from dark_halo_scope.core.manifest import attempt, load_manifest, provenance_path, verified_path
from dark_halo_scope.evaluation import predict, score_anchors
from dark_halo_scope.evaluation.calibration import Isotonic, Platt, calibrators_record
from dark_halo_scope.evaluation.coordinate_list import duplicate_of, read_coordinates
from dark_halo_scope.evaluation.predict_config import PUBLIC_SERVICE, PredictSettings
from dark_halo_scope.images.cutouts import Stored, write_cutouts
from dark_halo_scope.models.weights import load_model, save_model
from dark_halo_scope.survey.cutout_config import CutoutServiceSettings
from dark_halo_scope.survey.cutout_server import CutoutServer
from dark_halo_scope.survey.cutout_service import open_client
from dark_halo_scope.survey.description import load_survey

from . import toys
from .packed_files import write_model

LOCAL = ["--settings", '{"cutouts": {"service": "embedded"}}']
PSFSIZE, PSFDEPTH = 1.3, 24.2
MEAN = (1.25, 24.0)


def write_survey(folder: Path, psfdepth_r: float = PSFDEPTH) -> None:
    """survey.json of one brick with pixels, and of one (at RA 0.375) that has none."""
    tiny_survey.write_survey(folder, {"sweep-000p000-005p005": tiny_survey.field_rows(1)})
    names = [BRICK, "0003p000"]
    columns = {"BRICKNAME": np.array(names, dtype="S8"), "RA": np.array([0.125, 0.375]), "DEC": np.zeros(2)}
    columns |= {"PSFSIZE_R": np.full(2, PSFSIZE, "f4"), "PSFDEPTH_R": np.full(2, psfdepth_r, "f4")}
    path = folder / "survey-bricks-dr10-south.fits.gz"
    fitsio.write(path, list(columns.values()), names=list(columns), clobber=True)
    write_brick(folder / "coadd" / BRICK[:3], planes(), BRICK)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, best.json, that was trained on MEAN conditions, and a survey, survey/survey.json."""
    monkeypatch.chdir(tmp_path)
    write_model(Path("best.json"))
    model, preprocess, card = load_model(Path("best.json"))
    model.set_meta_statistics(list(MEAN), [0.1, 0.3])
    write_json(Path("best.json"), save_model(Path("best.json"), model, preprocess, {"generation": card["generation"]}))
    write_survey(Path("survey"))
    return tmp_path


def place(x: float, y: float) -> tuple[float, float]:
    """Right ascension and declination of a pixel of the brick."""
    ra, dec = brick_wcs().all_pix2world(x, y, 0)
    return float(ra), float(dec)


GOOD = [place(150, 150), place(100, 180), place(200, 90)]


def run(*options: str, output: str = "scores.csv") -> pa.Table:
    arguments = ["--model", "best.json", "--output", output, "--cache", "cache", "--threads", "1", "--device", "cpu"]
    predict.main([*arguments, *LOCAL, *options])
    return pq.read_table(output) if output.endswith(".parquet") else pa_csv.read_csv(output)


def score_coords(text: str, *options: str, output: str = "scores.csv") -> pa.Table:
    Path("list.csv").write_text(text)
    return run("--coords", "list.csv", "--survey", "survey/survey.json", *options, output=output)


def good_list() -> str:
    return "name,ra,dec\n" + "".join(f"galaxy{i},{ra},{dec}\n" for i, (ra, dec) in enumerate(GOOD))


def viewer_file(path: Path, image: np.ndarray, scale: float = 0.262, position: tuple[float, float] = GOOD[0]) -> Path:
    """A FITS cube as the viewer writes it."""
    hdu = fits.PrimaryHDU(image.astype(np.float32))
    side = image.shape[-1]
    cards = {"BANDS": "grz", "BAND0": "g", "BAND1": "r", "BAND2": "z", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    cards |= {"CRVAL1": position[0], "CRVAL2": position[1], "CRPIX1": side / 2 + 0.5, "CRPIX2": side / 2 + 0.5}
    cards |= {"CD1_1": -scale / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale / 3600}
    hdu.header.update(cards)
    hdu.writeto(path)
    return path


def galaxy(side: int = toys.SIZE, seed: int = 1) -> np.ndarray:
    """Noise with a bright middle, (3, side, side)."""
    offset = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2))
    return np.random.default_rng(seed).normal(0, 0.02, (3, side, side)) + np.exp(-offset / 4)


# --- Positions --------------------------------------------------------------------------------------------------------


def test_every_row_comes_out_in_its_order_with_a_score_or_the_reason_why_it_has_none(here: Path) -> None:
    ra, dec = GOOD[0]
    table = score_coords(
        "name,RA,Dec,note\n"
        f'first,{ra},{dec},"a, b"\n'
        "words,12h30m,+3d,\n"
        "far,400,3,\n"
        "elsewhere,10,60,\n"
        "no pixels,0.375,0.0,\n"
        f"last,{GOOD[1][0]},{GOOD[1][1]},\n"
    )
    assert table["name"].to_pylist() == ["first", "words", "far", "elsewhere", "no pixels", "last"]
    assert table["note"].to_pylist()[0] == "a, b"
    assert [reason or None for reason in table["reason"].to_pylist()] == [
        None,
        "position is not a number in degrees",
        "position is out of range",
        "outside the survey's bricks",
        "outside the footprint of the service",
        None,
    ]
    scored = [value is not None for value in table["logit"].to_pylist()]
    assert scored == [True, False, False, False, False, True]
    assert Path("scores.csv").read_text().splitlines()[0].startswith("name,RA,Dec,note,logit,score,")


def test_conditions_are_those_of_the_brick(here: Path) -> None:
    table = score_coords(good_list())
    assert table["psfsize_r"].to_pylist() == pytest.approx([PSFSIZE] * 3)
    assert table["psfdepth_r"].to_pylist() == pytest.approx([PSFDEPTH] * 3)
    assert table["brickname"].to_pylist() == [BRICK] * 3


def test_a_column_of_the_list_named_like_a_condition_goes_before_the_brick_s(here: Path) -> None:
    own = score_coords(f"ra,dec,psfsize_r\n{GOOD[0][0]},{GOOD[0][1]},1.7\n{GOOD[1][0]},{GOOD[1][1]},\n")
    assert own["psfsize_r"].to_pylist() == pytest.approx([1.7, PSFSIZE])
    assert own.column_names.count("psfsize_r") == 1


@pytest.mark.parametrize("unknown", ["", "0", "-99", "nan", "unknown"])
def test_a_value_that_is_none_is_looked_up_like_an_empty_cell(here: Path, unknown: str) -> None:
    table = score_coords(f"ra,dec,psfsize_r\n{GOOD[0][0]},{GOOD[0][1]},{unknown}\n")
    assert table["psfsize_r"].to_pylist() == pytest.approx([PSFSIZE])


@pytest.mark.parametrize("text", ["psfsize_r=0", "psfsize_r", "psfsize_r=wide", "psfdepth_r=nan", "arc_snr=3"])
def test_a_condition_must_be_a_known_name_and_a_positive_number(text: str) -> None:
    with pytest.raises(SystemExit):
        predict.main(["--model", "m", "--images", "a.fits", "--output", "s.csv", "--condition", text])


def test_a_list_of_which_nothing_can_be_scored_comes_out_with_its_reasons(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = score_coords("ra,dec\nx,y\n10,60\n")
    assert table["reason"].to_pylist() == ["position is not a number in degrees", "outside the survey's bricks"]
    assert "0 of 2 rows scored; others: outside the survey's bricks: 1; position is not a number" in caplog.text


def test_a_batch_is_only_a_batch(here: Path) -> None:
    alone = score_coords(good_list(), "--settings", '{"batch": 1, "cutouts": {"service": "embedded"}}')
    together = score_coords(good_list())
    np.testing.assert_allclose(alone["logit"].to_numpy(), together["logit"].to_numpy(), atol=1e-5)


def test_a_list_is_scored_as_anchors_are_to_the_bit(here: Path) -> None:
    mine = score_coords(good_list())
    rows = mine.select(["name", "ra", "dec", "psfsize_r", "psfdepth_r"])
    service = CutoutServiceSettings()
    with open_client(service, load_survey(Path("survey/survey.json"))) as client:
        images = [client.fetch(ra, dec, toys.SIZE).image_3HW for ra, dec in GOOD]
    with attempt(Path("cutouts.json"), "cutouts", "dark_halo_scope.images.fetch_cutouts", {}, []) as work:
        write_cutouts(work.prefix, rows, [Stored(image, None, None, 0.0) for image in images], toys.SIZE)
        work.publish(facts={"rows": len(images), "size": toys.SIZE})
    score_anchors.main(["--model", "best.json", "--cutouts", "cutouts.json", "--output", "anchors.json"])
    anchors = pq.read_table(verified_path(load_manifest(Path("anchors.json")), "scores.parquet"))
    assert anchors["logit"].to_pylist() == mine["logit"].to_pylist()


def test_positions_of_one_object_are_scored_and_flagged(here: Path) -> None:
    ra, dec = GOOD[0]
    table = score_coords(f"ra,dec\n{ra},{dec}\n{GOOD[1][0]},{GOOD[1][1]}\n{ra},{dec + 0.5 / 3600}\n")
    assert [flag or None for flag in table["flags"].to_pylist()] == [None, None, "same object as row 1"]
    assert table["logit"].null_count == 0


def test_one_object_on_both_sides_of_ra_0_is_one_object() -> None:
    ra, dec = np.array([359.99999, 10.0, 0.00001, np.nan]), np.array([1.0, 1.0, 1.0, np.nan])
    assert duplicate_of(ra, dec, 1.0).tolist() == [-1, -1, 0, -1]


def test_unknown_conditions_are_refused_with_the_rows_named(here: Path) -> None:
    write_survey(Path("shallow"), psfdepth_r=0.0)
    Path("list.csv").write_text(good_list())
    with pytest.raises(BadInputError, match=r"needs psfdepth_r, unknown for 3 of 3 rows \(row 1, row 2, row 3\)"):
        run("--coords", "list.csv", "--survey", "shallow/survey.json")
    assert not Path("scores.csv").exists()
    assert not Path("cache").exists()  # nothing was fetched in vain


def test_unknown_conditions_can_be_flagged_and_are_training_s_mean_then(here: Path) -> None:
    write_survey(Path("shallow"), psfdepth_r=0.0)
    Path("list.csv").write_text(good_list())
    options = ["--coords", "list.csv", "--survey", "shallow/survey.json"]
    flagged = run(*options, "--unknown-conditions", "flag")
    assert flagged["flags"].to_pylist() == ["psfdepth_r unknown: training's mean"] * 3
    assert flagged["psfdepth_r"].to_pylist() == pytest.approx([MEAN[1]] * 3)
    told = run(*options, "--condition", f"psfdepth_r={MEAN[1]}")
    assert told["logit"].to_pylist() == flagged["logit"].to_pylist()
    assert told["flags"].null_count == 3


def test_a_row_that_cannot_be_scored_anyway_needs_no_conditions(here: Path) -> None:
    table = score_coords(f"ra,dec\nx,y\n{GOOD[0][0]},{GOOD[0][1]}\n")
    assert table["psfsize_r"].to_pylist() == pytest.approx([None, PSFSIZE])


def test_parquet_and_csv_hold_the_same(here: Path) -> None:
    csv_table = score_coords(good_list())
    parquet = score_coords(good_list(), output="scores.parquet")
    assert parquet.column_names == csv_table.column_names
    for name in ("logit", "score", "psfsize_r"):
        assert parquet[name].to_pylist() == csv_table[name].to_pylist()


def test_what_was_fetched_is_not_fetched_again_and_the_bytes_are_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_coords(good_list())
    first = Path("scores.csv").read_bytes()
    monkeypatch.setattr(CutoutServer, "answer", lambda *_: pytest.fail("asked for what is in the cache"))
    score_coords(good_list())
    assert Path("scores.csv").read_bytes() == first


def test_a_service_that_is_down_stops_the_run_and_what_came_is_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = CutoutServer.answer, []

    def fails_later(server: CutoutServer, path: str, fault: str) -> tuple[int, bytes]:
        asked.append(path)
        return answer(server, path, fault) if len(asked) <= 1 else (500, b"")

    once = '{"cutouts": {"service": "embedded"}, "asking": {"attempts": 1, "max_failures_in_a_row": 2}}'
    monkeypatch.setattr(CutoutServer, "answer", fails_later)
    with pytest.raises(StorageError, match="run this step again later"):
        score_coords(good_list(), "--settings", once)
    assert not Path("scores.csv").exists()
    monkeypatch.setattr(CutoutServer, "answer", lambda *given: asked.append("again") or answer(*given))
    score_coords(good_list())
    assert asked.count("again") == 2


def test_a_list_of_which_the_service_gave_nothing_is_an_error_and_writes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("scores.csv").write_text("of an earlier run")
    monkeypatch.setattr(CutoutServer, "answer", lambda *_: (200, b"<html>Down for maintenance</html>"))
    two_rows = "ra,dec\n" + "".join(f"{ra},{dec}\n" for ra, dec in GOOD[:2]) + "10,60\n"
    with pytest.raises(
        StorageError, match=r"All 2 cutouts failed by fault of the service .*rejected: 2.*run this again"
    ):
        score_coords(two_rows)
    assert Path("scores.csv").read_text() == "of an earlier run"


def test_one_cutout_of_a_service_that_otherwise_fails_makes_a_list(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = CutoutServer.answer, []

    def fails_later(server: CutoutServer, path: str, fault: str) -> tuple[int, bytes]:
        asked.append(path)
        return answer(server, path, fault) if len(asked) <= 1 else (200, b"<html>Down for maintenance</html>")

    monkeypatch.setattr(CutoutServer, "answer", fails_later)
    table = score_coords(good_list())
    assert [reason or None for reason in table["reason"].to_pylist()] == [
        None,
        *["the answer of the service was rejected"] * 2,
    ]


def test_calibrated_and_survey_probabilities_are_added(here: Path) -> None:
    sha256 = read_json(Path("best.json"))["weights"]["sha256"]
    record = calibrators_record(Platt(2.0, -1.0), Isotonic((0.0, 1.0), (0.2, 0.8)))
    write_json(Path("calibration.json"), {"calibrators": record, "prevalence": 0.5, "model_sha256": sha256})
    table = score_coords(good_list(), "--calibration", "calibration.json")
    logit = table["logit"].to_numpy()
    np.testing.assert_allclose(table["p_platt"].to_numpy(), 1 / (1 + np.exp(1 - 2 * logit)))
    # The odds of a lens are ten thousand times less than those of validation.
    odds = table["p_survey"].to_numpy() / (1 - table["p_survey"].to_numpy())
    np.testing.assert_allclose(odds, np.exp(2 * logit - 1) / 9999, rtol=1e-6)


def test_a_calibration_of_another_network_is_refused(here: Path) -> None:
    record = calibrators_record(Platt(2.0, -1.0), Isotonic((0.0, 1.0), (0.2, 0.8)))
    write_json(Path("calibration.json"), {"calibrators": record, "prevalence": 0.5, "model_sha256": "0" * 64})
    with pytest.raises(BadInputError, match="another network"):
        score_coords(good_list(), "--calibration", "calibration.json")


def test_a_diagnostic_network_scores_no_list(here: Path) -> None:
    write_model(Path("best.json"), control_source="paired_oracle")
    with pytest.raises(BadInputError, match="never deployed"):
        score_coords(good_list())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,dec\na,1\n", "lacks the column ra"),
        ("ra,dec\n", "has no rows"),
        ("ra,dec\n1,2,3\n", "cannot be read as CSV"),
        ("ra,dec,dec\n1,2,3\n", "two columns of one name"),
        ("ra,dec,RA\n1,2,3\n", "more than one column ra"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(BadInputError, match=sentence):
        read_coordinates(tmp_path / "list.csv")


def test_a_list_must_not_have_columns_that_the_output_has(here: Path) -> None:
    with pytest.raises(BadInputError, match="columns named score"):
        score_coords("ra,dec,score\n0.1,0.1,3\n")


def test_positions_without_a_survey_and_outputs_without_a_format_are_refused(here: Path) -> None:
    Path("list.csv").write_text(good_list())
    with pytest.raises(ConfigError, match="needs --survey"):
        run("--coords", "list.csv")
    with pytest.raises(BadInputError, match=r"\.csv or \.parquet"):
        run("--coords", "list.csv", "--survey", "survey/survey.json", output="scores.txt")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--coords", "ragged.csv", "--survey", "survey/survey.json"], "line 2 has 3 cells"),
        (["--coords", "gone.csv", "--survey", "survey/survey.json"], "gone.csv does not exist"),
        (["--coords", "taken.csv", "--survey", "survey/survey.json"], "columns named score"),
        (["--images", "gone.fits"], "gone.fits does not exist"),
        (["--images", "a.fits", "--calibration", "gone.json"], "correct --calibration"),
        (["--images", "a.fits", "--model", "gone.json"], "correct --model"),
    ],
)
def test_what_is_given_is_looked_at_before_torch_is_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    Path("ragged.csv").write_text("ra,dec\n1,2,3\n")
    Path("taken.csv").write_text("ra,dec,score\n1,2,3\n")
    # An import of it fails.
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadInputError, match=sentence):
        run(*options)


@pytest.mark.parametrize(
    ("cutouts", "embedded", "service"),
    [
        (None, True, "embedded"),
        (None, False, PUBLIC_SERVICE),
        ({"layer": "ls-dr9"}, True, "embedded"),
        ({"layer": "ls-dr9"}, False, PUBLIC_SERVICE),
        ({"service": "embedded"}, False, "embedded"),
        ({"service": "https://mirror.example"}, False, "https://mirror.example"),
        ({"service": "https://mirror.example"}, True, "https://mirror.example"),
    ],
)
def test_part_of_the_service_s_settings_does_not_choose_another_service(
    cutouts: dict[str, str] | None, embedded: bool, service: str
) -> None:
    settings = validate(PredictSettings, {"cutouts": cutouts}, "it").service(embedded)
    assert settings.service == service
    assert settings.layer == (cutouts or {}).get("layer", "ls-dr10-south")


def test_how_scores_were_made_is_recorded_beside_them(here: Path) -> None:
    score_coords(good_list())
    record = json.loads(provenance_path(Path("scores.csv")).read_text())
    assert record["settings"]["batch"] == 256
    assert {item["path"] for item in record["inputs"]} == {"best.json", "list.csv", "survey/survey.json"}


# --- Images -----------------------------------------------------------------------------------------------------------


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_one_galaxy_has_one_score_in_whatever_file_it_comes(here: Path) -> None:
    image = galaxy(toys.SIZE + 6).astype(np.float32)
    viewer_file(Path("a.fits"), image)
    g, r, z = image
    npz(Path("b.npz"), image_g=g, image_r=r, image_z=z)
    npz(Path("c.npz"), cutout=np.moveaxis(image, 0, 2), meta_ra=np.array(0.1))
    table = run("--images", "a.fits", "b.npz", "c.npz", "--condition", "psfsize_r=1.3", "--condition", "psfdepth_r=24")
    assert table["image"].to_pylist() == ["a.fits", "b.npz", "c.npz"]
    assert len(set(table["logit"].to_pylist())) == 1
    assert [flag or None for flag in table["flags"].to_pylist()] == [
        None,
        *["the file does not say its pixel scale"] * 2,
    ]


def test_a_folder_is_its_files_by_name_and_the_brick_of_a_fits_file_is_looked_up(here: Path) -> None:
    Path("mine").mkdir()
    for name in ("b", "a"):
        viewer_file(Path(f"mine/{name}.fits"), galaxy())
    Path("mine/notes.txt").write_text("not an image")
    table = run("--images", "mine", "--survey", "survey/survey.json")
    assert table["image"].to_pylist() == ["mine/a.fits", "mine/b.fits"]
    assert table["psfsize_r"].to_pylist() == pytest.approx([PSFSIZE] * 2)
    assert table["brickname"].to_pylist() == [BRICK] * 2


def test_images_that_do_not_say_where_they_are_need_conditions(here: Path) -> None:
    npz(Path("b.npz"), cutout=np.moveaxis(galaxy(), 0, 2))
    with pytest.raises(BadInputError, match=r"needs psfsize_r and psfdepth_r, unknown for 1 of 1 rows \(b\.npz\)"):
        run("--images", "b.npz", "--survey", "survey/survey.json")


def test_a_pickle_in_an_npz_is_never_opened(here: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (Path("owned").touch, ())

    np.savez(Path("a.npz"), cutout=np.moveaxis(galaxy(), 0, 2), meta_name=np.array([Payload()], dtype=object))
    np.savez(Path("b.npz"), cutout=np.array([Payload()], dtype=object))
    table = run("--images", "a.npz", "b.npz", "--unknown-conditions", "flag")
    assert [value is None for value in table["logit"].to_pylist()] == [False, True]
    assert "dtype object" in table["reason"].to_pylist()[1]
    assert not Path("owned").exists()


def test_an_npz_that_says_it_inflates_to_a_gigabyte_is_refused_from_its_directory(here: Path) -> None:
    npz(Path("bomb.npz"), cutout=np.zeros((5000, 5000, 3), np.float32))
    [reason] = run("--images", "bomb.npz", "--unknown-conditions", "flag")["reason"].to_pylist()
    assert "inflates to 300000128 bytes: refused" in reason


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_images_that_cannot_be_used_stay_in_the_list_with_the_reason(here: Path) -> None:
    viewer_file(Path("a_scale.fits"), galaxy(), scale=0.5)
    viewer_file(Path("b_small.fits"), galaxy(toys.SIZE - 2))
    without_z, with_nan = galaxy(), galaxy()
    without_z[2], with_nan[1, 3, 3] = 0, np.nan
    viewer_file(Path("c_band.fits"), without_z)
    viewer_file(Path("d_nan.fits"), with_nan)
    Path("e_torn.fits").write_bytes(viewer_file(Path("whole.fits"), galaxy()).read_bytes()[:4000])
    npz(Path("f_bands.npz"), image_g=galaxy()[0])
    Path("g_text.npz").write_text("no archive")
    viewer_file(Path("h_good.fits"), galaxy())
    names = [f"{name}.fits" for name in ("a_scale", "b_small", "c_band", "d_nan", "e_torn")]
    table = run("--images", *names, "f_bands.npz", "g_text.npz", "h_good.fits", "--unknown-conditions", "flag")
    reasons = table["reason"].to_pylist()
    for reason, words in zip(
        reasons,
        [
            "pixels of 0.5000",
            "fewer than the 32 x 32",
            "no data in z",
            "not finite",
            "is no FITS image",
            "lacks image_r",
            "not a readable NPZ",
        ],
        strict=False,
    ):
        assert words in reason
    assert not reasons[-1]
    assert [value is None for value in table["logit"].to_pylist()] == [True] * 7 + [False]


def test_a_folder_without_images_and_a_file_of_another_kind_are_refused(here: Path) -> None:
    Path("empty").mkdir()
    Path("a.jpg").write_bytes(b"")
    for given, sentence in (("empty", "holds no"), ("a.jpg", "is none of"), ("gone.fits", "does not exist")):
        with pytest.raises(BadInputError, match=sentence):
            run("--images", given)


def test_files_of_the_real_viewer_are_read_and_those_of_other_bands_too(here: Path, real_data: Path) -> None:
    [path] = (real_data / "legacysurvey" / "dr10").glob("cutout_*.fits")
    with fits.open(path) as file:
        image, header = file[0].data, file[0].header
        assert header["BANDS"].strip() == "griz"
        header["CD1_1"], header["CD2_2"] = -0.262 / 3600, 0.262 / 3600  # the file's own scale is another
        fits.writeto("real.fits", image, header)
    table = run("--images", str(path), "real.fits", "--unknown-conditions", "flag")
    assert "pixels of 0.0600" in table["reason"].to_pylist()[0]
    assert table["logit"].to_pylist()[1] is not None
