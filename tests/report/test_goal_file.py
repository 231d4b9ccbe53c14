"""The goal file: what it may say, and what is refused by name."""

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.report.goal_file import GoalFile, read_goal_file

TEXT = """
goals = ["max formed(P)", "min used(feed)"]
weights = [1, 0.2]
limits = ["S <= 4", "used(feed) <= 15"]
probability = 0.9
profile = 2
per = "cost"

[cost]
run = 500
medium = 12.5

[max_change]
dilution = 0.1
"""


def test_a_goal_file_says_goals_limits_prices_and_changes(tmp_path):
    path = tmp_path / "goal.toml"
    path.write_text(TEXT)
    told = read_goal_file(path)
    assert told.goals == ("max formed(P)", "min used(feed)") and told.weights == (1, 0.2)
    assert told.cost == {"run": 500, "medium": 12.5} and told.max_change == {"dilution": 0.1}
    assert (told.profile, told.per, told.probability, told.front) == (2, "cost", 0.9, False)
    path.write_text("")
    assert read_goal_file(path) == GoalFile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaols = []", "'gaols' is unknown.*goals"),
        ("goals = 'max P'", "goals is 'max P'; a list of texts"),
        ("goals = [1]", "a list of texts"),
        ("weights = [true]", "a list of numbers"),
        ("profile = true", "a whole number"),
        ("front = 1", "true or false"),
        ("[cost]\nrun = '5'", "a table of numbers"),
    ],
)
def test_what_a_goal_file_cannot_say_is_refused(tmp_path, text, message):
    path = tmp_path / "goal.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_goal_file(path)


def test_a_goal_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="is not a file"):
        read_goal_file(tmp_path / "none.toml")
