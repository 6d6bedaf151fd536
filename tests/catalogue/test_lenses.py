"""A lens list is read with all of its traps, and nothing is lost without a reason."""

from pathlib import Path

import numpy as np
import pytest

from dark_halo_scope.catalogue.config import LensSettings
from dark_halo_scope.catalogue.crossmatch import close_pairs
from dark_halo_scope.catalogue.lenses import (
    discovery_method,
    is_not_lens_catalogue,
    match_theta_e,
    parse_list,
    parse_refs,
    parse_zlens,
    read_lenscat,
    select,
    tier_gen5_prime,
    to_table,
)
from dark_halo_scope.core.errors import BadInputError

HEADER = "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"


def catalogue(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "catalog.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return path


def table_of(path: Path, settings: LensSettings | None = None):
    settings = settings or LensSettings()
    groups, dropped = select(read_lenscat(path), settings)
    return to_table(groups, match_theta_e(groups, settings), settings), dropped


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("J1", ("J1",)),
        ("NSCS J1 | [J2] | [J3]", ("NSCS J1", "J2", "J3")),
        ("a |b|a | ", ("a", "b")),
        ("", ()),
    ],
)
def test_lists_are_split_without_brackets_blanks_or_repeats(text, parts):
    assert parse_list(text) == parts


def test_addresses_are_also_joined_by_blanks_and_citations_are_not():
    assert parse_refs("https://a.b/1 https://a.b/2") == ("https://a.b/1", "https://a.b/2")
    assert parse_refs("Sand et al. (2005) - arXiv:1 | Cao et al. (2020) - arXiv:2") == (
        "Sand et al. (2005) - arXiv:1",
        "Cao et al. (2020) - arXiv:2",
    )


@pytest.mark.parametrize(
    ("text", "z", "certain"),
    [
        ("0.407", 0.407, True),
        ("-", None, False),
        ("L", None, False),
        ("measured", None, False),
        ("observed", None, False),
        ("not measured", None, False),
        ("nan", None, False),
        ("", None, False),
        ("0.272?", 0.272, False),
        ("0.55*", 0.55, False),
        ("0.905? measured", 0.905, False),
        ("nan | 0.471 | 0.48", 0.471, True),
        ("0.33 |0.33", 0.33, True),
    ],
)
def test_redshifts_are_numbers_or_none(text, z, certain):
    assert parse_zlens(text) == (z, certain)


def test_rows_of_other_catalogues_are_dropped_with_their_name(tmp_path):
    path = catalogue(
        tmp_path,
        "A,10,1,0.3,galaxy,probable,Lopes et al. (2004) - doi:10.1086/423038 | Sand et al. (2005) - arXiv:1",
        "B,11,1,0.3,galaxy,confident,Olsen et al. (2006) - arXiv:astro-ph/0609815",
        "C,12,1,0.3,galaxy,probable,Storfer et al. (2022) - arXiv:2206.02764",
    )
    table, dropped = table_of(path)
    assert table["name"].to_pylist() == ["C"]
    assert [d.reason for d in dropped] == [
        "listed by Lopes et al. (2004), no catalogue of lenses",
        "listed by Olsen et al. (2006), no catalogue of lenses",
    ]
    assert not any(d.is_bad for d in dropped)
    assert table_of(path, LensSettings(drop_cluster_catalogues=False))[0].num_rows == 3


def test_entries_within_two_arcsec_become_one_lens_across_ra_0(tmp_path):
    path = catalogue(
        tmp_path,
        "first,0.0002,1,nan,galaxy,probable,Huang et al. (2020) - arXiv:1906.00970",
        "second,359.9998,1,0.45?,galaxy,confident,SLACS | https://arxiv.org/abs/0805.1931",
        "third,0.0002,1.001,0.5,galaxy,probable,x",
    )
    table, dropped = table_of(path)
    merged = table.to_pylist()[-1]
    assert merged["name"] == "second"
    assert merged["names"] == ["second", "first"]
    assert merged["grading"] == "confident"
    assert merged["zlens"] == 0.45
    assert not merged["zlens_is_certain"]
    assert merged["n_merged"] == 2
    assert merged["tier_gen5_prime"] == "A"
    assert [(d.entry.names[0], d.reason) for d in dropped] == [("first", "merged into second")]


@pytest.mark.parametrize(
    "row",
    [
        "a,361,0,-,galaxy,probable,x",
        "a,10,-91,-,galaxy,probable,x",
        "a,nan,0,-,galaxy,probable,x",
        "a,10h,0,-,galaxy,probable,x",
        ",10,0,-,galaxy,probable,x",
        "a,10,0,-,galaxy,maybe,x",
    ],
)
def test_bad_rows_are_kept_aside(tmp_path, row):
    table, dropped = table_of(catalogue(tmp_path, row, "good,10,0,-,galaxy,probable,x"))
    assert table["name"].to_pylist() == ["good"]
    assert [d.is_bad for d in dropped] == [True]


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("name,ra,dec\na,1,2\n")
    with pytest.raises(BadInputError, match=r"lacks the columns RA \[deg\]"):
        read_lenscat(path)


def test_an_empty_catalogue_is_no_error(tmp_path):
    table, dropped = table_of(catalogue(tmp_path))
    assert (table.num_rows, dropped) == (0, [])


def test_storfers_lenses_need_a_large_einstein_radius_from_a_table(tmp_path):
    radii = tmp_path / "storfer.csv"
    radii.write_text("ra,dec,theta_e_arcsec\n10.0003,1.0,1.9\n20.0,1.0,1.2\n30.01,1.0,2.5\n")
    path = catalogue(
        tmp_path,
        *(f"S{ra},{ra},1,0.3,galaxy,probable,Storfer et al. (2022) - arXiv:2206.02764" for ra in (10, 20, 30)),
    )
    table, _ = table_of(path, LensSettings(theta_e_tables=(str(radii),)))
    assert table["theta_e_arcsec"].to_pylist() == [1.9, 1.2, None]
    assert table["tier_gen5_prime"].to_pylist() == ["A", None, None]


def test_a_table_of_radii_without_numbers_is_refused(tmp_path):
    radii = tmp_path / "radii.csv"
    radii.write_text("ra,dec,theta_e_arcsec\n10.0,1.0,large\n")
    path = catalogue(tmp_path, "a,10,0,-,galaxy,probable,x")
    with pytest.raises(BadInputError, match="theta_e_arcsec"):
        table_of(path, LensSettings(theta_e_tables=(str(radii),)))


def test_the_two_tier_schemes_are_apart():
    slacs = ("Bolton et al. (2008) - arXiv:0805.1931",)
    assert tier_gen5_prime(slacs, 1.2, 1.5) == "B"
    assert tier_gen5_prime(("https://iopscience.iop.org/article/10.3847/1538-4365/ab26b6#t5",), None, 1.5) == "A"
    assert tier_gen5_prime(("Talbot et al. (2020) - arXiv:2007.09006",), None, 1.5) is None


def test_what_machine_learning_found_on_this_survey_is_marked():
    assert discovery_method(("Storfer et al. (2022) - arXiv:2206.02764",)) == "machine_learning_this_survey"
    assert discovery_method(("Petrillo et al. (2018) - arXiv:1812.03168",)) == "machine_learning_other_survey"
    assert discovery_method(("Bolton et al. (2008) - arXiv:0805.1931",)) == "spectroscopy"
    assert discovery_method(("Cabanac et al. (2006) - arXiv:0610362",)) == "other"


@pytest.fixture(scope="module")
def lenscat(real_data):
    return read_lenscat(real_data / "lenscat" / "catalog.csv")


def test_lenscat_has_the_counts_that_were_measured_independently(lenscat):
    assert len(lenscat) == 32_838
    probable = [e for e in lenscat if e.kind == "galaxy" and e.grading == "probable"]
    assert len(probable) == 29_717
    assert sum(is_not_lens_catalogue(e) is not None for e in probable) == 13_925
    assert sum(any(ref.startswith("Lopes et al. (2004)") for ref in e.refs) for e in probable) == 9_955
    confident = [e for e in lenscat if e.kind == "galaxy" and e.grading == "confident"]
    assert sum(is_not_lens_catalogue(e) is not None for e in confident) == 63
    desi = [e for e in lenscat if any("DESI" in name for name in e.names)]
    assert (len(desi), sum(e.grading == "confident" for e in desi)) == (5_104, 435)


def test_lenscats_close_pairs_are_merged(lenscat):
    assert len(close_pairs([e.ra for e in lenscat], [e.dec for e in lenscat], 2.0)) == 109
    groups, dropped = select(lenscat, LensSettings())
    assert sum(len(members) for members in groups) + len(dropped) - sum(
        d.reason.startswith("merged") for d in dropped
    ) == len(lenscat)
    best = [members[0] for members in groups]
    assert len(close_pairs([e.ra for e in best], [e.dec for e in best], 2.0)) == 0
    assert not any(d.is_bad for d in dropped)


def test_no_redshift_of_lenscat_is_absurd(lenscat):
    z = np.array([e.zlens for e in lenscat if e.zlens is not None])
    assert len(z) > 17_000
    assert z.min() >= 0
    assert z.max() < 5
