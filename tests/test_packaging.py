"""The archive and the wheel: whole, and enough to work from an empty folder."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import perfusio_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "perfusio_jax"


def files_of(folder: Path) -> set[str]:
    """Everything under a folder that is no by-product."""
    paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder).as_posix() for p in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the archive and the wheel that was made from it, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def run(unpacked: Path, tmp_path):
    """Runs Python in an empty folder, on the wheel alone; what it prints."""

    def runner(*args: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(unpacked)}
        done = subprocess.run(
            [sys.executable, *args], cwd=tmp_path, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return runner


def metadata(unpacked: Path) -> Message:
    (path,) = unpacked.glob("*.dist-info/METADATA")
    return Parser().parsestr(path.read_text(encoding="utf-8"))


def test_the_wheel_holds_all_sources_and_examples_and_nothing_else(unpacked):
    held = files_of(unpacked / "perfusio_jax")
    sources = files_of(PACKAGE)
    assert {"py.typed", "__init__.pyi", "connectors/migrations/script.py.mako"} <= sources
    examples = {f"examples/{name}" for name in files_of(ROOT / "examples")}
    assert sorted(sources - held) == [], "missing in the wheel"
    assert sorted(examples - held) == [], "missing in the wheel"
    assert sorted(held - sources - examples) == [], "nobody asked for these"
    assert {p.name for p in unpacked.iterdir()} == {
        "perfusio_jax",
        f"perfusio_jax-{perfusio_jax.__version__}.dist-info",
    }


def test_the_archive_holds_what_its_readme_and_its_tests_name(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        top = f"perfusio_jax-{perfusio_jax.__version__}/"
        held = {name.removeprefix(top) for name in archive.getnames()}
    wanted = {"CONTRIBUTING.md", "CITATION.cff", "Dockerfile", "Makefile", "llms.txt", "mkdocs.yml"}
    wanted |= {"benchmarks/RESULTS.md", "docs/conda/recipe.yaml", ".ci/run", "tests/slow.txt"}
    for name in ("docs", "examples", "src", "tests"):
        wanted |= {f"{name}/{file}" for file in files_of(ROOT / name)}
    assert sorted(wanted - held) == []
    assert not [name for name in held if "__pycache__" in name or ".venv" in name]


def test_metadata_says_what_it_is(unpacked):
    said = metadata(unpacked)
    assert said["Version"] == perfusio_jax.__version__
    assert said["License-Expression"] == "Apache-2.0"
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "perfusio-jax = perfusio_jax.cli:main" in entry.read_text(encoding="utf-8")


def test_the_wheel_alone_is_what_runs(run, unpacked):
    where = run("-c", "import perfusio_jax; print(perfusio_jax.__file__)").strip()
    assert Path(where).is_relative_to(unpacked)
    assert perfusio_jax.__version__ in run("-m", "perfusio_jax", "--version")


def test_a_database_is_made_from_the_wheel(run, tmp_path):
    said = run("-m", "perfusio_jax", "db", "upgrade", "sqlite:///samples.db")
    assert "tables at" in said and (tmp_path / "samples.db").stat().st_size > 0


def test_examples_come_out_of_the_wheel(run, tmp_path):
    said = run("-m", "perfusio_jax", "examples")
    assert files_of(tmp_path / "examples") == files_of(ROOT / "examples")
    for name in files_of(ROOT / "examples"):
        assert (tmp_path / "examples" / name).read_bytes() == (
            ROOT / "examples" / name
        ).read_bytes()
    assert "perfusio-jax run" in said
    assert "in examples already" in run("-m", "perfusio_jax", "examples")
    inspected = run("-m", "perfusio_jax", "inspect", "examples/reactor/samples.csv")
    assert "VCD" in inspected or "Xv" in inspected


def test_an_example_that_was_changed_is_not_written_over(tmp_path):
    from perfusio_jax._core import ConfigError
    from perfusio_jax.service.examples import write_examples

    write_examples(tmp_path)
    (tmp_path / "reactor" / "twin.toml").write_text("# mine\n", encoding="utf-8")
    (tmp_path / "fed_batch.py").unlink()
    with pytest.raises(ConfigError, match=r"twin.toml is there and is not the example"):
        write_examples(tmp_path)
    assert not (tmp_path / "fed_batch.py").exists()
    assert (tmp_path / "reactor" / "twin.toml").read_text(encoding="utf-8") == "# mine\n"
