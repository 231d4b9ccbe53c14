"""The list of slow files names files that exist, and is made from a report as it says."""

from tests.slow import ROOT, as_text, seconds_of, slow_files


def test_every_slow_file_exists_and_is_named_once():
    files = slow_files()
    assert files and len(set(files)) == len(files)
    for path in files:
        assert (ROOT / path).is_file(), f"{path} is gone; take it out of tests/slow.txt"


def test_a_report_becomes_a_list_longest_first(tmp_path):
    report = tmp_path / "report.xml"
    case = '<testcase classname="tests.{}" time="{}"/>'
    cases = [("test_slow", 6), ("test_slow", 5), ("test_readme", 30), ("test_cli", 6), ("gone", 99)]
    body = "".join(case.format(*c) for c in cases)
    report.write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    lines = as_text(seconds_of(report)).splitlines()
    assert lines[1:] == ["30 tests/test_readme.py", "11 tests/test_slow.py"]
