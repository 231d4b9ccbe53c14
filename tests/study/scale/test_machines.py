"""The same numbers on one device, on several, and in several processes, to the last bit."""

import socket

import pytest

from perfusio_jax.study import stream
from tests.study.scale.machines import ROWS, Dice, N, seen, start, told


@pytest.fixture(scope="module")
def many():
    return told(start(8, "devices"))


def test_devices_that_do_not_divide_the_lanes_give_the_bits_of_one(many):
    assert many["1"] == many["3"] == many["8"]
    one, eight = many["each"]
    assert one == eight
    assert many["spread"] > 0.1


def test_this_process_gives_them_too(many):
    assert seen(stream(Dice(), N, seed=7, rows=ROWS)) == many["8"]


def test_two_processes_give_the_numbers_of_one(many):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = [start(2, "member", place, port) for place in range(2)]
    for found in [told(member) for member in members]:
        assert found["devices"] == 4 and len(set(found["place"])) == 1
        assert found["stream"] == many["1"]
