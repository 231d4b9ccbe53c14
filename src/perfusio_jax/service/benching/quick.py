"""`perfusio-jax bench`: what this machine does, in a minute or two."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from perfusio_jax import __version__
from perfusio_jax.study.scale.speed import Speed


def machine() -> dict[str, Any]:
    """What figures were measured on."""
    device = jax.devices()[0]
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": f"{device.platform}:{device.device_kind}",
        "python": platform.python_version(),
        "perfusio_jax": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def tell_figures(found: list[Speed], console: Any, out: Path | None) -> None:
    """Show figures, and write them with what they were measured on."""
    here = machine()
    console.print(", ".join(f"{k} {v}" for k, v in here.items()), soft_wrap=True)
    table = Table()
    table.add_column("what")
    for name in ("n", "first [s]", "warm [s]", "spread [s]", "rate", ""):
        table.add_column(name, justify="right")
    for one in found:
        numbers = (one.first_s, one.warm_s, one.spread_s, one.rate)
        table.add_row(one.what, str(one.n), *(f"{v:.3g}" for v in numbers), one.unit)
    console.print(table)
    if out is not None:
        rows = [{**one._asdict(), "rate": one.rate} for one in found]
        out.write_text(
            json.dumps({"machine": here, "figures": rows}, indent=1) + "\n", encoding="utf-8"
        )
        console.print(f"written: {out}", soft_wrap=True)
