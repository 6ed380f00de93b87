"""The table: nothing is lost on its way to a frame, CSV, JSON or Markdown and back."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import ExperimentError
from tombola.table.key import Key
from tombola.table.number import Curve, Number, Together
from tombola.table.table import COLUMNS, REAL, TRUTH, WHOLE, Table, read_csv, read_json

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Whatever a user may call things by, with what a table or a reader of one could trip over.
TEXT = st.one_of(
    st.sampled_from(
        ["", "a,b", 'say "so"', "two\nlines", "one\rline", " spaced ", "1", "1e3", "True", "null", "|"]
    ),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
)
COUNT = st.integers(0, 10**6)
OPTIONAL_TEXT = st.one_of(st.none(), TEXT.filter(bool))
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-(2**62), 2**62), FINITE, TEXT)
AXIS = st.sampled_from(["lr", "rewind", "epochs", "value", "seed", "curve", "axis.value", "a b", "é,"])
HEX = st.text("0123456789abcdef", min_size=8, max_size=8)


def optional(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.none(), values)


KEYS = st.builds(
    Key, metric=st.sampled_from(["val_accuracy", "barrier", "my.measure[3]"]), reading=TEXT,
    over=st.sampled_from(["seeds", "pairs", "copies", "rounds"]), network=OPTIONAL_TEXT,
    dataset=OPTIONAL_TEXT, target=OPTIONAL_TEXT, momentum=optional(FINITE), batch_size=optional(COUNT),
    pretrained=optional(st.booleans()), search_share=optional(FINITE),
    sparse_momentum=optional(FINITE), sparse_batch_size=optional(COUNT),
    block=optional(COUNT), sparsity=optional(FINITE), subset_percent=optional(COUNT),
    subset_criterion=optional(st.sampled_from(["least_forgotten", "easiest_removed"])),
    baseline=optional(st.sampled_from(["permuted", "dense"])),
    more=st.dictionaries(AXIS, SCALAR, max_size=4).map(lambda axes: tuple(axes.items())),
)  # fmt: skip
POINTS = st.lists(st.tuples(FINITE, FINITE), max_size=3)
CURVES = POINTS.map(lambda points: Curve(tuple(x for x, _ in points), tuple(y for _, y in points)))


@st.composite
def numbers(draw: st.DrawFn) -> Number:
    state = draw(st.sampled_from(["measured", "undefined", "missing"]))
    return Number(
        key=draw(KEYS), value=draw(FINITE) if state == "measured" else None, epochs=draw(COUNT), state=state,
        seed=draw(optional(COUNT)), pair=draw(optional(COUNT)), failed=draw(st.booleans()), bound=draw(TEXT),
        note=draw(TEXT), jobs=tuple(draw(st.lists(HEX, max_size=3))), curve=draw(optional(CURVES)),
        together=draw(optional(st.builds(Together, COUNT, optional(FINITE)))), stand_in=draw(TEXT),
    )  # fmt: skip


TABLES = st.lists(numbers(), max_size=6).map(Table)

KEY = Key(metric="val_accuracy", network="ResNet-18", batch_size=100, sparsity=67.23)
NUMBERS = [
    Number(key=KEY, value=93.0, epochs=200, seed=0, jobs=("ab", "cd")),
    Number(key=KEY, value=None, epochs=200, state="missing", seed=1),
    Number(key=replace(KEY, batch_size=None, pretrained=True), value=1 / 3, epochs=20, failed=True),
]


# There and back


@given(TABLES)
def test_json_and_back_loses_nothing(table: Table) -> None:
    assert read_json(table.json()).numbers == table.numbers


@given(TABLES)
def test_csv_and_back_loses_nothing_but_curves(table: Table) -> None:
    assert read_csv(table.csv()).numbers == tuple(replace(number, curve=None) for number in table)


@given(TABLES)
def test_every_type_comes_back_as_it_was(table: Table) -> None:
    for back in (read_json(table.json()), read_csv(table.csv())):
        for number, other in zip(table, back, strict=True):
            assert [(name, type(value)) for name, value in number.key.more] == [
                (name, type(value)) for name, value in other.key.more
            ]
            assert type(number.key.batch_size) is type(other.key.batch_size)


@given(TABLES)
def test_any_reader_of_csv_finds_a_row_for_each_number(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(table.csv(), newline="")))
    assert [row["metric"] for row in rows] == [number.key.metric for number in table]
    assert [row["value"] and float(row["value"]) for row in rows] == [
        "" if number.value is None else number.value for number in table
    ]
    assert [row["note"] for row in rows] == [number.note for number in table]


def test_json_is_what_any_reader_understands() -> None:
    first, second, third = json.loads(Table(NUMBERS).json())
    assert first == {
        "metric": "val_accuracy", "over": "seeds", "network": "ResNet-18", "batch_size": 100,
        "sparsity": 67.23, "epochs": 200, "seed": 0, "value": 93.0, "state": "measured",
        "failed": False, "jobs": "ab cd",
    }  # fmt: skip
    assert (second["state"], "value" in second) == ("missing", False)
    assert (third["value"], third["pretrained"], third["failed"]) == (1 / 3, True, True)
    assert json.loads(Table([]).json()) == []


def test_a_csv_begins_with_the_documented_columns() -> None:
    head, first, *_ = Table(NUMBERS).csv().splitlines()
    assert head == ",".join(COLUMNS)
    assert first == "val_accuracy,seeds,,ResNet-18,,,,100,,,,,,67.23,,,,200,0,,93.0,measured,False,,,,,,ab cd"


def test_an_axis_that_is_called_like_a_column_has_one_of_its_own() -> None:
    key = replace(KEY, more=(("epochs", 4), ("lr", 0.1)))
    table = Table([Number(key=key, value=1.0, epochs=8)])
    assert table.columns.count("epochs") == 1
    [row] = table.rows()
    assert (row["epochs"], row["axis.epochs"], row["lr"]) == (8, 4, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("metric,", "measure,", 1), "the table has no column 'metric'"),
        (
            lambda text: text.replace("67.23", "two thirds", 1),
            "line 2 has sparsity 'two thirds', which cannot be",
        ),
        (lambda text: text.replace(",False", ",no", 1), "line 2 has failed 'no', which cannot be read"),
        (
            lambda text: text.replace("measured", "guessed", 1),
            "row 1 is 'guessed'; it must be measured, undefined",
        ),
        (lambda text: text.replace(",200", "", 1), "line 2 has 28 columns instead of 29"),
        (lambda text: text.replace("93.0", "nan", 1), "is nan; it must be finite"),
        (lambda text: text.replace("93.0", "", 1), "is measured and has the value None"),
        (lambda text: "", "the table has no column 'metric'"),
    ],
)
def test_a_csv_that_is_no_table_is_refused(change, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        read_csv(change(Table(NUMBERS).csv()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the table cannot be read"),
        ("[" * 100_000, "the table cannot be read"),
        ('{"metric": "m"}', "it is no JSON list of numbers"),
        ('[{"metric": "m"}]', "row 1 has no epochs"),
        ('[{"metric": 5}]', "row 1 has metric 5, which is of another type"),
        ('[{"metric": "m", "epochs": true}]', "row 1 has epochs True, which is of another type"),
        ('[{"metric": "m", "epochs": 1, "state": "measured", "value": NaN}]', "NaN is no JSON"),
        ('[{"metric": "m", "epochs": 1, "state": "missing", "lr": {}}]', "row 1 has lr {}; it must be text"),
        (
            '[{"metric": "m", "epochs": 1, "state": "missing", "curve": {"x": [1], "y": []}}]',
            "as many x as y",
        ),
    ],
)
def test_a_json_that_is_no_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        read_json(text)


# The frame


@given(TABLES)
def test_a_frame_has_the_documented_columns_and_types(table: Table) -> None:
    frame = table.frame()
    assert list(frame.columns) == list(table.columns)
    assert len(frame) == len(table)
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert {types[name] for name in WHOLE} == {"Int64"}
    assert {types[name] for name in REAL} == {"float64"}
    assert {types[name] for name in TRUTH} == {"boolean"}
    assert {types[name] for name in COLUMNS if name not in (*WHOLE, *REAL, *TRUTH)} == {"string"}
    for name in COLUMNS:
        for value, row in zip(frame[name], table.rows(), strict=True):
            import pandas

            assert pandas.isna(value) if row[name] is None else value == row[name]


def test_whole_numbers_stay_whole_beside_gaps() -> None:
    frame = Table(NUMBERS).frame()
    assert [str(value) for value in frame["batch_size"]] == ["100", "100", "<NA>"]
    assert [str(value) for value in frame["seed"]] == ["0", "1", "<NA>"]
    assert math.isnan(frame["value"][1])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, None, 3), "Int64"),
        ((1, 0.5), "float64"),
        ((True, None), "boolean"),
        (("a", None), "string"),
        (("a", 1), "string"),
        ((True, 1), "string"),
        ((2**70,), "float64"),
    ],
)
def test_a_further_axis_has_the_type_that_fits_all_of_its_values(values: tuple, kind: str) -> None:
    table = Table(
        Number(key=replace(KEY, more=(("axis", value),)), value=1.0, epochs=1, seed=seed)
        for seed, value in enumerate(values)
    )
    assert str(table.frame()["axis"].dtype) == kind


# What is in it


def test_of_two_that_say_the_same_of_one_run_the_measured_stays() -> None:
    gap = replace(NUMBERS[0], value=None, state="missing", jobs=("ef",))
    assert Table([gap, NUMBERS[0]]).numbers == (NUMBERS[0],)
    assert Table([NUMBERS[0], gap]).numbers == (NUMBERS[0],)
    assert Table([NUMBERS[0], replace(NUMBERS[0], jobs=("ef",))]).numbers == (NUMBERS[0],)


def test_values_without_a_seed_are_told_apart_by_their_jobs() -> None:
    key = replace(KEY, over="copies")
    copies = [Number(key=key, value=float(n), epochs=1, jobs=(f"{n}",)) for n in range(3)]
    table = Table([*copies, *copies])
    assert table.numbers == tuple(copies)
    assert table.cells()[key][0].values == (0.0, 1.0, 2.0)


def test_one_gap_for_all_pairs_goes_once_they_have_come_by_another_job() -> None:
    key = replace(KEY, metric="barrier", over="pairs")
    gap = Number(key=key, value=None, state="missing", epochs=1, jobs=("a",))
    pairs = [Number(key=key, value=float(n), epochs=1, pair=n, jobs=("b",)) for n in range(3)]
    assert Table([gap, *pairs]).numbers == tuple(pairs)
    # A gap that is of one pair, or of another seed, stays.
    of_pair = replace(gap, pair=3)
    of_seed = replace(gap, seed=1)
    assert set(Table([*pairs, of_pair, of_seed])) == {*pairs, of_pair, of_seed}


@given(TABLES)
def test_cells_count_every_number_of_their_key_and_budget(table: Table) -> None:
    for key, cells in table.cells(partial=True).items():
        for cell in cells:
            group = [number for number in table if (number.key, number.epochs) == (key, cell.epochs)]
            assert len(group) == len(cell.values) + cell.missing + cell.undefined
            assert cell.missing == sum(number.state == "missing" for number in group)
            assert cell.failed is any(number.failed for number in group)


def test_markdown_has_the_columns_that_say_something() -> None:
    text = Table([replace(NUMBERS[0], note="a | b\n<c>"), *NUMBERS[1:]]).markdown()
    head, rule, first, second, _ = text.splitlines()
    columns = [
        "metric",
        "network",
        "batch_size",
        "pretrained",
        "sparsity",
        "epochs",
        "seed",
        "value",
        "state",
    ]
    assert head == f"| {' | '.join([*columns, 'failed', 'note'])} |"
    assert rule.count("---") == len(columns) + 2
    assert r"a \| b &lt;c>" in first
    assert "missing" in second


def test_a_table_without_numbers_has_its_columns() -> None:
    table = Table([])
    assert (len(table), table.cells(), list(table.frame().columns)) == (0, {}, list(COLUMNS))
    assert read_csv(table.csv()).numbers == ()


def test_values_of_two_experiments_that_differ_in_what_neither_varies_are_both_kept() -> None:
    key = Key(metric="val_accuracy", network="convnet", dataset="digits", sparsity=0.0)
    first, second = (
        [
            Number(key=key, value=value + seed, epochs=4, seed=seed, jobs=(f"{name}{seed}" * 16,))
            for seed in range(2)
        ]
        for name, value in (("aaaa", 90.0), ("bbbb", 80.0))
    )
    table = Table([*first, *second])
    assert [number.value for number in table] == [90.0, 91.0, 80.0, 81.0]
    # Neither is a repetition of the other: no mean is taken over both.
    cells = [cell for group in table.cells().values() for cell in group]
    assert sorted(cell.values for cell in cells) == [(80.0,), (81.0,), (90.0, 91.0)]
    assert {name for number in table for name, _ in number.key.more} == {"job"}
    # The same jobs, or the same values by other jobs, stand once.
    assert len(Table([*first, *first])) == 2
    assert len(Table([*first, *(replace(number, jobs=("c" * 64,)) for number in first)])) == 2
