"""The learning curve of one run: accuracy and loss by epoch, on the train and the test images."""

from __future__ import annotations

from tombola.training.run import History
from tombola.views.picture import Line, Panel, Picture


def learning_curve(history: History) -> Picture:
    """Two panels: accuracy in percent and loss in nats after each epoch, of the train images while training.

    Raises :class:`~tombola.errors.TicketError` for a run that was trained elsewhere, which has no epochs.
    """
    epochs = history.column("epoch")
    panels = [
        Panel(
            "",
            "epoch",
            label,
            [
                Line("test images", epochs, history.column(f"test_{column}")),
                Line("train images, while training", epochs[1:], history.column(f"train_{column}")[1:]),
            ],
        )
        for column, label in (("accuracy", "accuracy (%)"), ("loss", "loss (nats)"))
    ]
    return Picture("curve", "Learning curve", "Accuracy and loss by epoch.", panels)
