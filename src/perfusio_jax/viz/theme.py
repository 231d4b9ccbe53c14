"""One look for all figures: colours told apart by everyone, labels with units.

Figures are made without pyplot, so drawing changes no global state and needs no display.
Colours are those of Okabe and Ito (2008), which the common colour vision deficiencies keep
apart; where two lines could still be confused, their dashes differ too.
"""

import functools
import html
import io
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import shown_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
_R = TypeVar("_R")

PALETTE: Final = {
    "ink": "#20262e",
    "muted": "#69727d",
    "grid": "#e6e9ed",
    "shade": "#f3f5f7",
    "twin": "#0072b2",
    "band": "#56b4e9",
    "target": "#d55e00",
    "green": "#009e73",
    "orange": "#e69f00",
    "purple": "#cc79a7",
    "brown": "#8c5a2b",
}
"""Colour by role."""

SERIES: Final = tuple(
    PALETTE[name] for name in ("twin", "orange", "green", "purple", "target", "brown", "muted")
)
"""Colours of series without a role of their own, in order."""

DASHES: Final[tuple[Any, ...]] = ("-", (0, (4, 2)), (0, (1.2, 1.4)), (0, (4, 1.4, 1.2, 1.4)))
"""Line styles that go with them."""

LABELS: Final = {
    "VCD": ("Viable cell density", "10⁶ cells/mL"),
    "VCV": ("Viable cell volume", "%"),
    "Via": ("Viability", "%"),
    "Diam": ("Cell diameter", "µm"),
    "Glc": ("Glucose", "g/L"),
    "Gln": ("Glutamine", "mmol/L"),
    "Glu": ("Glutamate", "mmol/L"),
    "Lac": ("Lactate", "mmol/L"),
    "Amm": ("Ammonium", "mmol/L"),
    "Pyr": ("Pyruvate", "mmol/L"),
    "Titer": ("Titer", "mg/L"),
    "DCD": ("Dead cell density", "10⁶ cells/mL"),
    "Lys": ("Lysed cells", "10⁶ cells/mL"),
    "perfusion_rate": ("Perfusion", "vvd"),
    "bleed_rate": ("Bleed", "vvd"),
    "glucose_setpoint": ("Glucose set-point", "g/L"),
    "temperature": ("Temperature", "°C"),
    "agitation": ("Stirring", "rpm"),
    "pyruvate_feed": ("Pyruvate feed", "mmol/L"),
}
"""Name and unit of each quantity, as figures write them."""

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["muted"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.titlecolor": PALETTE["ink"],
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "butt",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


_ONE_AT_A_TIME: Final = threading.RLock()
"""Matplotlib's settings are the program's; two threads would leave each other's behind."""


def themed(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a drawing function under this look, leaving Matplotlib's settings as they were.

    Threads may draw at the same time: they do it one after the other.
    """

    @functools.wraps(draw)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        import matplotlib as mpl

        with _ONE_AT_A_TIME, mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float, title: str | None = None) -> "Figure":
    """An empty figure that draws off screen.

    Args:
        width: Width [inch].
        height: Height [inch].
        title: Heading.

    Returns:
        A figure with constrained layout, unknown to pyplot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.07, wspace=0.03, hspace=0.03)  # type: ignore[union-attr]
    if title:
        heading = no_math(title)
        figure.suptitle(heading, x=0.012, ha="left", fontsize=12.5, fontweight="bold")
    return figure


def no_math(text: str) -> str:
    """A text whose dollars are dollars: Matplotlib would set what is between two as a formula."""
    return text.replace("$", r"\$")


_LONGEST = 26
"""Letters of a name that a panel has room for."""
_ROOM = 22
"""Letters of name and unit that it has room for in type of the usual size."""


def label(name: str) -> str:
    """Name with its unit, such as "Glucose [g/L]"; unknown names as they are."""
    text, unit = LABELS.get(name, (name, ""))
    return f"{text} [{unit}]" if unit else text


def title_axis(
    axes: "Axes", name: str, *, size: float | None = None, unit: str | None = None
) -> None:
    """Head a panel with its quantity, the unit in lighter type.

    Args:
        axes: The panel.
        name: Its quantity.
        size: Size of the type.
        unit: Its unit in a described culture, where names mean what the culture says; by default
            name and unit are those of CHO perfusion.
    """
    if unit is None:
        text, unit = LABELS.get(name, (name, ""))
    else:  # names of a culture may be long; panels stay as wide as they are
        unit = shown_unit(unit)
        text = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        room = _ROOM / max(len(text) + len(unit), _ROOM)
        size = room * float(_STYLE["axes.titlesize"]) if size is None and room < 1.0 else size
    head = axes.set_title(text)
    if size is not None:
        head.set_fontsize(size)
    if unit:
        axes.annotate(
            f"  {unit}",
            xy=(1.0, 0.0),
            xycoords=head,
            va="bottom",
            fontsize=0.88 * float(head.get_fontsize()),
            color=PALETTE["muted"],
            annotation_clip=False,
        )


def day_axis(axes: "Axes", first: float, last: float, *, show_label: bool = True) -> None:
    """Whole culture days on the x axis, at most about ten of them."""
    span = max(last - first, 1.0)
    step = next((s for s in (1, 2, 5, 7, 10, 14, 20, 50, 100) if span / s <= 10), 200)
    begin = math.ceil(first / step) * step
    axes.set_xticks([begin + step * n for n in range(int((last - begin) / step) + 1)])
    axes.set_xlim(first - 0.02 * span, last + 0.02 * span)
    if show_label:
        axes.set_xlabel("Culture day")


def describe(figure: "Figure", text: str, *, is_printed: bool) -> "Figure":
    """Give a figure its description for people who cannot see it.

    Args:
        figure: The figure.
        text: What it shows, in words; found again with `figure.get_label()`.
        is_printed: Whether to print it too.

    Returns:
        The figure.
    """
    figure.set_label(text)
    if is_printed:
        print(text)
    return figure


def save_figure(figure: "Figure", path: Path | str, *, dpi: int = 160) -> Path:
    """Write a figure, with its description in the file's metadata.

    Args:
        figure: The figure.
        path: Where to; the suffix says in which format (png, svg, pdf). Missing folders are
            made.
        dpi: Resolution of pixel formats [1/inch].

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".png", ".svg", ".pdf"):
        path.write_bytes(figure_bytes(figure, path.suffix.lower()[1:], dpi=dpi))
    else:
        figure.savefig(path, dpi=dpi)
    return path


def figure_bytes(figure: "Figure", form: str, *, dpi: int = 160) -> bytes:
    """A figure as the content of a file: the same figure gives the same bytes.

    Args:
        figure: The figure; its description goes into the file, where programs that read aloud find
            it: a text of PNG, `<desc>` of SVG, the subject of PDF.
        form: "png", "svg" or "pdf".
        dpi: Resolution of PNG [1/inch].

    Returns:
        The content.

    Raises:
        ConfigError: For another form.
    """
    import matplotlib as mpl

    text = str(figure.get_label() or "")
    metadata: dict[str, Any] = {
        "png": {"Software": None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None, "Creator": None},
    }.get(form, {})
    if not metadata:
        raise ConfigError(f"{form!r} is no form of a picture; allowed are png, svg and pdf.")
    if text:
        metadata["Subject" if form == "pdf" else "Description"] = text
    buffer = io.BytesIO()
    with _ONE_AT_A_TIME, mpl.rc_context({"svg.hashsalt": "perfusio-jax"}):
        figure.savefig(buffer, format=form, dpi=dpi, metadata=metadata)
    content = buffer.getvalue()
    if form != "svg" or not text:
        return content
    start = content.index(b"<svg")
    end = content.index(b">", start)
    described = f"<desc>{html.escape(text)}</desc>".encode()
    return content[:end] + b' role="img">\n ' + described + content[end + 1 :]
