"""`twin.toml` that means no good: refused in words, at once, before anything is made of it."""

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax._core.limits import DEPTH, parse_json, parse_toml
from perfusio_jax.config import ControlBounds, RunConfig

from .test_config_fuzz import Started, check, folder, outcome  # noqa: F401

GOOD = '[twin]\nsource = "s.csv"\n'
HOSTILE = {
    "20 000 brackets": b"a = " + b"[" * 20_000,
    "20 000 pairs of brackets": b"a = " + b"[" * 20_000 + b"]" * 20_000,
    "20 000 braces": b"a = " + b"{b=" * 20_000,
    "20 000 dots in a key": b".".join([b"a"] * 20_000) + b" = 1\n",
    "20 000 dots in a table": b"[" + b".".join([b"a"] * 20_000) + b"]\n",
    "brackets behind a string": b'a = ["]", ' + b"[" * 20_000,
    "brackets behind a quote in a string": b'a = "\\"" \nb = ' + b"[" * 20_000,
    "brackets behind three quotes": b'a = """x"""\nb = ' + b"[" * 20_000,
    "quotes only": b'"' * 100_001,
    "three quotes and escapes": b'a = """' + b'\\"""' * 50_000,
    "an integer of 10 000 digits": b"a = " + b"9" * 10_000,
    "an integer of 10 000 hexadecimal digits": b"[run]\nseed = 0x" + b"f" * 10_000,
    "an integer of 65 bits": b"[run]\nseed = 18446744073709551616",
    "a seed of 2**63": b"[run]\nseed = 9223372036854775808",
    "a seed of 2**32": b"[run]\nseed = 4294967296",
    "a date of year 1": b"[twin]\nsource = 0001-01-01T00:00:00+14:00",
    "a text of 20 kB": b'[twin]\nsource = "' + b"x" * 20_000 + b'"',
    "two megabytes": b"#" * 2_000_000,
    "zero bytes": b"\x00" * 100,
    "no UTF-8": b"\xff\xfe\x00",
    "half a character": b'[twin]\nsource = "\xc3"',
    "escapes in a key": b'[twin]\n"\\u001b[2J" = 1',
    "a marker of direction in a value": '[twin]\nsource = "\u202e"'.encode(),
    "a volume of 1e-300": GOOD.encode() + b"volume_L = 1e-300",
    "a volume of 1e300": GOOD.encode() + b"volume_L = 1e300",
    "a volume that is none": GOOD.encode() + b"volume_L = nan",
    "set-points into the audit trail": GOOD.encode() + b'setpoints = "audit.jsonl"',
    "set-points into the audit trail elsewhere": GOOD.encode() + b'setpoints = "x/../AUDIT.jsonl"',
    "set-points into the journal": GOOD.encode() + b'setpoints = "journal.sqlite-wal"',
    "set-points into the configuration": GOOD.encode() + b'setpoints = "./twin.toml"',
    "set-points into the samples": GOOD.encode() + b'setpoints = "s.csv"',
    "alarms into the set-points": GOOD.encode()
    + b'setpoints = "a.csv"\n[alarms]\nnotification_channel = "file"\nalarm_file = "a.csv"',
    "alarms into the audit trail": GOOD.encode()
    + b'[alarms]\nnotification_channel = "file"\nalarm_file = "audit.head"',
    "an archive in the journal": GOOD.encode()
    + b'archive = "sqlite:///journal.sqlite"\nexperiment = "E"',
    "a path too long for any disk": GOOD.encode() + b'setpoints = "' + b"x/" * 4000 + b'"',
    "bounds 1e-300 apart": GOOD.encode()
    + b'[design_space]\nname = "n"\ncontrol_bounds.perfusion_rate = '
    b'{lo = 0.0, hi = 1e-300, unit = "vvd"}',
    "bounds one bit apart": GOOD.encode()
    + b'[design_space]\nname = "n"\ncontrol_bounds.perfusion_rate = '
    b'{lo = 1.0, hi = 1.0000000000000002, unit = "vvd"}',
    "bounds beyond everything": GOOD.encode()
    + b'[design_space]\nname = "n"\ncontrol_bounds.perfusion_rate = '
    b'{lo = -1e308, hi = 1e308, unit = "vvd"}',
    "a unit that is a power of powers": GOOD.encode()
    + b'[design_space]\nname = "n"\ncontrol_bounds.perfusion_rate = '
    b'{lo = 0.5, hi = 1.0, unit = "9**9**9**9"}',
    "a password behind a slash": b'[twin]\nconnector = "opcua"\nnode_map = "n.toml"\n'
    b'url = "opc.tcp://ada:hunter2-correct-horse/@rack"',
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_in_words(folder, capsys, name):  # noqa: F811
    path = folder / "twin.toml"
    path.write_bytes(HOSTILE[name])
    code, said = outcome(path, capsys)
    assert code == 2, said
    check(code, said)
    assert "\x1b" not in said and "\u202e" not in said


def test_what_is_allowed_is_still_taken(folder, capsys):  # noqa: F811
    text = GOOD + (
        'volume_L = 0.25\nsetpoints = "out/sp.csv"\n[run]\nseed = 4294967295\n'
        '[design_space]\nvcv_target = 14.0\nname = "a [b] {c} # \\" é"\n'
        'control_bounds.perfusion_rate = {lo = 0.5, hi = 0.5000001, unit = "vvd"}\n'
        "# " + "[" * 100 + "\n"
    )
    path = folder / "twin.toml"
    path.write_text(text, encoding="utf-8")
    code, said = outcome(path, capsys)
    assert code == -1, said


def test_depth_is_counted_outside_strings_and_remarks():
    inside = "[" * (DEPTH - 1) + "1" + "]" * (DEPTH - 1)
    assert parse_toml(f"a = {inside}", "t")["a"]
    brackets = "[{." * 50
    table = parse_toml(
        f"a = '{brackets}' # {brackets}\nb = '''\n{brackets}\n''' \nc = \"\\\"{brackets}\"\n"
        f'd = """{brackets}\\"""" # {brackets}\ne = 1.5',
        "t",
    )
    assert table["a"] == brackets and table["e"] == 1.5 and table["d"].endswith('"')
    with pytest.raises(ConfigError, match="line 2 is nested more than 32 deep"):
        parse_toml("a = 1\nb = " + "[" * (DEPTH + 1), "t")


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 10_000, "{", "", "nul"])
def test_json_is_refused_likewise(text):
    with pytest.raises(ConfigError, match="t is not JSON"):
        parse_json(text, "t", error=ConfigError)


def test_configurations_from_python_have_the_same_limits():
    with pytest.raises(ConfigError, match="seed"):
        RunConfig(seed=2**63)
    with pytest.raises(ConfigError, match="too close"):
        ControlBounds(lo=37.0, hi=37.0 + 1e-12, unit="degC")
