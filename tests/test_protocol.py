"""The readings of the paper: every one that code or documents cite stands in docs/protocol.md, once."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \*\*([A-Z]\d+)\*\* (?:[^|]*)\|(.*)\|(.*)\|$", PROTOCOL, re.MULTILINE)
READINGS = [(reading, basis.strip()) for reading, _, basis in ROWS if not reading.startswith("R")]
RUNS = re.findall(r"^\| \*\*(R\d+)\*\*", PROTOCOL, re.MULTILINE)
# How many there are of each letter, counted in the list that the studies were planned with.
COUNTS = {"A": 12, "B": 7, "C": 7, "D": 14, "E": 6, "F": 5, "G": 15, "H": 8, "I": 10}


def cited(text: str) -> set[str]:
    """The readings that a text cites: "reading C6", "readings D8 and D9", "(protocol, G6)", "(H5)".

    Bare numbers in brackets that begin with C are claims.
    """
    text = " ".join(text.replace('"""', " ").split())
    listed = re.findall(r"[Rr]eadings? \(?((?:[A-I]\d+(?:, | and |, and )?)+)", text)
    listed += re.findall(r"protocol, (?:reading )?([A-I]\d+)", text)
    listed += re.findall(r"\(([ABD-I]\d+)\)", text)
    return {name for found in listed for name in re.findall(r"[A-I]\d+", found)}


def texts() -> dict[str, str]:
    """Every file that may cite a reading."""
    places = [
        *(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.jinja"), *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "results").glob("*.py"), *ROOT.glob("*.md"),
        *(path for folder in ("docs", "results", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
    ]  # fmt: skip
    own = Path(__file__).resolve()
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in places
        if path.resolve() != own
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("as printed (reading C6).", {"C6"}),
        ("(readings D8 and D9)", {"D8", "D9"}),
        ("readings A1, B4 and H5 say", {"A1", "B4", "H5"}),
        ("as reading (D3)", {"D3"}),
        ("measured anew (reading\n    D3).", {"D3"}),
        ("(protocol, G6) and (protocol, reading G1)", {"G1", "G6"}),
        ("both are drawn (E1); chosen images (H5)", {"E1", "H5"}),
        ("slows convergence (C7)", set()),
        ("reading it again", set()),
    ],
)
def test_citations_are_recognised(text: str, names: set[str]) -> None:
    assert cited(text) == names


def test_every_reading_that_is_cited_is_written_down() -> None:
    known = {reading for reading, _ in READINGS}
    missing = {f"{place}: {name}" for place, text in texts().items() for name in cited(text) - known}
    assert missing == set()


def test_code_and_documents_do_cite_readings() -> None:
    found = texts()
    assert cited(found["src/tombola/measures/learning.py"]) == {"D8", "D9", "E2", "H5"}
    for place in ("src/tombola/measures/statistics.py", "docs/plan.md", "results/README.md"):
        assert cited(found[place])
    assert len(set().union(*map(cited, found.values()))) > 25


def test_no_two_readings_have_one_name_and_none_is_left_out() -> None:
    names = [reading for reading, _ in READINGS]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert names == [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]


def test_every_reading_says_what_it_rests_on() -> None:
    sources = ("stated", "printed", "code", "measured", "convention")
    assert {reading: basis for reading, basis in READINGS if not basis.startswith(sources)} == {}


def test_every_cheap_run_that_a_reading_names_is_listed() -> None:
    assert [f"R{n}" for n in range(1, len(RUNS) + 1)] == RUNS
    named = set(re.findall(r"[Rr]un (R\d+)", PROTOCOL)) | set(re.findall(r"to \"run (R\d+)", PROTOCOL))
    assert named <= set(RUNS)
    settled = re.findall(r"^\| \*\*R\d+\*\* [^|]*\| ([^|]*) \|", PROTOCOL, re.MULTILINE)
    known = {reading for reading, _ in READINGS}
    assert {name for cell in settled for name in re.findall(r"\b[A-I]\d+\b", cell)} <= known


def test_links_within_it_lead_somewhere() -> None:
    heads = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", PROTOCOL, re.MULTILINE)
    }
    anchors = re.findall(r"\]\(#([^)]*)\)", PROTOCOL)
    for text in texts().values():
        anchors += re.findall(r"protocol\.md#([^)]*)\)", text)
    assert set(anchors) <= heads
    assert anchors
