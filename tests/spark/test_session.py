"""A session has the same settings wherever it runs, and gives the same bytes however many cores it has."""

import argparse
import os
import zipfile

import pytest

from dark_halo_scope.core.errors import BadInputError
from dark_halo_scope.spark.session import (
    INHERITED,
    add_arguments,
    local_cores,
    package_zip,
    session_settings,
    spark_session,
)


def test_the_master_is_an_argument_and_defaults_to_all_cores():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args([]).spark_master == "local[*]"
    assert parser.parse_args(["--spark-master", "local[1]"]).spark_master == "local[1]"


@pytest.mark.parametrize(
    ("master", "cores"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[*]", len(os.sched_getaffinity(0))),
        ("spark://h:7077", None),
        ("loc", None),
    ],
)
def test_a_local_master_has_so_many_cores(master, cores):
    assert local_cores(master) == cores


@pytest.mark.parametrize("master", ["yarn", "local[0]", "local[x]", "", "mesos://h"])
def test_another_master_is_refused(master):
    with pytest.raises(BadInputError, match="no Spark master"):
        session_settings(master)


def test_a_host_that_is_not_there_is_refused():
    with pytest.raises(BadInputError, match="cannot be found"):
        session_settings("spark://no-such-host.invalid:7077")


def test_a_local_session_listens_to_this_machine_only_and_takes_little_memory():
    settings = session_settings("local[2]")
    assert settings["spark.driver.bindAddress"] == "127.0.0.1"
    assert settings["spark.ui.enabled"] == "false"
    assert int(settings["spark.driver.memory"].rstrip("m")) / 2 < 1500


def test_inside_spark_submit_nothing_of_the_cluster_is_overridden():
    names = session_settings(INHERITED)
    assert not any("memory" in name or "master" in name or "bindAddress" in name for name in names)


def test_the_package_zip_repeats_and_holds_all_that_executors_import(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = package_zip(tmp_path / "a"), package_zip(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
    assert {"dark_halo_scope/__init__.py", "dark_halo_scope/core/manifest.py"} <= set(names)
    assert not any(name.endswith(".pyc") for name in names)


def test_a_session_runs_our_code_in_utc_with_one_thread_a_task():
    with spark_session("local[2]", "test") as spark:

        def report(_):
            from dark_halo_scope.core.files import sha256_bytes

            yield os.environ["OMP_NUM_THREADS"], sha256_bytes(b"abc")[:8]

        assert set(spark.sparkContext.parallelize(range(2), 2).mapPartitions(report).collect()) == {("1", "ba7816bf")}
        assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
        assert spark.sparkContext.getConf().get("spark.master") == "local[2]"
        with pytest.raises(Exception, match="CAST_INVALID_INPUT"):
            spark.sql("SELECT CAST('x' AS INT)").collect()

        with spark_session("local[2]", "inner") as inner:
            assert inner is spark
        assert spark.range(3).count() == 3
        with pytest.raises(BadInputError, match=r"local\[2\] runs in this process"), spark_session("local[1]", "x"):
            pytest.fail("two masters at once")

    with spark_session("local[1]", "another") as spark:
        assert spark.sparkContext.master == "local[1]"
