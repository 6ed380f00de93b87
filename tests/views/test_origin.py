"""What mixes in a table is told."""

from __future__ import annotations

from tombola.table.key import Key
from tombola.views.origin import Origin, mixtures

KEYS = [Key(metric="barrier", block=block) for block in range(3)]
CPU = Origin("cpu", "float32", "tombola 0.1.0, torch 2.9.0")
GPU = Origin("NVIDIA H200", "bfloat16", "tombola 0.1.0, torch 2.9.0")


def test_cells_made_alike_are_not_mentioned() -> None:
    assert mixtures(KEYS, {key: [CPU, CPU] for key in KEYS}) == []
    assert mixtures(KEYS, {}) == []


def test_each_difference_is_a_sentence_with_counts_of_cells() -> None:
    assert mixtures(KEYS, {KEYS[0]: [CPU], KEYS[1]: [GPU], KEYS[2]: [GPU, GPU]}) == [
        "Mixed kinds of device: NVIDIA H200 (2 cells), cpu (1 cell).",
        "Mixed precisions: bfloat16 (2 cells), float32 (1 cell).",
    ]


def test_a_cell_that_mixes_within_itself_is_counted() -> None:
    newer = Origin("cpu", "float32", "tombola 0.1.0, torch 2.10.0")
    (sentence,) = mixtures(KEYS, {KEYS[0]: [CPU, newer], KEYS[1]: [CPU]})
    assert sentence == (
        "Mixed library versions: tombola 0.1.0, torch 2.10.0 (1 cell), tombola 0.1.0, torch 2.9.0 (2 cells). "
        "1 cell rests on several of them."
    )


def test_cells_of_other_tables_do_not_count() -> None:
    assert mixtures(KEYS[:1], {KEYS[0]: [CPU], KEYS[1]: [GPU]}) == []
