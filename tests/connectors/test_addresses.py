"""Addresses of OPC UA servers: nothing in them that could be a secret; texts of servers are cut."""

import types

import pytest
from asyncua import ua

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import LONGEST_NAME
from perfusio_jax.connectors.opcua.addresses import check_url
from perfusio_jax.connectors.opcua.refusals import in_words
from perfusio_jax.connectors.opcua.values import unit_text
from perfusio_jax.connectors.sql.engine import read_url


@pytest.mark.parametrize(
    "url",
    [
        "opc.tcp://ada:hunter2@rack:4840",
        "opc.tcp://ada:hun/ter2@rack:4840",
        "opc.tcp://ada:/hunter2@rack:4840",
        "opc.tcp://ada:hunter2/@rack:4840",
        "opc.tcp://hunter2@rack:4840",
        "opc.tcp://rack:4840/hunter2@x",
        "opc.tcp://rack:4840/x?pw=hunter2",
        "opc.tcp://rack:4840?hunter2",
        "opc.tcp://rack:4840/x#hunter2",
        "opc.tcp://ada:hunter2/rack",
        "opc.tcp://ada:hunter2",
        "http://ada:hunter2@rack",
        "opc.tcp://ada:hunter2%40rack:4840",
    ],
)
def test_an_address_with_a_secret_is_refused_without_it(url):
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "rack:4840", "opc.tcp://", "opc.tcp://rack:x", "opc.tcp://rack:99999", "opc.tcp://[::1",
     "opc.tcp://rack:0", "opc.tcp://ra ck:4840", "opc.tcp://rack\x1b[31m:4840", "x" * 10**6],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_address_is_refused_in_a_short_sentence(url):
    with pytest.raises(ConfigError, match="opc.tcp://host:port/path") as caught:
        check_url(url)
    assert len(str(caught.value)) < 300 and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("url", ["opc.tcp://rack:4840", "opc.tcp://[::1]:4840/a/b", "opc.tcp://r"])
def test_plain_addresses_are_taken(url):
    check_url(url)


@pytest.mark.parametrize("name", ["pw", "pwd", "password", "api_key"])
def test_a_database_url_may_hold_no_secret_in_its_query(name):
    with pytest.raises(ConfigError, match="may not") as caught:
        read_url(f"postgresql://h/db?{name}=hunter2")
    assert "hunter2" not in str(caught.value)


def test_texts_of_a_server_are_cut_before_anything_is_done_with_them():
    unit = types.SimpleNamespace(DisplayName=ua.LocalizedText("x" * 10**6))
    assert len(unit_text(unit) or "") == LONGEST_NAME
    assert unit_text(types.SimpleNamespace(DisplayName=ua.LocalizedText(None))) is None
    assert len(in_words(ua.UaError("x" * 10**6))) < 600
