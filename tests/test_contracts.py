"""Architecture: what an import may load, who may import whom, what source may contain."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import perfusio_jax

SOURCE = Path(perfusio_jax.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = [
    ("__main__",),
    ("cli",),
    ("demo", "report", "service"),
    ("viz", "connectors"),
    ("twin",),
    ("exchange",),
    ("bed", "rl", "study"),
    ("hybrid",),
    ("embedding",),
    ("gp",),
    ("simulator",),
    ("mechanistic",),
    ("process",),
    ("chemistry",),
    ("config", "states"),
    ("metrics",),
    ("_core",),
]
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
SHELL = {
    "__main__",
    "cli",
    "demo",
    "report",
    "service",
    "connectors",
    "twin.digital_twin",
    "twin.records.audit",
    "twin.records.journal",
    "twin.alarms.notifications",
    "twin.alarms.channels",
    "twin.loop.scheduler",
    "twin.loop.attendant",
    "twin.alarms.desk",
    "twin.loop.fleet",
    "twin.loop.loop",
    "twin.loop.reader",
    "twin.records.runtime",
    "twin.loop.writer",
    "twin.loop.mirror",
    "twin.loop.thinker",
    "viz.dashboard",
    "simulator.cho_perfusion",
}
EFFECTS = {
    "asyncio",
    "asyncua",
    "sqlalchemy",
    "alembic",
    "pandas",
    "logging",
    "structlog",
    "time",
}
FACE = {name for name in dir(perfusio_jax) if name not in RANK}
DELEGATION = ("states.trajectory", "connectors.files.campaign_table")


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules a file imports anywhere, except for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "." * node.level
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


MODULES = {module_name(p): ast.parse(p.read_text(encoding="utf-8")) for p in FILES}


def in_shell(module: str) -> bool:
    return any(module == part or module.startswith(part + ".") for part in SHELL)


# ---------------------------------------------------------------- what an import loads

HEAVY = ("pandas", "matplotlib", "sqlalchemy", "asyncua", "plotly", "pint", "pyarrow")


def in_fresh_python(code: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_bare_import_loads_and_changes_nothing():
    seen = in_fresh_python(
        "import sys, json, jax\n"
        "before, loaded = dict(jax.config.values), set(sys.modules)\n"
        "import perfusio_jax\n"
        "changed = [k for k, v in jax.config.values.items() if before[k] != v]\n"
        "print(json.dumps({'changed': changed, 'new': sorted(set(sys.modules) - loaded)}))"
    )
    assert seen["changed"] == []
    assert {name.split(".")[0] for name in seen["new"]} == {"perfusio_jax", "lazy_loader"}


def test_names_and_errors_and_the_command_line_do_not_wait_for_jax():
    seen = in_fresh_python(
        "import sys, json\n"
        "import perfusio_jax, perfusio_jax.cli\n"
        "from perfusio_jax._core import CONTROL_NAMES, ConfigError\n"
        "heavy = ('jax', 'numpy', 'pandas', 'equinox', 'jaxtyping')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    assert seen == []


def test_a_server_of_a_rack_waits_for_jax_only_where_a_plant_is_simulated():
    seen = in_fresh_python(
        "import sys, json\n"
        "from perfusio_jax.connectors import OPCUAConnector, RackServer\n"
        "from perfusio_jax.connectors.opcua.serve import security_of\n"
        "import tests.connectors.opcua_rigs\n"
        "heavy = ('jax', 'equinox', 'diffrax', 'perfusio_jax.simulator')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    assert seen == []


@pytest.mark.parametrize(
    "code", ["perfusio_jax.Trajectory, perfusio_jax.DesignSpace", "perfusio_jax.chemistry"]
)
def test_the_numerical_faces_load_no_table_plot_or_network_library(code: str):
    seen = in_fresh_python(
        "import sys, json, jax\n"
        "before = dict(jax.config.values)\n"
        f"import perfusio_jax; {code}\n"
        "changed = [k for k, v in jax.config.values.items() if before[k] != v]\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "print(json.dumps({'heavy': heavy, 'changed': changed}))"
    )
    assert seen == {"heavy": [], "changed": []}


def test_the_import_adds_little_to_its_numerical_stack():
    seen = in_fresh_python(
        "import json, sys\n"
        "import jax, equinox, numpy, pydantic, jaxtyping, paramax, tomli_w, tomllib\n"
        "events = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: events.append(name))\n"
        "pydantic.BaseModel, pydantic.TypeAdapter\n"
        "before = set(sys.modules)\n"
        "import perfusio_jax; perfusio_jax.DesignSpace; perfusio_jax.Trajectory\n"
        "new = sorted(set(sys.modules) - before)\n"
        "asked = [name for name in events if 'compile' in name]\n"
        "print(json.dumps({'new': new, 'asked': asked}))"
    )
    own = [name for name in seen["new"] if name.split(".")[0] == "perfusio_jax"]
    others = {name.split(".")[0] for name in seen["new"]} - {
        "perfusio_jax",
        *sys.stdlib_module_names,
    }
    assert len(own) <= 26  # each is some milliseconds
    assert others <= {"lazy_loader", "pydantic", "annotated_types"}
    assert seen["asked"] == []  # an array or a program of the device at import is a start-up cost


def test_the_face_is_complete_and_holds_nothing_else():
    names = dir(perfusio_jax)
    assert all(getattr(perfusio_jax, name) is not None for name in names)
    wanted = "CHOPerfusionModel fit_hybrid forecast_run BEDPolicy DigitalTwin simulate_campaign"
    assert {*wanted.split(), "DesignSpace", "State", "enable_x64", "gp"} <= set(names)
    assert not {"Any", "importlib", "TYPE_CHECKING", "lazy_loader"} & set(names)
    assert perfusio_jax.states.State is perfusio_jax.State
    with pytest.raises(AttributeError, match="nothing"):
        _ = perfusio_jax.nothing
    with pytest.raises(ImportError):
        from perfusio_jax import nothing  # noqa: F401


def test_a_room_that_fails_to_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room = tmp_path / "viz"
    room.mkdir()
    (room / "__init__.py").write_text("import a_library_nobody_has\n")
    monkeypatch.setattr(perfusio_jax, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "perfusio_jax.viz", raising=False)
    monkeypatch.delitem(vars(perfusio_jax), "viz", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_library_nobody_has"):
        _ = perfusio_jax.viz


# ---------------------------------------------------------------- who imports whom


@pytest.mark.parametrize("module", sorted(MODULES))
def test_data_flows_downwards(module: str):
    room = module.split(".")[0]
    if not module:
        return
    assert room in RANK, f"{room} has no place in the order of rooms"
    for target in set(imports(MODULES[module])):
        if not target.startswith("perfusio_jax."):
            continue
        inner = target.removeprefix("perfusio_jax.")
        other = inner.split(".")[0]
        if other == room or (module == DELEGATION[0] and inner.startswith(DELEGATION[1])):
            continue
        if other == "__version__" or (room in {"cli", "demo"} and other in FACE):
            continue
        assert other in RANK, f"{module} imports {target}: name the room it comes from"
        assert RANK[room] < RANK[other], f"{module} imports {target} against the direction"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_effects_and_engines_stay_where_they_belong(module: str):
    roots = {target.split(".")[0] for target in imports(MODULES[module])}
    if not in_shell(module):
        assert not roots & EFFECTS, f"{module} is not part of the shell"
    if not module.startswith("gp"):
        assert "gpjax" not in roots
    if module != "mechanistic.with_diffrax":
        assert "diffrax" not in roots
    if module.startswith("simulator"):
        inner = {t.removeprefix("perfusio_jax.").split(".")[0] for t in imports(MODULES[module])}
        assert not inner & {"gp", "hybrid"}, "the truth must not know the model"
    assert not roots & {"torch", "casadi", "gpytorch", "botorch"}, "peers live in benchmarks"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_source_holds_no_leftovers(module: str):
    tree = MODULES[module]
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: raise an error instead"
        if isinstance(node, ast.ExceptHandler):
            silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            assert not (silent and broad), f"line {node.lineno}: an error is swallowed"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "jax.config.update":
            switches = ("_core.precision", "_core.compile_cache", "_core.executables")
            allowed = module in switches or module.split(".")[0] in {"cli", "demo"}
            assert allowed, f"line {node.lineno}: a JAX setting is changed"
    path = SOURCE / Path(*module.split("."))
    text = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    words = text.read_text(encoding="utf-8")
    for leftover in ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error"):
        assert leftover not in words


def test_the_checks_above_can_fail():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import pandas\n"
        "def f():\n    import time\n    from perfusio_jax.gp import kernels\n"
    )
    found = set(imports(tree))
    assert "pandas" not in found
    assert {"time", "perfusio_jax.gp", "perfusio_jax.gp.kernels"} <= found
    assert in_shell("connectors.filesystem") and in_shell("twin.records.audit")
    assert not in_shell("twin.decision.gate") and not in_shell("twin.audit_view")


# ---------------------------------------------------------------- names of one culture

THEIRS = {
    # the CHO process itself, and the reference API's faces: they may name its nine and its six
    *("chemistry/flows.py", "chemistry/species.py", "config.py", "gp/means.py"),
    *("mechanistic/daily.py", "mechanistic/integrators.py", "mechanistic/kinetics.py"),
    *("mechanistic/models.py", "mechanistic/set_points.py", "mechanistic/vector_field.py"),
    *("process/built_in.py", "rl/plants.py", "states/setpoints.py", "study/cho.py"),
    *("simulator/cho_perfusion.py", "simulator/plant.py", "simulator/probes.py"),
    *("simulator/virtual_rack.py", "connectors/ambr250_emulator.py"),
    *("connectors/opcua/names.py", "connectors/tables/vocabulary.py"),
    *("hybrid/calibration.py", "hybrid/family.py", "hybrid/untrained.py"),
    *("demo/baselines.py", "demo/evaluate.py", "demo/main.py", "demo/rig.py", "demo/run.py"),
    *("bed/goal/constraints.py", "bed/goal/criteria.py", "bed/policy/settings.py"),
    *("twin/decision/model_brain.py", "viz/static.py"),
}
NOT_YET = {
    # laid out by the reference culture where a process ought to say; the list may only shrink
    *("bed/policy/decision.py", "bed/policy/recipes.py", "bed/policy/state.py"),
    *("connectors/base.py", "connectors/files/campaign_joins.py", "connectors/files/cultures.py"),
    *("connectors/files/described_streams.py", "connectors/files/describing.py"),
    *("connectors/files/filesystem.py", "connectors/files/frame_columns.py"),
    *("connectors/opcua/shown.py", "connectors/sql/readings.py"),
    *("connectors/tables/labels.py", "connectors/tables/settling.py"),
    *("hybrid/health.py", "hybrid/layout.py", "hybrid/observation.py", "hybrid/online.py"),
    *("hybrid/transition.py", "report/proposing.py", "report/run_record.py"),
    *("service/forecast.py", "service/forecast_figure.py", "service/settings.py"),
    *("twin/decision/checks.py", "twin/decision/given.py", "twin/decision/step.py"),
    *("twin/loop/settings.py", "twin/records/records.py", "viz/parts.py"),
}


def _names_one_culture(path: Path) -> bool:
    wanted = {"STATE_ORDER", "CONTROL_NAMES"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and wanted & {alias.name for alias in node.names}:
            return True
        if isinstance(node, ast.Attribute) and node.attr in wanted:
            return True
    return False


def test_fewer_and_fewer_modules_know_the_names_of_one_culture_only():
    """A module that needs them reads them from the process of the model it is given."""
    here = {path.relative_to(SOURCE).as_posix() for path in FILES if _names_one_culture(path)}
    faces = {n for n in here if n.startswith("_core/") or n.endswith("__init__.py")}
    new = here - faces - THEIRS - NOT_YET
    assert not new, f"{sorted(new)} import STATE_ORDER or CONTROL_NAMES; read them off a process"
    gone = (THEIRS | NOT_YET) - here
    assert not gone, f"{sorted(gone)} no longer do: take them off the list"
    assert not THEIRS & NOT_YET and len(NOT_YET) <= 30
