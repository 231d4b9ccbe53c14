"""What the alarms of a day say of a sample."""

import pytest

from perfusio_jax.twin.alarms.daily_alarms import doubts_of


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"quality": "good"}, []),
        ({"quality": "bad"}, ['the quality of the sample is "bad"']),
        (
            {"quality": "uncertain", "limits": {"Glycerol": [None, 0.1], "EtOH": [None, 0.2]}},
            [
                'the quality of the sample is "uncertain": Glycerol, EtOH beyond the limit of the '
                "assay"
            ],
        ),
    ],
)
def test_a_sample_in_doubt_says_what_is_in_doubt(record, told):
    assert doubts_of(record) == told
