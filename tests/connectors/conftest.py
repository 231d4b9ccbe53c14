"""Real databases for the tests of the stores: an SQLite file and a PostgreSQL server."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfusio_jax.connectors.sql.engine import Database
from perfusio_jax.connectors.sql.migrate import upgrade
from perfusio_jax.connectors.sql.store import SQLStore
from tests.connectors.postgres import Server

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "run.db"
    database = Database(f"sqlite:///{file}")
    upgrade(database)
    return file


@pytest.fixture(scope="session")
def _migrated_name(postgres: Server) -> str:
    name = postgres.create_database()
    upgrade(Database(postgres.url(name)))
    return name


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Kind of database, each in turn."""
    return request.param


@pytest.fixture
def empty_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without tables."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'run.db'}"
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database with empty tables."""
    if kind == "sqlite":
        file = tmp_path / "run.db"
        shutil.copy(request.getfixturevalue("_migrated_file"), file)
        yield f"sqlite:///{file}"
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create_database(request.getfixturevalue("_migrated_name"))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., SQLStore]]:
    """Makes stores on the database; closes them at the end."""
    made: list[SQLStore] = []

    def maker(reactor: str = "R1", experiment: str = "Exp1", **settings) -> SQLStore:
        made.append(SQLStore(url, experiment, reactor, **settings))
        return made[-1]

    yield maker
    for store in made:
        store.database.close()


@pytest.fixture
def store(make: Callable[..., SQLStore]) -> SQLStore:
    """A store on an empty database."""
    return make()
