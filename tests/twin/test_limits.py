"""Limits of assays from a sample file to the history a decision reads."""

import asyncio

import numpy as np

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.process import CONSORTIUM
from perfusio_jax.twin import history_from_records
from perfusio_jax.twin.decision.described_objective import Objective, must_be_read
from perfusio_jax.twin.decision.limit_rows import limits_of
from perfusio_jax.twin.records.samples import as_plain
from tests.twin.described import FOREIGN

TABLE = """day,VCD,Gln,Lac,perfusion_rate
0,0.5,3.0,2.0,1.0
1,1.0,< 0.4,> 40,1.0
2,2.0,0.9,3.0,1.0
"""


def rows(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text(TABLE)
    store = FilesystemStore(path)
    found = asyncio.run(store.read_rows())
    return [as_plain(record, record.day) for record in found]


def test_a_limit_of_a_sample_file_reaches_the_history(tmp_path):
    plain = rows(tmp_path)
    assert plain[1]["limits"] == {"Gln": [0.4, None], "Lac": [None, 40.0]}
    assert all("limits" not in plain[k] for k in (0, 2))  # records are what they were
    history = history_from_records(plain, volume_L=0.25)
    gln, lac = (history.host_limits([name])[:, 0] for name in ("Gln", "Lac"))
    np.testing.assert_allclose(gln[1], [0.4, np.nan])
    np.testing.assert_allclose(lac[1], [np.nan, 40.0])
    assert int(np.isfinite(history.host_limits(FORECAST_SPECIES)).sum()) == 2


def test_below_a_limit_is_read_where_nobody_needs_a_number(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text(TABLE.replace("> 40", "2.5"))
    (_, record, _) = asyncio.run(FilesystemStore(path).read_rows())
    for needed, quality in ((None, "uncertain"), (("Gln",), "uncertain"), (("VCD",), "good")):
        assert record.worst_quality_for(needed) == quality
        assert as_plain(record, 1, must_be_read=needed)["quality"] == quality
    assert record.worst_quality == "uncertain"
    path.write_text(TABLE)  # what is above its limit is uncertain to everybody
    (_, record, _) = asyncio.run(FilesystemStore(path).read_rows())
    assert record.worst_quality_for(("VCD",)) == "uncertain"


def test_a_decision_needs_what_it_is_about_and_the_cells():
    objective = Objective(goals=("VCD = 20", "max Glc"), limits=("Via >= 80",))
    assert must_be_read(objective, FOREIGN) == ("VCD", "Via", "Glc")
    assert must_be_read(Objective(goals=("min Lac",)), FOREIGN) == ("VCD", "Lac")
    assert must_be_read(Objective(goals=("min glucose",)), CONSORTIUM) == CONSORTIUM.readings


def test_a_history_without_limits_has_none(tmp_path):
    plain = [row for k, row in enumerate(rows(tmp_path)) if k != 1]
    assert history_from_records(plain, volume_L=0.25).limits is None


def test_the_limit_of_a_value_that_is_not_believed_does_not_count(tmp_path):
    plain = rows(tmp_path)
    plain[1]["values"] = {n: v for n, v in plain[1]["values"].items() if n != "Gln"}
    found = limits_of(plain, ("Gln", "Lac"))
    assert found is not None
    assert np.isnan(found[:, 0]).all() and found[1, 1, 1] == 40.0
