"""Tables, pictures and verdicts in this folder, from the store that ``cifar10.py`` filled.

All but ``forgetting.npz`` can be made from a store without weights, such as ``store.zip`` imported: what
needs the record of every image is read from that file.

Run: python results/show.py --store DIR [--out results]
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from tombola.atomic import write_whole
from tombola.lab.evaluate import load_result
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.measures.learning import SUMMED_RUNS, Learning, summed_events
from tombola.measures.probe import Probes
from tombola.measures.statistics import mean, sample_std
from tombola.measures.transfer import Transfer
from tombola.report.board import board, board_csv
from tombola.report.figure import picture_files
from tombola.studies.catalogue import study_named
from tombola.studies.cells import Cell, Place, by_place
from tombola.studies.claims.all_claims import judge_all
from tombola.studies.entries import Entry
from tombola.studies.paper.jobs import Work
from tombola.studies.paper.printed import EPOCHS, comparable_cells, printed_cells
from tombola.studies.paper.settings import CONFIGURATIONS, R18_C10, STABLE, UNSTABLE, Configuration
from tombola.studies.picture import Picture
from tombola.studies.results import Results
from tombola.studies.study import Shown
from tombola.training.run import ForgettingRecord

sys.path.insert(0, str(Path(__file__).parent))
from cifar10 import BESIDE, CHAINS, LAST, LESS, OTHER_DECAY, TENTH, other_decay, work_of

Row = dict[str, Any]
RECORDS = "forgetting.npz"
"""How often each image was forgotten by each run: no store without weights has it."""
FIRST = "first seed"
COPIES = f"{FIRST}, one pair of noise copies"
BOTH = "two seeds of 0.0/256, 0.9/100 and 0.9/256 from initialisation, else one"


def main(store: Path, out: Path = Path(__file__).parent) -> None:
    """Write every file of this folder that comes from results."""
    folder = Store(store, create=False)
    results = Results(folder)
    # Whatever is there of a second seed is shown with the first.
    full, copies, tenth = work_of("full"), work_of("copies"), work_of("second")
    save_forgetting(folder, results, full, out / RECORDS)
    records = out / RECORDS if (out / RECORDS).exists() else Path(__file__).parent / RECORDS
    save_rows(out / "table08.csv", table08(results, full, records))
    save_rows(out / "runs.csv", dense_runs(folder, results, full))
    cells = dict(by_place(so_far("table8", full, results).cells))
    forgetting = so_far("fig6", full, results)
    cells |= by_place(forgetting.cells)
    save(out, "figure06a", computed(forgetting.picture, full, "three seeds of batch 256, else one"))
    for name in (*TENTH, *BESIDE):
        shown = so_far(name, tenth, results)
        cells |= by_place(shown.cells)
        if shown.picture is not None:
            seeds = {"fig3": COPIES, "fig10": FIRST}.get(name, BOTH)
            save(out / "tenth", numbered(name), computed(shown.picture, tenth, seeds))
        elif shown.cells:
            save_rows(out / "tenth" / f"{numbered(name)}.csv", beside_the_paper(by_place(shown.cells)))
    # At the full budget where it was run: these cells take the place of the shorter ones.
    dense = so_far("fig3", copies, results)
    cells |= by_place(dense.cells)
    if dense.cells:
        save(out, "figure03", computed(dense.picture, copies, COPIES))
    for name, rows in {
        "accuracy": accuracies, "probes": probes, "few-shot": few_shots, "transfer": transfers,
    }.items():  # fmt: skip
        save_rows(out / "tenth" / f"{name}.csv", rows(results, tenth))
    save_rows(out / "tenth" / "barriers.csv", barriers(results, tenth, CHAINS, (0, LAST)))
    save_rows(out / "barriers.csv", barriers(results, copies, (STABLE, UNSTABLE), (0,)))
    verdicts = board_csv(board(judge_all(printed_cells()), judge_all(cells)))
    write_whole(out / "claims.csv", verdicts.encode())


def so_far(name: str, work: Work, results: Results) -> Shown:
    """What a study shows of the runs that came to their end."""
    study = study_named(name)

    def listing(work: Work, name: str) -> Iterator[Entry]:
        for entry in study.entries(work):
            place, jobs = entry.place, entry.jobs
            if place.momentum is not None and place.dataset == R18_C10.dataset and len(jobs) > 1:
                chain = Configuration(place.momentum, place.batch_size or 0, bool(place.pretrained))
                jobs = tuple(job for n, job in enumerate(jobs) if came_to_its_end(results, work, chain, n))
            done = tuple(job for job in jobs if results.of(job) is not None)
            yield replace(entry, jobs=done or entry.jobs)

    return replace(study, listing=listing).shown(work, results)


def came_to_its_end(results: Results, work: Work, configuration: Configuration, number: int) -> bool:
    """Whether the last ticket of a chain is trained; at the full budget the dense network is the last."""
    last = LAST if work.scale.epochs < EPOCHS else 0
    return results.of(work.runs(R18_C10, configuration, number)[last]) is not None


def numbered(study: str) -> str:
    """The name of a table or figure with two digits: files then lie in their order."""
    found = re.fullmatch(r"(table|fig)(\d+)", study)
    return f"{found[1].replace('fig', 'figure')}{int(found[2]):02}" if found else study


Trained = tuple[Configuration, float, int, Job]
"""Configuration, weight decay, number of the run and the run."""


def trained(results: Results, work: Work) -> list[Trained]:
    """The dense runs that are finished with what they learned."""
    runs = [
        (each, work.recipe(R18_C10, each).weight_decay, number, work.runs(R18_C10, each, number)[0])
        for each in CONFIGURATIONS
        for number in range(work.scale.seeds)
    ]
    runs.append((OTHER_DECAY, LESS, 0, other_decay(work)))
    return [run for run in runs if results.of(work.learning(run[-1]))]


def measured(results: Results, work: Work, run: Job) -> Row:
    """What Table 8 says of a run, and its test accuracy."""
    learned: Learning = results.of(work.learning(run))
    return {
        "val_accuracy": results.of(run)["accuracy"],
        "forgetting_events": learned.forgetting.events_mean,
        "unforgettable_percent": 100 * learned.forgetting.unforgettable,
        "convergence": learned.convergence,
    }


def table08(results: Results, work: Work, records: Path) -> Iterator[Row]:
    """Table 8 and the dense accuracies of Table 11: one row for each number.

    The paper's forgetting events stand beside ours of three seeds together, summed and halved (reading D8),
    whose spread is over images; all other spreads are over seeds. records: the file with those of the runs.
    """
    for (configuration, decay), runs in groupby(trained(results, work), lambda run: run[:2]):
        ours = [measured(results, work, run) for *_, run in runs]
        numbers: dict[str, tuple[float | None, float | None]] = {}
        for metric in ours[0]:
            values = [each[metric] for each in ours]
            numbers[metric] = mean(values), sample_std(values)
            if metric == "forgetting_events":
                numbers["summed_forgetting_events"] = summed(records, configuration, decay, values)
        for metric, (number, spread) in numbers.items():
            theirs = _printed(configuration, metric)
            yield {
                "momentum": configuration.momentum, "batch_size": configuration.batch_size,
                "weight_decay": decay, "metric": metric, "ours": number and round(number, 4),
                "ours_std": spread and round(spread, 4), "seeds": len(ours), "paper": theirs and theirs.mean,
                "paper_std": theirs and theirs.std,
                "difference": round(number - theirs.mean, 4) if number is not None and theirs else None,
                "epochs": work.scale.epochs,
            }  # fmt: skip


def summed(
    records: Path, configuration: Configuration, decay: float, means: list[float]
) -> tuple[float | None, float | None]:
    """Forgetting events of three seeds together: mean and spread over images, from the runs' records.

    means: of each run, by which its record is recognised. Nothing unless there are three with their records.
    """
    if len(means) != SUMMED_RUNS:
        return None, None
    with np.load(records) as arrays:
        labels = [_label(configuration, decay, number) for number in range(SUMMED_RUNS)]
        keys = ("events", "learned", "correct")
        if any(f"{label}.{key}" not in arrays for label in labels for key in keys):
            return None, None
        parts = [{key: torch.from_numpy(arrays[f"{label}.{key}"]) for key in keys} for label in labels]
    recorded = [float(part["events"].double().mean()) for part in parts]
    if any(abs(one - other) > 1e-9 for one, other in zip(recorded, means, strict=True)):
        return None, None
    together = summed_events([ForgettingRecord(**part) for part in parts])
    return together.events_mean, together.events_std


def _label(configuration: Configuration, decay: float, number: int) -> str:
    """The name of a run in the file of forgetting records."""
    return f"{configuration}, weight decay {decay:g}, seed {number}"


def dense_runs(store: Store, results: Results, work: Work) -> Iterator[Row]:
    """The runs behind it: one row for each, with where it comes from."""
    for configuration, decay, number, run in trained(results, work):
        values = {metric: round(value, 4) for metric, value in measured(results, work, run).items()}
        yield {
            "momentum": configuration.momentum, "batch_size": configuration.batch_size,
            "weight_decay": decay, "seed": number, **values, "epochs": work.scale.epochs,
            **_origin(store, run),
        }  # fmt: skip


def _printed(configuration: Configuration, metric: str) -> Cell | None:
    """What the paper prints for a dense ResNet-18 on CIFAR-10, trained from initialisation, if it does."""
    study = "table11" if metric == "val_accuracy" else "table8"
    cells = [
        cell
        for place, cell in comparable_cells().items()
        if (place.study, place.metric, place.dataset) == (study, metric, R18_C10.dataset)
        and (place.momentum, place.batch_size) == (configuration.momentum, configuration.batch_size)
        and not place.pretrained
        and not place.sparsity
    ]
    return cells[0] if cells else None


def _origin(store: Store, run: Job) -> Row:
    """How a run was made."""
    made = store.provenance(run.name)
    return {
        "hardware": made["hardware"], "precision": made["precision"],
        "engine": made["engine"], "seconds": made["seconds"], "tombola": made["tombola"],
        "torch": made["torch"], "cuda": made["cuda"], "cudnn": made["cudnn"], "job": run.name[:12],
    }  # fmt: skip


def save_forgetting(store: Store, results: Results, work: Work, path: Path) -> None:
    """What happened to each image in the runs that the store still has whole; others stay as they are."""
    whole = [run for run in trained(results, work) if not store.is_thin(run[-1].name)]
    if not whole:
        return
    arrays = dict(np.load(path)) if path.exists() else {}
    for configuration, decay, number, run in whole:
        label = _label(configuration, decay, number)
        record = load_result(store, run.name).forgetting
        arrays |= {f"{label}.{key}": value.numpy() for key, value in vars(record).items()}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **dict(sorted(arrays.items())))
    write_whole(path, content.getvalue())


def beside_the_paper(ours: dict[Place, Cell]) -> Iterator[Row]:
    """What is computed of a table: one row for each number, the paper's at full budget beside it."""
    printed = printed_cells()
    for place, cell in ours.items():
        theirs = printed.get(place)
        where = {
            key: value for key, value in vars(place).items() if key not in ("study", "network", "dataset")
        }
        yield where | {
            "ours": round(cell.mean, 4), "paper": theirs and theirs.mean, "paper_std": theirs and theirs.std,
            "difference": theirs and round(cell.mean - theirs.mean, 4),
            "seeds": len(cell.values), "epochs": cell.epochs, "epochs_paper": EPOCHS,
        }  # fmt: skip


def chains(results: Results, work: Work) -> Iterator[tuple[Configuration, int, list[Job]]]:
    """The chains that came to their end: configuration, number of the run, tickets."""
    for each, number in product(CHAINS, range(work.scale.seeds)):
        if came_to_its_end(results, work, each, number):
            yield each, number, work.tickets(R18_C10, each, number)


def row_of(work: Work, configuration: Configuration, number: int, **values: Any) -> Row:
    """A row of a chain."""
    return {"configuration": str(configuration), "seed": number, **values, "epochs": work.scale.epochs}


def accuracies(results: Results, work: Work) -> Iterator[Row]:
    """Test accuracy in percent after each training of each chain, from the dense network on."""
    for each, number, _ in chains(results, work):
        runs = map(results.of, work.runs(R18_C10, each, number)[: LAST + 1])
        yield row_of(work, each, number, **{str(n): run and run["accuracy"] for n, run in enumerate(runs)})


def probes(results: Results, work: Work) -> Iterator[Row]:
    """Probe accuracy in percent after every block: tickets, permuted tickets, the random dense network."""
    for each, number, tickets in chains(results, work):
        probed = {str(n): tickets[n] for n in (0, LAST // 2, LAST)}
        probed[f"permuted {LAST}"] = work.permuted(tickets[LAST], number)
        for label, ticket in probed.items():
            found: Probes | None = results.of(work.probe(R18_C10, ticket, number))
            if found:
                blocks = {f"block {n}": accuracy for n, accuracy in enumerate(found.accuracy, 1)}
                yield row_of(work, each, number, prunings=label, **blocks)


def few_shots(results: Results, work: Work) -> Iterator[Row]:
    """Test accuracy in percent of tickets trained on a share of the images, and what failed."""
    for each, number, _ in chains(results, work):
        for n in (0, LAST // 2, LAST):
            runs = {
                f"{percent}%": results.of(work.few_shot(R18_C10, each, n, number, percent))
                for percent in (1, 10)
            }
            values = {share: run and run["accuracy"] for share, run in runs.items()}
            failed = ", ".join(share for share, run in runs.items() if run and run["failed"])
            yield row_of(work, each, number, prunings=n, **values, failed=failed or None)


def transfers(results: Results, work: Work) -> Iterator[Row]:
    """Test accuracy in percent on MNIST of heads on the frozen ticket, and on its trained dense network."""
    for each, number, tickets in chains(results, work):
        bodies = {
            "ticket": tickets[LAST],
            "trained dense network": work.runs(R18_C10, each, number)[0],
        }
        values: Row = {}
        for label, body in bodies.items():
            found: Transfer | None = results.of(work.transfer(R18_C10, body, "MNIST", number))
            values[label] = found and found.accuracy
        yield row_of(work, each, number, **values)


def barriers(
    results: Results, work: Work, configurations: Iterable[Configuration], prunings: Iterable[int]
) -> Iterator[Row]:
    """Barriers in points: between two copies, in both batch-norm readings, and between consecutive rounds.

    Beside those between copies, the mean test error of the two in percent, and the largest on the way.
    """
    for each, number in product(configurations, range(work.scale.seeds)):
        row: Row = {}
        for n in prunings:
            found: Instability | None = results.of(
                work.instability(R18_C10, each, n, number, recalibrated=True)
            )
            line = found and found.lines[0]
            for reading, barrier in (("", line), (", recalibrated", line and line.recalibrated)):
                where = f"copies, {n} prunings{reading}"
                largest = barrier and max(barrier.errors)
                row[where] = barrier and round(barrier.height, 3)
                row[f"{where}, ends"] = barrier and round(largest - barrier.height, 3)
                row[f"{where}, largest"] = barrier and round(largest, 3)
        for n, between in enumerate(work.between_rounds(R18_C10, each, number)[:LAST]):
            path: Barrier | None = results.of(between)
            row[f"{n} to {n + 1}"] = path and round(path.height, 3)
        if any(value is not None for value in row.values()):
            yield row_of(work, each, number, **row)


def computed(picture: Picture | None, work: Work, seeds: str) -> Picture:
    """The picture without the panels and lines of which nothing was run here, its budget in every title."""
    assert picture is not None
    chosen = {(each.momentum, each.batch_size) for each in CHAINS}
    budget = f"{work.scale.epochs}\N{NO-BREAK SPACE}epochs"
    panels = [
        replace(
            panel,
            title=re.sub(r"^\([a-z]\) ", "", f"{panel.title}, {budget}"),
            lines=[line for line in panel.lines if (line.momentum, line.batch_size) in chosen],
            missing=(),
        )
        for panel in picture.panels
        if panel.lines
    ]
    # A short budget stands in the picture's note already.
    return replace(picture, panels=panels, budget=seeds if picture.note else f"{budget} a training; {seeds}")


def save(folder: Path, name: str, picture: Picture) -> None:
    """A picture as SVG and PNG, and its points as CSV."""
    for kind, content in picture_files(picture, ("svg", "png")).items():
        write_whole(folder / f"{name}.{kind}", content, make_folder=True)
    save_rows(folder / f"{name}.csv", points(picture))


def points(picture: Picture) -> Iterator[Row]:
    """What is drawn: one row for each point, with the paper's number where it prints one."""
    for panel in picture.panels:
        for line in panel.lines:
            empty = [None] * len(line.x)
            columns = (line.x, line.y, line.spread or empty, line.starred or empty, line.printed or empty)
            for x, y, spread, starred, printed in zip(*columns, strict=True):
                place = {typed(panel.x_label): round(x, 6)} if panel.x_label else {}  # bars have none
                yield {
                    "panel": typed(panel.title), "late rewinding": line.pretrained, "line": line.label,
                    **place, typed(panel.y_label): round(y, 6), "std": spread and round(spread, 6),
                    "failed": starred or None, "paper": printed,
                }  # fmt: skip


def typed(label: str) -> str:
    """A label without the no-break spaces that nobody types."""
    return label.replace("\N{NO-BREAK SPACE}", " ")


def save_rows(path: Path, rows: Iterable[Row]) -> None:
    """Rows as CSV, without columns that are empty throughout; no file without rows."""
    listed = list(rows)
    if not listed:
        return
    keys = dict.fromkeys(key for row in listed for key in row)
    columns = [key for key in keys if any(row.get(key) is not None for row in listed)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    write_whole(path, text.getvalue().encode(), make_folder=True)


if __name__ == "__main__":
    tyro.cli(main)
