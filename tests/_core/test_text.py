"""Text from outside: shown without what a screen obeys, cut, and numbers of plain digits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core.text import cut, in_line, plain_number, shown


@settings(max_examples=100, derandomize=True)
@given(st.text(st.characters(codec=None), max_size=40))
def test_what_is_shown_holds_nothing_a_terminal_obeys(text):
    found = shown(text)
    assert not any(c != "\t" and c != "\n" and not c.isprintable() for c in found if ord(c) < 0xA0)
    assert not set(found) & set("\x1b\x07\r\x9b\u202e\u2066\u200b\u200f\ufeff\ud800\U000e0041")
    assert shown(found) == found and isinstance(found.encode(), bytes)


def test_escapes_are_written_out_and_letters_stay():
    assert shown("R\x1b[31m1\u202e") == "R\\x1b[31m1\\u202e"
    assert shown("Größe µm 細胞\tA\nB") == "Größe µm 細胞\tA\nB"
    assert shown("\U000e0041") == "\\U000e0041"


def test_a_long_value_is_shown_in_part():
    assert cut("abc", 3) == "abc" and cut("abcdef", 5) == "ab..."
    assert len(in_line("x" * 10**6)) == 80 and len(in_line(["x"] * 10**5)) == 80
    assert in_line(10**10_000) == "a int too large to show"
    nest = []
    for _ in range(100_000):
        nest = [nest]
    assert "too large" in in_line(nest)
    while nest:  # taken apart by hand: freeing it at once would nest as deeply
        nest = nest.pop()


@pytest.mark.parametrize("text", ["１２", "٣", "१", "1_000", "1\u00a0000", "²", "", "1,5", "--1"])
def test_only_plain_digits_are_a_number(text):
    with pytest.raises(ValueError):
        plain_number(text)


def test_plain_numbers_are_read():
    assert [plain_number(t) for t in ("1.5", "-2e3", " 4 ")] == [1.5, -2000.0, 4.0]
