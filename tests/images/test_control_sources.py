"""Control channels: what each source shows, that arcs stand out against it, and what it cannot be used for."""

import numpy as np
import pytest
import torch

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.images.augment import augment
from dark_halo_scope.images.control_sources import RingMedians, control_library
from dark_halo_scope.images.preprocess import Preprocess6CH, annulus_mask
from dark_halo_scope.images.preprocess_config import (
    CONTROL_SOURCES,
    PRESETS,
    AugmentSettings,
    PreprocessSettings,
    preset,
)
from dark_halo_scope.images.symmetries import dihedral

NOISE = 0.01  # nanomaggies per pixel
SIZE = 64
OFFSET = np.arange(SIZE) - (SIZE - 1) / 2
RADIUS = np.hypot(OFFSET[:, None], OFFSET[None])
ANGLE = np.arctan2(OFFSET[:, None], OFFSET[None])
BACKGROUND = annulus_mask(SIZE, 16.0)


def galaxies(brightness: list[float], seed: int = 0) -> np.ndarray:
    """Round galaxies (N, 3, H, W) of these central surface brightnesses, redder in z, on noise and a faint sky."""
    host = np.array(brightness)[:, None, None, None] * np.exp(-(RADIUS**0.5)) * np.array([0.5, 1, 1.5])[:, None, None]
    return host + np.random.default_rng(seed).normal(0.003, NOISE, (len(brightness), 3, SIZE, SIZE))


def arc(height: float = 8.0, at: float = 8.0, width: float = 1.5, span: float = 0.6) -> np.ndarray:
    """An arc (3, H, W) on one side, `height` times the noise, outside the annulus; a span of pi is a whole ring."""
    light = height * NOISE * np.exp(-0.5 * ((RADIUS - at) / width) ** 2) * (np.abs(ANGLE - 0.4) < span)
    return np.broadcast_to(light * (RADIUS < 15), (3, SIZE, SIZE)).copy()


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).float()


def paired(source: str, library: np.ndarray | None = None, **changes: object) -> Preprocess6CH:
    given = {"residual": False, "control_source": source, **changes}
    preprocess = Preprocess6CH(PreprocessSettings.model_validate(given))
    if preprocess.needs_library:
        preprocess.set_library(galaxies([0.5, 1, 2, 3, 4, 6], seed=99) if library is None else library)
    return preprocess


def lower_median(values: np.ndarray) -> np.ndarray:
    return np.sort(values)[..., (values.shape[-1] - 1) // 2]


def background(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ring = image[:, BACKGROUND]
    median = lower_median(ring)[:, None, None]
    return median, 1.4826 * lower_median(np.abs(ring - median[..., 0]))[:, None, None] + 1e-6


def ring_medians(image: np.ndarray) -> np.ndarray:
    rings = [(ring <= RADIUS) & (ring + 1 > RADIUS) for ring in range(SIZE // 2)]
    return np.array([[np.median(band[ring]) for ring in rings] for band in image])


def test_ring_medians_and_their_image_are_numpys() -> None:
    image = galaxies([2.0])[0]
    rings = RingMedians(SIZE)
    profile = rings(tensor(image[None]))
    np.testing.assert_allclose(profile[0], ring_medians(image), rtol=1e-5, atol=1e-7)
    # Where gradients are asked for, torch sorts.
    assert torch.equal(rings(tensor(image[None]).requires_grad_()).detach(), profile)
    nodes = [RADIUS[(ring <= RADIUS) & (ring + 1 > RADIUS)].mean() for ring in range(SIZE // 2)]
    expected = np.stack([np.interp(RADIUS, nodes, band) for band in ring_medians(image)])
    np.testing.assert_allclose(rings.image(profile)[0], expected, rtol=1e-4, atol=1e-6)


def expected_control(source: str, stamp: np.ndarray, control: np.ndarray, library: np.ndarray) -> np.ndarray:
    """The control of one stamp in noise units before the stretch, computed without torch."""
    median, sigma = background(stamp)
    y = (stamp - median) / sigma
    if source == "duplicate_self":
        return y
    if source == "rot180_self":
        return np.rot90(y, 2, axes=(1, 2))
    if source == "paired_oracle":
        return (control - median) / sigma
    nodes = [RADIUS[(ring <= RADIUS) & (ring + 1 > RADIUS)].mean() for ring in range(SIZE // 2)]
    if source == "azimuthal_median_self":
        return np.stack([np.interp(RADIUS, nodes, band) for band in ring_medians(y)])
    dark = np.stack([image - background(image)[0] for image in library])
    if source == "median_lrg_template":
        count = np.array([((ring <= RADIUS) & (ring + 1 > RADIUS)).sum() for ring in range(4)])

        def core(image: np.ndarray) -> np.ndarray:
            return (ring_medians(image)[:, :4] * count).sum(1)[:, None, None]

        template = lower_median(np.moveaxis(np.stack([image / core(image) for image in dark]), 0, -1))
        turned = [np.rot90(template, k, axes=(1, 2)) for k in range(4)]
        template = np.mean([*turned, *(image[:, ::-1] for image in turned)], axis=0)
        return core(y) * template / core(template)
    soft = np.median([np.median(np.abs(image[:, BACKGROUND]), axis=1) for image in dark], axis=0)[:, None]
    profiles = [np.arcsinh(ring_medians(image)[:, :8] / soft) for image in dark]
    own = np.arcsinh(ring_medians(stamp - median)[:, :8] / soft)
    nearest = int(np.argmin([np.sum((profile - own) ** 2) for profile in profiles]))
    return dark[nearest] / sigma


@pytest.mark.parametrize("stretch", ["clip", "asinh"])
@pytest.mark.parametrize("source", CONTROL_SOURCES)
def test_each_source_is_what_numpy_makes_of_the_stamp_with_the_stamps_scale(source: str, stretch: str) -> None:
    controls = galaxies([1.1, 2.9], seed=1)
    stamps = controls + arc()
    library = galaxies([0.5, 1, 2, 3, 4, 6, 5], seed=99)
    x = paired(source, library, stretch=stretch)(tensor(stamps), tensor(controls)).numpy()
    assert x.shape == (2, 6, SIZE, SIZE)
    for index in range(2):
        expected = expected_control(source, stamps[index], controls[index], library)
        expected = np.clip(expected, -10, 10) if stretch == "clip" else np.arcsinh(expected)
        # Packed arrays and the library are of half precision.
        np.testing.assert_allclose(x[index, 3:], expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("source", CONTROL_SOURCES)
def test_the_stamps_channels_do_not_depend_on_the_control(source: str) -> None:
    controls = galaxies([1.1, 2.9], seed=1)
    plain = Preprocess6CH(PreprocessSettings(residual=False))
    stamps = tensor(controls + arc())
    assert torch.equal(paired(source)(stamps, tensor(controls))[:, :3], plain(stamps))


def test_a_residual_comes_between_stamp_and_control() -> None:
    stamps = tensor(galaxies([1.1, 2.9], seed=1))
    with_residual = paired("rot180_self", residual=True)
    assert with_residual.channels == 9
    x = with_residual(stamps)
    assert torch.equal(x[:, :6], Preprocess6CH(PreprocessSettings())(stamps))
    assert torch.equal(x[:, 6:], x[:, :3].rot90(2, (2, 3)))


@pytest.mark.parametrize("element", range(8))
@pytest.mark.parametrize("source", [source for source in CONTROL_SOURCES if source != "matched_lrg"])
def test_controls_turn_with_the_stamp(source: str, element: int) -> None:
    controls = tensor(galaxies([1.1, 2.9], seed=1))
    stamps = controls + tensor(arc())
    preprocess = paired(source)
    turned = preprocess(dihedral(stamps, element), dihedral(controls, element))
    torch.testing.assert_close(turned, dihedral(preprocess(stamps, controls), element), atol=1e-4, rtol=1e-4)


def test_the_matched_galaxy_is_the_same_one_for_every_orientation() -> None:
    stamps = tensor(galaxies([1.1, 2.9], seed=1) + arc())
    preprocess = paired("matched_lrg")
    for element in range(8):
        assert torch.equal(preprocess(dihedral(stamps, element))[:, 3:], preprocess(stamps)[:, 3:])


def kept(preprocess: Preprocess6CH, control: np.ndarray, light: np.ndarray, contrast: bool) -> float:
    """Share of an arc's flux, in noise units of the control, that the channels show where nothing is clipped.

    `contrast`: as stamp minus control channels and not in the stamp's alone.
    """
    controls, stamps = tensor(control[None]), tensor((control + light)[None])
    with_arc, without = preprocess(stamps, controls), preprocess(controls, controls)
    on_arc = torch.from_numpy(light > 0.5 * NOISE)
    open_ = on_arc[None].clone()
    for x in (with_arc, without):
        for part in (x[:, :3], x[:, 3:6]) if contrast else (x[:, :3],):
            open_ &= (part > preprocess.settings.clip_low) & (part < preprocess.settings.clip_high)
    assert open_.sum() > 0.3 * on_arc.sum()
    change = with_arc[:, :3] - without[:, :3]
    if contrast:
        change = change - (with_arc[:, 3:6] - without[:, 3:6])
    _, sigma = preprocess.background(controls)
    expected = tensor(light)[None] / sigma
    return float(change[open_].sum() / expected[open_].sum())


@pytest.mark.parametrize("source", CONTROL_SOURCES)
def test_an_arc_survives_the_normalisation(source: str) -> None:
    control = galaxies([1.5], seed=2)[0]
    preprocess = paired(source, clip_low=-5, clip_high=20)
    assert kept(preprocess, control, arc(), contrast=False) >= 0.9
    if source != "duplicate_self":  # which shows no difference whatever there is
        assert kept(preprocess, control, arc(), contrast=True) >= 0.9


@pytest.mark.parametrize("name", sorted(name for name in PRESETS if PRESETS[name].stretch == "clip"))
def test_a_ring_survives_the_scale_of_an_outer_annulus_and_not_that_of_the_whole_stamp(name: str) -> None:
    sky = np.random.default_rng(2).normal(0.003, NOISE, (3, SIZE, SIZE))
    control = sky + 4 * np.exp(-RADIUS / 1.6)  # faint below the ring, so that the lowest clip leaves it open
    ring = arc(height=4, at=9.0, width=3.0, span=np.pi)  # of Einstein radius 2.4"
    share = kept(Preprocess6CH(preset(name)), control, ring, contrast=False)
    if name == "full_image":
        assert share < 0.9
    else:
        assert share >= 0.9


@pytest.mark.parametrize("source", ["duplicate_self", "paired_oracle"])
def test_a_control_beside_itself_shows_no_difference(source: str) -> None:
    controls = tensor(galaxies([1.1, 2.9], seed=1))
    x = paired(source)(controls, controls)
    assert torch.equal(x[:, :3], x[:, 3:])


def test_a_galaxy_is_never_matched_with_itself_in_whatever_way_it_was_augmented() -> None:
    """Training's controls are the library: a positive whose own control were found would show the arc without noise."""
    library = galaxies([1.0, 1.02, 3.0, 3.05], seed=5)
    preprocess = paired("matched_lrg", library)
    stamps = tensor(library + arc())
    settings = AugmentSettings.model_validate({"noise_sigma": 0.1, "psf_blur_sigma_pix": 1.0})
    for seed in range(10):
        turned, _ = augment(stamps, settings, preprocess, torch.Generator().manual_seed(seed))
        _, sigma = preprocess.background(turned)
        for index, other in enumerate((1, 0, 3, 2)):
            shown = preprocess(turned[index : index + 1])[0, 3:]
            expected = (tensor(library[other] - background(library[other])[0]) / sigma[index]).clamp(-10, 10)
            torch.testing.assert_close(shown, expected, atol=0.02, rtol=0.01)


def test_where_only_the_stamp_itself_is_known_it_is_matched_after_all() -> None:
    library = galaxies([1.0], seed=5)
    x = paired("matched_lrg", library)(tensor(library + arc()))
    assert torch.isfinite(x).all()


def test_the_oracle_refuses_without_controls_and_names_what_can_be_deployed() -> None:
    stamps = tensor(galaxies([1.0]))
    for given in (None, stamps[:0]):
        with pytest.raises(BadInputError, match=r"never deployed.*azimuthal_median_self.*median_lrg_template"):
            paired("paired_oracle")(stamps, given)
    assert [name for name in CONTROL_SOURCES if paired(name).needs_controls] == ["paired_oracle"]
    assert [name for name in CONTROL_SOURCES if not paired(name).settings.deployable] == ["paired_oracle"]


@pytest.mark.parametrize("source", ["matched_lrg", "median_lrg_template"])
def test_a_source_without_its_library_says_what_is_missing(source: str) -> None:
    bare = Preprocess6CH(PreprocessSettings.model_validate({"control_source": source}))
    assert bare.needs_library
    with pytest.raises(BadInputError, match="set_library"):
        bare(tensor(galaxies([1.0])))
    with pytest.raises(BadInputError, match="shape"):
        bare.set_library(np.zeros((4, 3, 32, 32)))
    with pytest.raises(BadInputError, match="no library"):
        paired("rot180_self").set_library(galaxies([1.0]))


def test_a_library_without_galaxies_makes_no_template() -> None:
    with pytest.raises(BadInputError, match="holds a galaxy"):
        paired("median_lrg_template", -galaxies([1.0, 2.0]))


@pytest.mark.parametrize("source", CONTROL_SOURCES)
def test_what_was_learned_is_restored_to_the_bit(source: str) -> None:
    controls = tensor(galaxies([1.1, 2.9], seed=1))
    stamps = controls + tensor(arc())
    learned = paired(source)
    other = Preprocess6CH(learned.settings)
    other.restore_learned(learned.state_dict())
    assert torch.equal(other(stamps, controls), learned(stamps, controls))
    with pytest.raises(BadInputError, match="train again"):
        other.restore_learned({"control.other": controls})


def test_pixels_of_controls_that_are_not_finite_are_refused_or_marked_like_the_stamps() -> None:
    controls = tensor(galaxies([1.0, 2.0, 3.0]))
    broken = controls.clone()
    broken[1, 0, 5, 5] = torch.inf
    preprocess = paired("paired_oracle")
    with pytest.raises(BadInputError, match=r"\[1\]"):
        preprocess(controls, broken)
    marked = preprocess(controls, broken, check=False)
    assert torch.isnan(marked[1, 3:]).all()
    assert torch.equal(marked[[0, 2]], preprocess(controls, controls)[[0, 2]])
    # An infinite pixel would be clipped to a finite one, and nobody would know.
    assert torch.isnan(preprocess(broken, controls, check=False)[1]).all()


def test_a_library_is_a_seeded_choice_of_different_finite_stamps() -> None:
    stamps = galaxies([1.0, 2.0, 3.0, 4.0, 5.0]).astype(np.float16)
    controls = np.repeat(stamps, 4, axis=0)  # each galaxy bears four arcs
    controls[0, 0, 0, 0] = np.nan
    chosen = control_library(controls, 3, np.random.default_rng(1))
    assert chosen.shape == (3, 3, SIZE, SIZE)
    assert chosen.dtype == np.float16
    which = [int(np.flatnonzero([np.array_equal(image, stamp) for stamp in stamps])[0]) for image in chosen]
    assert len(set(which)) == 3
    assert np.array_equal(chosen, control_library(controls, 3, np.random.default_rng(1)))
    assert len(control_library(controls, 100, np.random.default_rng(1))) == 5
    with pytest.raises(BadInputError, match="finite"):
        control_library(np.full((2, 3, 8, 8), np.nan), 3, np.random.default_rng(1))


@pytest.mark.gpu
@pytest.mark.parametrize("source", CONTROL_SOURCES)
def test_a_gpu_makes_the_channels_that_the_cpu_makes(source: str) -> None:
    controls = tensor(galaxies([1.1, 2.9], seed=1))
    stamps = controls + tensor(arc())
    preprocess = paired(source)
    on_cpu = preprocess(stamps, controls)
    on_gpu = preprocess.cuda()(stamps.cuda(), controls.cuda())
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-3, rtol=1e-3)
