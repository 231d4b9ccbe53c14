"""The alarms of one day: what a sample, a forecast and a decision give reason for."""

from collections.abc import Mapping
from typing import Any

from ..decision.brain import Proposal
from .desk import AlarmDesk, event
from .events import AlarmEvent, Foreseen
from .notifications import AlarmNotifier


async def raise_alarms(
    desk: AlarmDesk,
    notifier: AlarmNotifier | None,
    day: float,
    *,
    record: Mapping[str, Any],
    proposal: Proposal,
    trouble: str,
) -> list[AlarmEvent]:
    """Bring the alarms about quality, limits, decision and drift up to date.

    Args:
        desk: Keeps their state and tells people.
        notifier: Knows the limits; `None`: nothing is compared with any.
        day: Culture day [d].
        record: The sample, as the journal holds it.
        proposal: What was decided, with its forecast.
        trouble: Why nothing was decided; empty if something was.

    Returns:
        What there is reason for, of quality and limits.
    """
    if proposal.forecast is not None:
        desk.foreseen = Foreseen(day, tuple(proposal.species), proposal.forecast)
    quality = [
        event("quality", f"sample {n}", text, day)
        for n, text in enumerate([*record["implausible"], *doubts_of(record)])
    ]
    await desk.update("quality", quality, day)
    found: list[AlarmEvent] = []
    if notifier is not None:
        now = notifier.check_sample(record["values"], day)
        await desk.update("sample", now, day)
        ahead: list[AlarmEvent] = []
        if proposal.forecast is not None:
            ahead = notifier.check_forecast(proposal.forecast, proposal.species, day)
            await desk.update("forecast", ahead, day)
        found = [*now, *ahead]
    decision = event("session", "decision", trouble, day)
    if trouble:
        await desk.raise_one(decision)
    else:
        await desk.clear(decision)
    drift = proposal.explanation.get("drift")
    warning = event("drift", "model", str(drift or ""), day)
    if drift:
        await desk.raise_one(warning)
    elif proposal.forecast is not None:
        await desk.clear(warning)
    return [*quality, *found]


def doubts_of(record: Mapping[str, Any]) -> list[str]:
    """What is to be said of the quality of a sample as a whole.

    Args:
        record: The sample, as the journal holds it.

    Returns:
        A sentence, with what was beyond the limit of its assay; none for a good sample.
    """
    quality, limits = record["quality"], record.get("limits") or {}
    if quality == "good":
        return []
    why = f": {', '.join(limits)} beyond the limit of the assay" if limits else ""
    return [f'the quality of the sample is "{quality}"{why}']
