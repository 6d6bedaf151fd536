"""The figure of what the network gets."""

import numpy as np
import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.preprocess import Preprocess6CH
from dark_halo_scope.images.preprocess_config import PRESETS, PreprocessSettings
from dark_halo_scope.paper.figure_config import SixChannelsSettings
from dark_halo_scope.paper.six_channels import channel_titles, channels, choose_pair, draw

STAMPS = np.random.default_rng(5).normal(0, 0.02, (3, 3, 64, 64)).astype(np.float32)


def test_the_bright_pair_nearest_in_einstein_radius_is_shown() -> None:
    settings = SixChannelsSettings(theta_e_arcsec=1.5, min_arc_snr=50)
    theta_e = np.array([1.5, 1.1, 1.8, 2.5])
    assert choose_pair(theta_e, np.array([10.0, 60.0, 60.0, 90.0]), settings) == 2


def test_without_a_bright_arc_the_sentence_says_what_to_lower() -> None:
    with pytest.raises(BadInputError, match="lower min_arc_snr"):
        choose_pair(np.ones(2), np.ones(2), SixChannelsSettings())


def test_channels_are_what_preprocessing_gives_the_network() -> None:
    import torch

    preprocess = Preprocess6CH(PRESETS["gen5_prime"], 64).eval()
    made = channels(preprocess, STAMPS, STAMPS[1])
    assert made.shape == (3, 6, 64, 64)
    assert np.array_equal(made, preprocess(torch.from_numpy(STAMPS)).numpy())
    assert [title.rpartition(" ")[2] for title in channel_titles(preprocess)][3:] == ["residual"] * 3


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (PreprocessSettings(residual=False), 3),
        (PreprocessSettings(residual=False, control_source="azimuthal_median_self"), 6),
        (PreprocessSettings(control_source="paired_oracle"), 9),
    ],
)
def test_every_network_s_channels_have_a_title_and_a_column(settings: PreprocessSettings, count: int) -> None:
    preprocess = Preprocess6CH(settings, 64).eval()
    titles = channel_titles(preprocess)
    made = channels(preprocess, STAMPS, STAMPS[1])
    figure = draw(made, titles, "pair", None, SixChannelsSettings())
    assert made.shape[1] == len(titles) == count
    assert [axes.get_title() for axes in figure.axes[:count]] == titles


def test_what_the_network_cuts_out_is_marked_where_it_is_smaller_than_the_stamp() -> None:
    made = np.zeros((3, 3, 64, 64), np.float32) + np.arange(64, dtype=np.float32)
    titles = ["g", "r", "z"]
    marked, whole = (draw(made, titles, "pair", side, SixChannelsSettings()) for side in (48, 64))
    square = marked.axes[0].patches[0]
    assert (square.get_x(), square.get_width()) == (7.5, 48)
    assert not whole.axes[0].patches
