import json
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

import tombola as tb
from tombola.cli.console import say
from tombola.errors import JobError, TicketError
from tombola.lab.chains import imp_jobs
from tombola.lab.details import show_file, show_job
from tombola.lab.listing import listing
from tombola.lab.verify import verify


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[tb.Lab, list[tb.Job]]:
    """A lab with a chain of five trainings, from a rewinding point, and a barrier."""
    lab = tb.Lab(tmp_path_factory.mktemp("filled") / "store")
    recipe = tb.Recipe(epochs=2, batch_size=400, lr=0.3)
    chain = imp_jobs("convnet", "digits", recipe, rounds=4, rewind=1, fraction=0.5)
    line = tb.job(tb.barrier, chain[0], chain[4], "digits", points=3)
    lab.run([*chain, line]).raise_failures()
    return lab, [*chain, line]


def text_of(what: RenderableType, width: int = 200) -> list[str]:
    text = StringIO()
    Console(file=text, width=width).print(what, crop=False)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_a_listing_has_one_line_a_job_oldest_first(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, jobs = filled
    lines = text_of(listing(lab.store))
    assert lines[0].split() == ["job", "function", "arguments", "result", "started", "seconds"]
    start, *_ = (job for job in jobs[0].parents[0].parents)
    assert [line.split()[0] for line in lines[1:-1]] == [
        made.name[:12] for made in (start, jobs[0].parents[0], *jobs)
    ]
    assert lines[1].split()[1:8] == [
        "initialize",
        "network",
        "convnet,",
        "data",
        "digits",
        "0.00%",
        "sparsity",
    ]
    assert lines[2].split()[1:4] == ["pretrain", "start", f"{start.name[:12]},"]
    accuracy = f"{lab.numbers(jobs[1])['accuracy']:.2f}%"
    ticket = jobs[1].parents[0].name[:12]
    assert f"ticket {ticket}, data digits, recipe {{epochs 2, batch_size 400, lr 0.3}}" in lines[4]
    assert accuracy in lines[4]
    assert "at 50.00% sparsity" in lines[4]
    assert f"barrier {lab.result(jobs[-1]).height:.2f} points" in lines[-2]
    assert lines[-1].startswith("8 jobs, 4 tickets not listed (--tickets), ")
    assert lines[-1].endswith(f"in {lab.store.root}")


def test_every_job_has_one_line_however_narrow_the_terminal(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lines = text_of(listing(filled[0].store), width=80)
    assert len(lines) == 1 + 8 + 1
    assert all(len(line) <= 80 for line in lines[:-1])
    # What is cut is the arguments, not the numbers.
    assert all(re.search(r" \d+\.\d$", line) for line in lines[1:-1])
    assert sum("% sparsity" in line or "points" in line for line in lines) == 8


def test_a_listing_can_be_of_one_function(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, _ = filled
    assert len(text_of(listing(lab.store, "train"))) == 5 + 2
    assert text_of(listing(lab.store, "probe")) == [f"no probe jobs in the store at {lab.store.root}"]


def test_tickets_are_listed_where_they_are_asked_for(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, jobs = filled
    tickets = {job.parents[0].name[:12] for job in jobs[1:5]}
    lines = text_of(listing(lab.store, "prune"))
    assert {line.split()[0] for line in lines[1:-1]} == tickets
    assert "75.00% sparsity at epoch 1" in lines[2]
    assert lines[-1].startswith("4 jobs, ")
    assert "not listed" not in lines[-1]
    every = text_of(listing(lab.store, tickets=True))
    assert len(every) == 1 + 12 + 1
    assert tickets < {line.split()[0] for line in every[1:-1]}


def test_a_ticket_is_shown_with_its_numbers(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, jobs = filled
    lines = text_of(show_job(lab.store, jobs[2].parents[0].name[:10]))
    assert lines[0] == f"prune {jobs[2].parents[0].name}"
    start = lab.result(jobs[0].parents[0]).start_fingerprint
    assert {"├── sparsity: 0.75", "├── epoch: 1", "├── round: 2", f"└── start: {start}"} <= set(lines)


def test_an_empty_store_says_so_on_one_line(tmp_path: Path) -> None:
    root = tmp_path / ("deep" * 40)
    assert text_of(listing(tb.Lab(root).store), width=80) == [f"no jobs in the store at {root}"]


def test_a_job_is_shown_with_its_parents_to_some_depth(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    lab, jobs = filled
    lines = text_of(show_job(lab.store, jobs[2].name[:8]))
    assert lines[:8] == [
        f"train {jobs[2].name}",
        f"├── ticket: prune {jobs[2].parents[0].name[:12]}",
        f"│   ├── run: train {jobs[1].name[:12]}",
        f"│   │   ├── ticket: prune {jobs[1].parents[0].name[:12]}",
        f"│   │   │   ├── run: train {jobs[0].name[:12]}",
        "│   │   │   │   └── ...",
        "│   │   │   └── fraction: 0.5",
        "│   │   ├── data: digits",
    ]
    assert f"├── accuracy: {lab.numbers(jobs[2])['accuracy']:g}" in lines
    assert "├── sparsity: 0.75" in lines
    assert any(line.startswith("├── threads: 1") for line in lines)
    assert lines[-1] == f"folder: {lab.store.folder(jobs[2].name)}"


def test_a_parent_that_is_gone_is_said_to_be(lab: tb.Lab, quick: tb.Recipe, tmp_path: Path) -> None:
    (run,) = imp_jobs("convnet", "digits", quick, rounds=0)
    lab.run(run).raise_failures()
    lab.store.folder(run.parents[0].name).rename(tmp_path / "aside")
    assert f"├── ticket: job {run.parents[0].name[:12]} (gone)" in text_of(show_job(lab.store, run.name))


@dataclass(frozen=True)
class Bracketed:
    words: tuple[str, ...]
    scores: tuple[float, ...]


def test_brackets_in_names_and_values_are_shown_as_they_are(lab: tb.Lab) -> None:
    @tb.declare("my[/bold]measure")
    def measure(layers: tuple[str, ...], deep: float = 0.0) -> Bracketed:
        return Bracketed(layers, tuple(range(9)))

    @tb.declare("above")
    def above(below: Bracketed) -> float:
        return 1e-7

    made = tb.job(measure, ["[red]", "b[0]"])
    lab.run(tb.job(above, made)).raise_failures()
    lines = "\n".join(text_of(show_job(lab.store, made.name)))
    assert f"my[/bold]measure {made.name}" in lines
    assert "layers: [[red], b[0]]" in lines
    assert "value: {words [[red], b[0]], scores [0, 1, 2, ..., 8]}" in lines
    assert "below: my[/bold]measure" in "\n".join(text_of(show_job(lab.store, tb.job(above, made).name)))
    assert "my[/bold]measure" in "\n".join(text_of(listing(lab.store)))
    assert "1e-07" in "\n".join(text_of(listing(lab.store, "above")))


def test_an_unknown_job_is_told(filled: tuple[tb.Lab, list[tb.Job]]) -> None:
    with pytest.raises(JobError, match=r"no job in .* with a name that begins with 'xyz'; see tombola ls"):
        show_job(filled[0].store, "xyz")


def test_a_damaged_job_is_named_in_a_listing(lab: tb.Lab) -> None:
    start = tb.job(tb.initialize, "convnet", "digits")
    lab.run(start)
    (lab.store.folder(start.name) / "provenance.json").write_text("{")
    other = tb.job(tb.initialize, "convnet", "digits", seed=1)
    lab.run(other)
    lines = text_of(listing(lab.store))
    assert any(line.startswith(other.name[:12]) for line in lines)
    assert any(
        line.startswith(f"job {start.name[:12]} is damaged: provenance.json: Expecting") for line in lines
    )


def test_a_ticket_file_is_shown(chain: list[tb.Run], tmp_path: Path) -> None:
    ticket = chain[2].ticket
    for with_start, words in ((False, "elsewhere"), (True, "in this file")):
        ticket.save(tmp_path / "t.safetensors", with_start=with_start)
        assert text_of(show_file(tmp_path / "t.safetensors")) == [
            f"tombola.ticket/1 {tmp_path / 't.safetensors'}",
            '├── network: {"name": "convnet", "channels": 1, "size": [8, 8], "classes": 10}',
            "├── sparsity: 75.00% (2,114 of 8,456 prunable weights)",
            "├── round: 2",
            f"├── start: {ticket.start_fingerprint[:12]}, taken at epoch 1",
            f"└── dense start: {words}",
        ]


def test_a_run_file_is_shown_with_its_numbers(run: tb.Run, tmp_path: Path) -> None:
    run.save(tmp_path / "run.safetensors")
    lines = text_of(show_file(tmp_path / "run.safetensors"))
    assert lines[0].startswith("tombola.run/1 ")
    assert f"├── accuracy: {run.accuracy}" in lines
    assert "├── failed: False" in lines


def test_a_file_of_another_kind_is_refused(lab: tb.Lab, tmp_path: Path) -> None:
    start = tb.job(tb.initialize, "convnet", "digits")
    lab.run(start)
    with pytest.raises(JobError, match=r"holds 'tombola.result/1'; show knows tickets and runs"):
        show_file(lab.store.folder(start.name) / "result.safetensors")
    (tmp_path / "notes.txt").write_text("not a ticket")
    with pytest.raises(TicketError, match=r"notes\.txt is damaged or not a tensor file"):
        show_file(tmp_path / "notes.txt")


# What is remembered


def test_a_second_listing_reads_no_job_again_and_is_the_same(
    filled: tuple[tb.Lab, list[tb.Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled[0].store
    (store.root / ".index.json").unlink(missing_ok=True)
    first = text_of(listing(store))

    def read_again(self: object, name: str, file: str) -> None:
        pytest.fail(f"{file} is read again")

    monkeypatch.setattr(type(store), "_json_object", read_again)
    assert text_of(listing(store)) == first


def test_what_is_new_gone_or_made_again_since_is_noticed(lab: tb.Lab, tmp_path: Path) -> None:
    jobs = [tb.job(tb.initialize, "convnet", "digits", seed=seed) for seed in range(3)]
    lab.run(jobs[:2])
    assert len(text_of(listing(lab.store))) == 2 + 2
    lab.run(jobs[2])
    assert len(text_of(listing(lab.store))) == 3 + 2
    folder = lab.store.folder(jobs[0].name)
    folder.rename(tmp_path / "aside")
    assert len(text_of(listing(lab.store))) == 2 + 2
    lab.run(jobs[0])
    (folder / "job.json").unlink()  # a change of the folder
    assert any(line.startswith(f"job {folder.name[:12]} is damaged") for line in text_of(listing(lab.store)))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tombola": "0", "rows": []}', '{"tombola": "', "null"])
def test_a_damaged_index_or_one_of_another_version_is_made_again(
    filled: tuple[tb.Lab, list[tb.Job]], content: str
) -> None:
    store = filled[0].store
    first = text_of(listing(store))
    (store.root / ".index.json").write_text(content)
    assert text_of(listing(store)) == first
    assert '"rows": [[' in (store.root / ".index.json").read_text()


def test_a_store_that_cannot_be_written_to_is_listed_all_the_same(
    filled: tuple[tb.Lab, list[tb.Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled[0].store
    first = text_of(listing(store))
    (store.root / ".index.json").unlink()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert text_of(listing(store)) == first
    assert not (store.root / ".index.json").exists()


def test_wide_characters_and_a_very_narrow_terminal_keep_one_line_a_job(lab: tb.Lab) -> None:
    @tb.declare("long" * 12)
    def wide(word: str) -> str:
        return word

    lab.run([tb.job(wide, "紙" * 40), tb.job(wide, "x" * 200)]).raise_failures()
    for width in (40, 120, 400):
        assert len(text_of(listing(lab.store), width=width)) == 1 + 2 + 1
    lines = text_of(listing(lab.store), width=120)
    assert all(cell_len(line) <= 120 for line in lines[:-1])


def test_nothing_in_a_store_of_a_stranger_speaks_to_the_terminal(
    lab: tb.Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    @tb.declare("speaks")
    def speaks(text: str) -> str:
        return text

    evil = "a\x1b[2J\x9b31m\rb\x07\u202ec\n"
    job = tb.job(speaks, evil)
    lab.run(job).raise_failures()
    place = lab.store.folder(job.name) / "provenance.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {evil: evil, "started": evil * 3}))
    odd = lab.store.root / "jobs" / "zz" / f"zz\x1b[2J{'0' * 50}"
    odd.mkdir(parents=True)
    for told in (listing(lab.store), show_job(lab.store, job.name)):
        shown = "\n".join(text_of(told))
        assert "speaks" in shown
        assert shown.replace("\n", "").isprintable()
    for damage in verify(lab.store):
        say(Console(), str(damage))
    shown = capsys.readouterr().out
    assert "does not belong here" in shown
    assert shown.replace("\n", "").isprintable()
