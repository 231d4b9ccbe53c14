"""Broken `twin.toml`: refused in words with exit code 2, never a traceback, never a secret."""

import math
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from perfusio_jax import cli
from perfusio_jax._core import ConfigError
from perfusio_jax.cli import EXIT_CODES, common
from perfusio_jax.service import run
from perfusio_jax.service.settings import _KEYS

SECRET = "hunter2-correct-horse"
GOOD: dict[str, dict[str, Any]] = {
    "twin": {"source": "s.csv", "mode": "frozen", "poll_seconds": 1.0},
    "run": {"duration_days": 3, "acquisition": "LogEI", "allow_write": False},
    "design_space": {},
    "alarms": {},
}


class Started(SystemExit):
    """The configuration was taken: the run would begin here."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "s.csv").write_text("day,VCD\n0,2.0\n")

    def begin(work: Any, **more: Any):
        work.close()
        raise Started

    monkeypatch.setattr(common, "set_up_jax", lambda device=None: None)
    monkeypatch.setattr(run.asyncio, "run", begin)
    return tmp_path


def toml_of(table: Any) -> str:
    """A value as TOML, whatever it is."""
    if isinstance(table, bool):
        return str(table).lower()
    if isinstance(table, dict):
        inner = ", ".join(f"{key_of(k)} = {toml_of(v)}" for k, v in table.items())
        return "{" + inner + "}"
    if isinstance(table, list):
        return "[" + ", ".join(map(toml_of, table)) + "]"
    if isinstance(table, float):
        return "nan" if math.isnan(table) else repr(table)
    if isinstance(table, str):
        escaped = "".join(
            c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in table
        )
        return f'"{escaped}"'
    return str(table)


def key_of(key: str) -> str:
    return key if key and set(key) <= set(string.ascii_letters + "_") else toml_of(key)


def written(folder: Path, text: str) -> Path:
    path = folder / "twin.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def outcome(path: Path, capsys, command: str = "run") -> tuple[int, str]:
    """Exit code and everything that was said; -1 if the configuration was taken."""
    capsys.readouterr()
    try:
        cli.main([command, str(path), *(["--advise"] if command == "run" else [])])
        code = 0
    except Started:
        code = -1
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out + said.err


def check(code: int, said: str) -> None:
    assert "Traceback" not in said and SECRET not in said
    if code != -1:
        assert code == EXIT_CODES[ConfigError] == 2, said
        assert said.strip() and len(said) < 4000, said


VALUES = st.recursive(
    st.none().map(lambda _: "")
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", " ", "nan", "-1", "\u0000", "file", "sql", "opcua", "R01"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=4,
)
RUN_KEYS = ("duration_days", "sampling_interval_hours", "retrain_every", "acquisition", "seed")
SPACE_KEYS = ("name", "control_bounds", "species_bounds", "viability_min", "vcv_target")


@seed(21)
@settings(max_examples=150)
@given(key=st.sampled_from(sorted(_KEYS)), value=VALUES)
def test_any_value_of_any_key_of_the_twin_is_taken_or_refused_in_words(folder, capsys, key, value):
    if key == "folder" and isinstance(value, str):
        value = "in/" + value.replace("/", "_").replace("..", "_")
    table = {**GOOD["twin"], key: value}
    path = written(folder, f"twin = {toml_of(table)}\n")
    code, said = outcome(path, capsys)
    check(code, said)
    if code == 2:
        assert "twin.toml" in said or key in said or str(folder) in said, said


@seed(22)
@settings(max_examples=120)
@given(
    part=st.sampled_from(["run", "design_space", "alarms"]),
    key=st.sampled_from((*RUN_KEYS, *SPACE_KEYS, "smtp_host", "rules")) | st.text(max_size=8),
    value=VALUES,
)
def test_any_value_in_the_other_tables_is_taken_or_refused_in_words(
    folder, capsys, part, key, value
):
    text = f"twin = {toml_of(GOOD['twin'])}\n{part} = {toml_of({key: value})}\n"
    check(*outcome(written(folder, text), capsys))


@seed(23)
@settings(max_examples=100)
@given(st.data())
def test_a_file_cut_or_garbled_anywhere_is_taken_or_refused_in_words(folder, capsys, data):
    whole = "\n".join(f"{part} = {toml_of(table)}" for part, table in GOOD.items())
    at = data.draw(st.integers(0, len(whole)), label="at")
    new = data.draw(st.text(max_size=6) | st.just("]") | st.just("\x00"), label="new")
    length = data.draw(st.integers(0, 12), label="length")
    check(*outcome(written(folder, whole[:at] + new + whole[at + length :]), capsys))


SECRETS = ("password", "smtp_password", "token", "api_key", "secret", "PERFUSIO_OPCUA_PASSWORD")
URLS = ("opc.tcp://ada:{}@rack:4840", "postgresql://ada:{}@db/runs", "https://x?token={}")


@seed(24)
@settings(max_examples=60)
@given(
    part=st.sampled_from(["twin", "run", "design_space", "alarms", "twin.approvers"]),
    key=st.sampled_from(SECRETS),
    url=st.sampled_from(URLS),
    command=st.sampled_from(["run", "status", "replay", "verify-audit"]),
    in_url=st.booleans(),
)
def test_a_secret_anywhere_is_refused_and_never_shown(
    folder, capsys, part, key, url, command, in_url
):
    value = url.format(SECRET) if in_url else SECRET
    name = "url" if in_url else key
    head = f"twin = {toml_of(GOOD['twin'])}\n" if not part.startswith("twin") else ""
    text = f"{head}[{part}]\n{name} = {toml_of(value)}\n"
    code, said = outcome(written(folder, text), capsys, command)
    assert SECRET not in said and "Traceback" not in said
    # verify-audit judges what lies there, configuration or not
    assert code == 2 or (command == "verify-audit" and code == 5), (code, said)


def test_the_configuration_all_this_begins_with_is_taken(folder, capsys):
    """Without it, the tests above would pass for a program that refuses everything."""
    text = "\n".join(f"{part} = {toml_of(table)}" for part, table in GOOD.items() if table)
    assert tomllib.loads(text)["twin"] == GOOD["twin"]
    assert outcome(written(folder, text), capsys)[0] == -1
