"""docs/dashboard.md: its commands run, in order, and what it says of roles and limits is so."""

import datetime as dt
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from perfusio_jax.connectors import SQLStore
from perfusio_jax.viz.dashboard import accounts, sessions
from tests.report.run_folders import campaign_csv, make_run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()
]
PROGRAM = [sys.executable, "-m", "perfusio_jax.cli"]


def certificate(folder: Path, name: str) -> None:
    """A certificate somebody made for himself."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "page.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "page.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("docs")
    make_run(place / "runs" / "R01", n_days=2)
    campaign_csv(place / "campaign.csv")
    (place / "goals.toml").write_text('goals = ["titre"]\n')
    store = SQLStore(f"sqlite:///{place / 'site.db'}", "EXP1", "R01")
    store.create_tables()
    store.write_sample(0, {"VCD": 1.0})
    certificate(place, "reactors.example.org")
    return place


@pytest.fixture(scope="module")
def environment(folder) -> dict[str, str]:
    return {
        **os.environ,
        "XDG_CONFIG_HOME": str(folder / "settings"),
        "PERFUSIO_ACCOUNT_PASSWORD": "four words nobody guesses",
        "PYTHONWARNINGS": "error",
    }


@pytest.mark.parametrize("line", LINES)
def test_the_page_runs(line, folder, environment):
    command = [*PROGRAM, *line.split()[1:]]
    assert line.startswith("perfusio-jax ")
    if "dashboard" not in command:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "ann" in done.stdout or "quentin" in done.stdout
        return
    here = ["--host", "127.0.0.1"] if "--host" not in command else []
    program = subprocess.Popen(
        [*command, *here, "--port", "0"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        told = program.stdout.readline()  # pyright: ignore
        found = re.search(r"(https?)://([\w.]+):(\d+)/", told)
        assert found is not None, told
        request = urllib.request.Request(f"{found[1]}://127.0.0.1:{found[3]}/")
        trust = ssl.create_default_context(cafile=folder / "page.pem")
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE  # it is asked by its number, under its name
        request.add_header("Host", f"{found[2]}:{found[3]}")
        with urllib.request.urlopen(request, context=trust) as answer:
            text = answer.read().decode()
        if "--cert" in line:
            assert found[1] == "https" and "Sign in" in text and "R01" not in text
            request.add_header("Host", "elsewhere.example")
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, context=trust)
            error.value.close()
            assert error.value.code == 400
        elif "runs" not in command and "--campaign" in command:
            assert "Campaign campaign.csv" in text and "E2" in text
        else:
            assert ("Campaign" in text) == ("--campaign" in command)
            assert "R01" in text and ("armed page" in text) == ("--armed" in line)
    finally:
        program.terminate()
        program.wait(30)
        program.stdout.close()  # pyright: ignore


def test_roles_and_numbers_are_those_of_the_program():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", PAGE, re.M))
    assert set(rows) == set(accounts.ROLES)
    operator = set(re.findall(r"`(\w+)`", rows["operator"]))
    assert operator == accounts.ROLES["operator"]
    assert (
        operator | set(re.findall(r"`(\w+)`", rows["supervisor"])) == accounts.ROLES["supervisor"]
    )
    assert accounts.ROLES["viewer"] == frozenset()
    assert f"{accounts.SHORTEST} characters at least" in PAGE
    assert accounts._COST == (2**15, 8, 3) and "N = 2^15, r = 8, p = 3" in PAGE
    assert sessions.FREE_TRIES == 5 and sessions.FREE_FROM_ONE_PLACE == 20
    assert (sessions.FIRST_WAIT_S, sessions.LONGEST_WAIT_S) == (2.0, 15 * 60.0)
    assert (sessions.IDLE_S, sessions.LONGEST_S) == (30 * 60.0, 12 * 3600.0)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
