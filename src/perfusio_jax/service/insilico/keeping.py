"""The folder of an in-silico campaign: the plan, and a file for each part that is done.

A part is written beside its place, put on the disk, and then moved there: a file that is there is
whole. What was interrupted is therefore taken up by looking which files are missing.
"""

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from perfusio_jax._core import ConfigError, ConnectorError

from .code import differing, sources_of
from .plan import CampaignPlan, cells_of

PLAN = "plan.toml"
CODE = "code.json"
"""Digests of the files of one's own that its parts were made with."""
_PLAN_KEY = b"perfusio_jax.plan"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def part_path(folder: Path, part: int) -> Path:
    """File of a part."""
    return folder / f"part-{part:06d}.parquet"


def open_folder(folder: Path, plan: CampaignPlan) -> None:
    """Make the folder of a campaign, or find that it is this one's.

    Raises:
        ConfigError: If another plan is kept there, or files that are none of ours, or a policy or
            mechanism of one's own was changed since.
        ConnectorError: If nothing can be written there.
    """
    kept = folder / PLAN
    if kept.exists():
        there = CampaignPlan.from_toml(kept)
        if there.digest != plan.digest:
            differ = [k for k in type(plan).model_fields if getattr(plan, k) != getattr(there, k)]
            raise ConfigError(
                f"{folder} holds a campaign with other {', '.join(differ)}; parts of two plans are "
                "not put together. Name another folder, or take up that one with its own plan, "
                f"{kept}."
            )
        _check_code(folder, plan)
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds files and no {PLAN}; name a new or an empty folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sources = sources_of(plan)
        if sources:
            (folder / f".{CODE}.new").write_text(
                json.dumps(sources, indent=1) + "\n", encoding="utf-8"
            )
            os.replace(folder / f".{CODE}.new", folder / CODE)
        beside = folder / f".{PLAN}.new"
        plan.to_toml(beside)
        os.replace(beside, kept)
    except OSError as error:
        raise ConnectorError(f"{folder} cannot be written: {error.strerror}.") from error


def _check_code(folder: Path, plan: CampaignPlan) -> None:
    """Parts that were made with a file as it was, and others with what it is now, do not mix."""
    kept = folder / CODE
    if not kept.exists():
        return
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
        changed = differing(before, sources_of(plan))
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{kept} cannot be understood ({error}).") from None
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: the file was changed since the parts in {folder} were made "
            "with it, be it a comment only. Take the old file back, or name another folder: parts "
            "of two policies or mechanisms of one name are not put together."
        )


def is_done(folder: Path, plan: CampaignPlan, part: int) -> bool:
    """Whether a part is there, whole, and of this plan."""
    path = part_path(folder, part)
    try:
        head = pq.read_metadata(path)
    except FileNotFoundError:
        return False
    except (OSError, pa.ArrowInvalid):
        return False  # written by something that does not wait for the disk: computed again
    told = (head.metadata or {}).get(_PLAN_KEY, b"").decode()
    return told == f"{plan.digest}/{part}" and head.num_rows == cells_of(plan, part).run.size


def keep_part(folder: Path, plan: CampaignPlan, part: int, table: pa.Table) -> Path:
    """Write a part.

    Raises:
        ConnectorError: If the disk is full, or cannot be written; what was kept before stays.
    """
    path = part_path(folder, part)
    beside = folder / f".{path.name}.new"
    marked = table.replace_schema_metadata({_PLAN_KEY: f"{plan.digest}/{part}"})
    try:
        with beside.open("wb") as file:
            pq.write_table(marked, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        n = sum(part_path(folder, k).exists() for k in range(plan.n_parts))
        what = "the disk is full" if error.errno in _FULL else f"{path}: {error.strerror or error}"
        raise ConnectorError(
            f"{what}; {n} of {plan.n_parts} parts are kept in {folder}. Make room and give the "
            "same command again: it goes on where it stopped."
        ) from error
    return path


def read_parts(folder: Path, plan: CampaignPlan) -> pa.Table:
    """All parts that are there, in order."""
    there = [k for k in range(plan.n_parts) if is_done(folder, plan, k)]
    return pa.concat_tables([pq.read_table(part_path(folder, k)) for k in there])
