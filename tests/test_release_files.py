"""Files beside the code that say again what the code says: they say the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import perfusio_jax
from perfusio_jax.cli import EXIT_CODES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"matplotlib": "matplotlib-base"}
"""Names that differ on conda-forge."""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def requirement(line: str) -> tuple[str, str]:
    """Name, as conda-forge writes it, and versions of a requirement."""
    found = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(.*)", line)
    assert found is not None, line
    name = found[1].replace("_", "-").lower()
    return CONDA.get(name, name), found[2].replace(" ", "")


def test_the_version_is_said_alike_everywhere():
    version = perfusio_jax.__version__
    assert yaml.safe_load(text("CITATION.cff"))["version"] == version
    assert yaml.safe_load(text("docs/conda/recipe.yaml"))["context"]["version"] == version
    newest = re.search(r"^## \[(.+?)\]", text("CHANGELOG.md"), re.M)
    assert newest is not None and newest[1] == version


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    recipe = yaml.safe_load(text("docs/conda/recipe.yaml"))
    run = dict(map(requirement, recipe["requirements"]["run"]))
    assert run.pop("python") == ">=${{python_min}}"
    least = PROJECT["requires-python"].removeprefix(">=")
    assert recipe["context"]["python_min"] == least
    assert run == dict(map(requirement, PROJECT["dependencies"]))
    (script,) = recipe["build"]["python"]["entry_points"]
    name, _, target = script.partition(" = ")
    assert PROJECT["scripts"] == {name: target}
    assert recipe["about"]["license"] == PROJECT["license"]
    assert (ROOT / recipe["about"]["license_file"]).is_file()


def test_the_citation_has_what_the_format_demands():
    cff = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["license"] == PROJECT["license"]
    assert [a["name"] for a in cff["authors"]] == [a["name"] for a in PROJECT["authors"]]


DOCKER = [
    line
    for line in text("Dockerfile").replace("\\\n", " ").splitlines()
    if line[:1] not in ("", "#")
]


def test_the_image_keeps_in_its_volume_what_was_compiled_and_can_show_the_page():
    volume = next(line.split()[1] for line in DOCKER if line.startswith("VOLUME "))
    told = dict(word.split("=", 1) for line in DOCKER if line.startswith("ENV ")
                for word in line.split()[1:])  # fmt: skip
    assert told["XDG_CACHE_HOME"].startswith(f"{volume}/")
    extras = next(re.findall(r"\[([a-z,]+)\]", line) for line in DOCKER if "/wheels/*.whl" in line)
    assert set(extras[0].split(",")) == {"postgres", "notify", "dash"}
    assert set(extras[0].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_copies_what_exists_and_the_context_lets_through():
    let_through = {line[1:] for line in text(".dockerignore").splitlines() if line[:1] == "!"}
    copied: list[str] = []
    for line in DOCKER:
        if line.startswith("COPY ") and "--from=" not in line:
            copied += line.split()[1:-1]
    assert {"pyproject.toml", "src", "examples"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
    assert set(copied) == let_through
    for name in (PROJECT["readme"], *PROJECT["license-files"]):
        assert name in copied, f"the build reads {name}"


def test_the_image_runs_the_command_as_somebody_without_rights():
    kinds = [line.split()[0] for line in DOCKER]
    assert set(kinds) <= {
        *("FROM", "COPY", "RUN", "WORKDIR", "USER", "ENV", "VOLUME", "ENTRYPOINT", "CMD"),
    }
    users = [line.split()[1] for line in DOCKER if line.startswith("USER ")]
    assert users and users[-1] not in ("root", "0")
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert f'ENTRYPOINT ["{next(iter(PROJECT["scripts"]))}"]' in DOCKER
    asked = set(re.findall(r"\[([a-z,]+)\]\"", "\n".join(DOCKER))[0].split(","))
    assert asked <= set(PROJECT["optional-dependencies"])
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    for line in DOCKER:
        if line.startswith("FROM python:"):
            version = re.match(r"FROM python:(\d+)\.(\d+)-slim", line)
            assert version is not None and (int(version[1]), int(version[2])) >= least


@pytest.mark.parametrize("page", ["llms.txt"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", text(page))
    assert len(links) > 15
    for link in links:
        assert (ROOT / link).exists(), link
    pages = {f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages - set(links) == set()  # a new page is told to programs that read, too


def test_exit_codes_are_those_the_book_names():
    page = text("docs/command_line.md")
    rows = dict(re.findall(r"^\| (\d) \| (.+?) \|", page, re.M))
    commands = (ROOT / "src/perfusio_jax/cli").glob("*.py")
    said = {
        n for path in commands for n in re.findall(r"typer\.Exit\((\d+)\)", path.read_text("utf-8"))
    }
    assert {"4", "5", "6", "7"} <= said
    assert set(rows) == {"0", "1", *said, *(str(code) for code in EXIT_CODES.values())}
