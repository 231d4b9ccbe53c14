"""The closing scenario: a rack over OPC UA, signed and encrypted, with a fault on every day.

The served plant is the simulated one, the twin's model and search are the real ones, and so are
gate, journals, audit trails, server processes, certificates and the line between them. What is
small is the search: few starts, few paths, two days ahead.

    python -m tests.faults.closing --reactors 5 --days 28 --seconds-per-day 10
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from perfusio_jax import enable_x64
from perfusio_jax._core import STATE_ORDER
from perfusio_jax.bed import BEDPolicy
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import make_certificates
from perfusio_jax.connectors.opcua.security import PASSWORD_VARIABLE, USER_VARIABLE
from perfusio_jax.connectors.opcua.serve import clones_of
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import DEFAULT_CONTROLS, CHOPerfusionModel
from perfusio_jax.twin import Brain, GateLimits, ModelBrain, Situation
from tests.connectors.opcua_campaign import Campaign
from tests.faults.plant import LEVELS
from tests.faults.plant_rack import NotingRack

USER = "twin"


class Closing(Campaign):
    """A campaign with the real plant, the real model, and security on."""

    rack: ClassVar[str] = "--virtual"
    limits: ClassVar[GateLimits] = GateLimits.from_design_space(DEFAULT_AMBR250_DESIGN_SPACE)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pairs = make_certificates(self.folder / "certificates")
        os.environ[USER_VARIABLE] = USER
        os.environ[PASSWORD_VARIABLE] = secrets.token_hex(12)
        model = untrained_model(CHOPerfusionModel())
        change = {
            n: r
            for n, r in self.limits.max_rate.items()
            if n in DEFAULT_AMBR250_DESIGN_SPACE.control_names
        }
        self.policy = BEDPolicy(
            model,
            DEFAULT_AMBR250_DESIGN_SPACE,
            acqf_name="LogEI",
            n_restarts=2,
            n_raw_samples=16,
            horizon=2,
            n_paths=16,
            n_scan_paths=None,
            max_change=change,
        )
        self.model = model
        self.warm_up()

    def warm_up(self) -> None:
        """Compile before culture time begins."""
        values = dict(zip(STATE_ORDER, LEVELS, strict=True))
        row = {"day": 0, "time_h": 0.0, "values": values, "controls": dict(DEFAULT_CONTROLS)}
        rows = [{**row, "stream_totals": {}, "tags": {}}]
        self.brain("warm").propose(Situation(0, rows, dict(DEFAULT_CONTROLS)))

    def secured(self) -> tuple[str, ...]:
        # time waits for the first set-point, but not again after a restart
        is_first = not self.state.exists()
        paused = ("--paused",) if is_first else ()
        return ("--certificates", str(self.folder / "certificates"), *paused)

    def security(self) -> dict[str, Any]:
        return {
            "username": USER,
            "cert_path": self.pairs["client"].certificate,
            "private_key_path": self.pairs["client"].key,
            "server_cert_path": self.pairs["server"].certificate,
        }

    async def admit(self, client: Client) -> None:
        client.set_user(USER)
        client.set_password(os.environ[PASSWORD_VARIABLE])
        client.application_uri = "urn:perfusio-jax:client"
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            self.pairs["client"].certificate,
            self.pairs["client"].key,
            server_certificate=str(self.pairs["server"].certificate),
            mode=ua.MessageSecurityMode.SignAndEncrypt,
        )

    def brain(self, reactor_id: str) -> Brain:
        return ModelBrain(
            self.model,
            self.policy,
            seed=self.seed,
            volume_L=0.25,
            run_id=reactor_id,
            n_paths=16,
            mode="frozen",
        )

    def check(self, fates: dict[str, Any]) -> dict[str, Any]:
        saved = json.loads(self.state.read_text())["rack"]
        self.plant = NotingRack(clones_of(self.n_reactors, ()), seed=42).restore(saved)
        secret = os.environ[PASSWORD_VARIABLE].encode()
        for path in self.folder.rglob("*"):
            if path.is_file() and secret in path.read_bytes():
                self.problems.append(f"{path} holds the password")
        return super().check(fates)

    def true(self, vessel: int, day: int) -> dict[str, float | None]:
        return dict(self.plant.sample(vessel, day).values)


def main() -> None:
    """Run one from the command line and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reactors", type=int, default=5)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seconds-per-day", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    enable_x64()
    folder = Path(tempfile.mkdtemp(prefix="closing_"))
    started = time.perf_counter()
    one = Closing(folder, given.reactors, given.days, given.seconds_per_day, given.seed)
    print(f"seed {given.seed}; compiled in {time.perf_counter() - started:.0f} s; {folder}")
    figures = asyncio.run(one.run())
    for kind, n in sorted(one.faults.items()):
        print(f"  {n:3d} x {kind}")
    for problem in one.problems:
        print(f"PROBLEM: {problem}")
    wanted = given.reactors * given.days
    beyond = sum("limits" in p or "went" in p or "runs dry" in p for p in one.problems)
    lost = sum("lost" in p or "twice" in p for p in one.problems)
    print(
        f"closing: reactors={given.reactors} days={given.days} faults={figures['faults']} "
        f"samples={wanted} stored_with_corrections={figures['stored']} lost_or_doubled={lost} "
        f"writes={figures['writes']} limit_violations={beyond} resets={figures['resets']} "
        f"problems={len(one.problems)} audit={'verified' if not one.problems else 'see above'} "
        f"seconds={time.perf_counter() - started:.0f}"
    )
    sys.exit(bool(one.problems))


if __name__ == "__main__":
    main()
