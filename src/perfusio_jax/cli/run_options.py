"""Options of commands that ask about a run of a plant: whose it is, how long, what is set."""

from typing import Annotated

import typer

ProcessOf = Annotated[
    str, typer.Option("--process", help="Culture: a file (.toml) or a built-in name.")
]
PlantMechanism = Annotated[
    str | None,
    typer.Option("--mechanism", help="Of a described culture: monod, cho or module:Class."),
]
CloneOf = Annotated[str, typer.Option(help="Of CHO perfusion: CloneX or CloneY.")]
Days = Annotated[float, typer.Option(min=0.1, max=365.0, help="Length of the run [d].")]
EveryHours = Annotated[
    float, typer.Option("--every", min=0.25, max=168.0, help="Hours between samples [h].")
]
SetPoints = Annotated[
    list[str] | None, typer.Option("--set", help="name=value, a set-point of the run.")
]
Starts = Annotated[
    list[str] | None, typer.Option("--start", help="name=value, at the start of the run.")
]
OnlyConstants = Annotated[
    list[str] | None, typer.Option("--only", help="A constant, others stay; may repeat.")
]
