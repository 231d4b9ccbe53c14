"""`perfusio-jax report --out`: one file with everything in it, the same bytes twice."""

import html
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.cli import main
from perfusio_jax.connectors import read_culture
from perfusio_jax.report.campaign_report import campaign_cards
from perfusio_jax.report.document import Document, Grid, Section, Words
from perfusio_jax.report.html_page import html_page
from perfusio_jax.report.markdown_text import markdown_text
from perfusio_jax.report.pdf_pages import require_weasyprint
from perfusio_jax.report.run_record import read_records
from tests.report.run_folders import campaign_csv, make_run

SECTIONS = (
    "Summary",
    "What was decided, and why",
    "Course of the culture",
    "Deviations and alarms",
    "Model",
    "Derived numbers",
    "Records and how to verify them",
    "Signatures",
)
BAD = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + " "


def run(*words, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    reason = f"{BAD} | a *star* and password=hunter2"
    return make_run(tmp_path_factory.mktemp("runs") / "E1", run_id=f"E1 {BAD}", reason=reason)


def test_a_page_holds_everything_shows_names_as_they_stand_and_fetches_nothing(
    folder, tmp_path, capsys
):
    code, out, err = run("report", folder, "--out", tmp_path / "r.html", capsys=capsys)
    assert code == 0 and "report:" in out, err
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags and not {"link", "iframe", "object"} & set(tags)
    assert BAD in page.text and "hunter2" not in text
    sources = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(sources) == 3 and all(s.startswith("data:image/svg+xml;base64,") for s in sources)
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="data:[^"]+"', "", text))
    heads = re.findall(r"<h2[^>]*>\d+\. (.*?)</h2>", text)
    assert tuple(map(html.unescape, heads)) == SECTIONS
    links = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert links == [a["id"] for tag, a in page.tags if tag == "h2"]
    (record,) = read_records(folder)
    for said in (
        "bleed_rate 0.175 → 0.11 vvd",
        "held; recommended: bleed_rate 0.175 → 0.1 vvd",
        "qa1, who says to be Ann as qa: approved 2026-03-01",
        "Via >= 90 kept with probability 0.97",
        "forecast/Glc/below",
        "acknowledged by",
        "samples that did not come",
        "the challenger took over",
        record.audit.head_hash,
        "perfusio-jax verify-audit E1",
        "Net growth rate",
    ):
        assert said in page.text, said


def test_the_same_records_give_the_same_bytes_and_are_left_alone(folder, tmp_path, capsys):
    for name in ("a.html", "b.html"):
        assert run("report", folder, "--out", tmp_path / name, capsys=capsys)[0] == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "E1")
    assert run("report", elsewhere, "--out", tmp_path / "c.html", capsys=capsys)[0] == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "c.html").read_bytes()
    assert run("verify-audit", folder, capsys=capsys)[0] == 0


def test_pages_of_a_pdf_are_numbered_and_the_same_twice(folder, tmp_path, capsys):
    try:
        require_weasyprint()
    except ConfigError as error:  # as without Pango, which no package index has
        pytest.skip(str(error))
    for name in ("a.pdf", "b.pdf"):
        code, _, err = run("report", folder, "--out", tmp_path / name, capsys=capsys)
        assert code == 0, err
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content == (tmp_path / "b.pdf").read_bytes()
    assert b"CreationDate" not in content


def test_a_pdf_without_the_library_says_what_to_install_before_any_work(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    code, _, err = run("report", folder, "--out", tmp_path / "r.pdf", capsys=capsys)
    assert code == 2 and "perfusio-jax[report]" in err and ".html" in err
    assert not (tmp_path / "r.pdf").exists()


def test_markdown_and_the_summary_that_is_printed(folder, tmp_path, capsys):
    code, _, err = run("report", folder, "--out", tmp_path / "r.md", capsys=capsys)
    assert code == 0, err
    text = (tmp_path / "r.md").read_text()
    assert "| hold | 1 |" in text and "| written | 4 |" in text
    assert all(f". {title}\n" in text for title in SECTIONS)
    assert BAD not in text and r"\<script\>" in text and r"a \*star\*" in text
    assert "hunter2" not in text
    code, out, _ = run("report", folder, capsys=capsys)
    assert code == 0 and ", reactor R01:" in out and "4 written" in out
    assert run("report", folder, "--out", tmp_path / "r.txt", capsys=capsys)[0] == 0
    assert (tmp_path / "r.txt").read_text().strip() == out.strip()


def test_a_trail_that_does_not_verify_is_said_at_the_top_and_a_bare_journal_suffices(
    folder, tmp_path, capsys
):
    bad = shutil.copytree(folder, tmp_path / "bad")
    trail = (bad / "audit.jsonl").read_bytes()
    (bad / "audit.jsonl").write_bytes(trail.replace(b'"deci', b'"dexi', 1))
    assert run("report", bad, "--out", tmp_path / "r.md", capsys=capsys)[0] == 0
    text = (tmp_path / "r.md").read_text()
    assert "does NOT verify" in text.partition("## 2.")[0]
    assert "No decision is on record" in text  # what is not proven is not told
    for name in ("audit.jsonl", "audit.head", "forecasts.parquet"):
        (bad / name).unlink(missing_ok=True)
    assert run("report", bad, "--out", tmp_path / "r2.md", capsys=capsys)[0] == 0


def test_a_campaign_is_reported_on_too(tmp_path, capsys):
    path = campaign_csv(tmp_path / "runs.csv")
    code, _, err = run("report", path, "--out", tmp_path / "c.html", capsys=capsys)
    assert code == 0, err
    page = Page((tmp_path / "c.html").read_text())
    assert "Report on campaign runs.csv" in page.text and "E2" in page.text
    assert "growth_net [1/d]" in page.text and "columns without any value: Amm" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    code, out, _ = run("report", path, capsys=capsys)
    assert code == 0 and "columns without any value: Amm" in " ".join(out.split())
    assert "last VCD [10⁶ cells/mL]" in page.text and "[1e6 cells/mL" not in page.text + out
    for card in campaign_cards(read_culture(path), "runs.csv"):  # the same, to the digit
        assert f"{card.title}:" in out
        for table in card.tables:
            assert all(head in page.text for head in table.heads)
            for cell in (cell for row in table.rows for cell in row):
                assert cell in out and cell in page.text, cell
    code, _, err = run("report", path, "--out", tmp_path / "c.txt", capsys=capsys)
    assert code == 2 and "without --out it is printed" in " ".join(err.split())
    code, _, err = run("report", path, "--reference", "E0", capsys=capsys)
    assert code == 2 and "--reference is of the whole report" in err
    code, _, err = run("report", tmp_path / "none", "--out", tmp_path / "r.html", capsys=capsys)
    assert code == 2 and "does not exist" in err


def test_cells_and_facts_cannot_leave_their_place():
    cell = "a|b\n<i>\"'&"
    document = Document(
        cell, [(cell, cell)], [Section(cell, [Words(cell), Grid((cell,), [(cell,)])])]
    )
    page = Page(html_page(document))
    assert "i" not in [tag for tag, _ in page.tags]
    row = [line for line in markdown_text(document).splitlines() if line.startswith("|")][-1]
    assert row == r"| a\|b \<i\>" + "\"'& |"
