"""A report as PDF, set by WeasyPrint (extra `report`) from the same page as the HTML.

WeasyPrint is chosen because it sets that very page, with page numbers and a table of contents that
knows them; a library of drawing calls would need the report written a second time.
"""

import importlib
from typing import Any

from perfusio_jax._core import ConfigError

from .document import Document
from .html_page import html_page


def pdf_pages(document: Document) -> bytes:
    """A report as the content of a PDF file.

    Args:
        document: The report.

    Returns:
        The content; the same report gives the same bytes.

    Raises:
        ConfigError: If WeasyPrint, or what it needs of the system, is not installed.
    """
    weasyprint = require_weasyprint()
    # pictures as pixels: its own drawing of SVG lacks some of what Matplotlib writes
    page = html_page(document, form="png")
    fetcher = importlib.import_module("weasyprint.urls").URLFetcher(
        allowed_protocols=("data",), fail_on_errors=True
    )  # what is in the page, and nothing that is not
    return weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf(pdf_variant="pdf/ua-1")


def require_weasyprint() -> Any:
    """The library, before any work is done for it.

    Raises:
        ConfigError: If it, or what it needs of the system, is not installed.
    """
    try:
        return importlib.import_module("weasyprint")
    except (ImportError, OSError) as error:  # OSError: Pango is missing
        raise ConfigError(
            f"a PDF needs WeasyPrint, which cannot be used here ({str(error).splitlines()[0]}): "
            "pip install 'perfusio-jax[report]', and Pango of the system. A report as .html needs "
            "neither, and a browser prints it."
        ) from None
