"""What penultimate features promise: those that the network's own logits come from, of the image alone."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from dark_halo_scope.evaluation.features import feature_extractor
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PreprocessSettings
from dark_halo_scope.models.config import ModelSettings
from dark_halo_scope.models.lens_finder import LensFinder6CH
from dark_halo_scope.models.predict import predictor

from . import toys

CPU = torch.device("cpu")
META = {"meta_columns": ["psfsize_r", "psfdepth_r"], "fusion": "late"}


def _network(**changes: object) -> tuple[LensFinder6CH, Preprocess6CH]:
    torch.manual_seed(0)
    preprocess = Preprocess6CH(PreprocessSettings.model_validate({"residual": True}), toys.SIZE)
    values = {"backbone": "small_cnn", "width": 4, "hidden": 8, "pretrained": False, **changes}
    return LensFinder6CH(ModelSettings.model_validate(values), preprocess.channels).eval(), preprocess


def _images(count: int = 10) -> tuple[np.ndarray, pa.Table]:
    split = toys.make_split(count)
    return split.positive, split.rows


@pytest.mark.parametrize(
    "changes", [{"meta_columns": []}, *({**META, "fusion": how} for how in ("late", "branch", "early"))]
)
def test_features_are_what_the_backbone_says_of_the_image(changes: dict[str, object]) -> None:
    model, preprocess = _network(**changes)
    images, rows = _images()
    features, logits = feature_extractor(model, preprocess, CPU, batch_size=4)(images, rows)
    with torch.inference_mode():
        x_BCHW = preprocess(torch.from_numpy(images.astype(np.float32)))
        columns = [np.asarray(rows[name]) for name in model.settings.meta_columns]
        meta_BM = torch.from_numpy(np.stack(columns, axis=1) if columns else np.empty((10, 0))).float()
        expected = model.features(x_BCHW, meta_BM)[:, : features.shape[1]]
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, predictor(model, preprocess, CPU)(images, rows), rtol=1e-4, atol=1e-5)


def test_conditions_fused_late_do_not_enter_the_features() -> None:
    model, preprocess = _network(**META)
    images, rows = _images()
    worse = rows.set_column(rows.schema.get_field_index("psfsize_r"), "psfsize_r", pa.array(np.full(10, 2.0)))
    extract = feature_extractor(model, preprocess, CPU)
    (one, logits), (other, changed) = extract(images, rows), extract(images, worse)
    np.testing.assert_array_equal(one, other)
    assert not np.allclose(logits, changed)


def test_features_of_several_orientations_are_averaged_so_that_turning_an_image_changes_nothing() -> None:
    model, preprocess = _network(evaluate_symmetries=8)
    images, rows = _images()
    extract = feature_extractor(model, preprocess, CPU)
    turned = np.ascontiguousarray(np.rot90(images, axes=(2, 3)))
    np.testing.assert_allclose(extract(images, rows)[0], extract(turned, rows)[0], rtol=1e-3, atol=1e-4)


def test_nothing_stays_on_the_network_and_every_image_is_counted() -> None:
    model, preprocess = _network()
    images, rows = _images()
    counted: list[int] = []
    feature_extractor(model, preprocess, CPU, batch_size=4, advance=counted.append)(images, rows)
    assert counted == [4, 4, 2]
    assert not model.head._forward_pre_hooks


def test_no_images_give_no_features() -> None:
    model, preprocess = _network(meta_columns=[])
    images, rows = _images()
    features, logits = feature_extractor(model, preprocess, CPU)(images[:0], rows.slice(0, 0))
    assert features.shape == (0, model.head[0].in_features)
    assert logits.shape == (0,)
