"""Scales of axes that pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def space_by_round(axes: Axes, ticks: Sequence[float], texts: Sequence[str]) -> None:
    """Space an axis of sparsities in percent evenly by round: logarithmic in what remains.

    ticks, texts: the sparsities that are written at the axis, and how.
    """
    from matplotlib.ticker import NullLocator

    axes.set_xscale("function", functions=(_density_to_position, _position_to_density))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, texts)


def _density_to_position(sparsity: Any) -> Any:
    import numpy as np

    # Bounded because matplotlib also asks about its margins, and 100% has no place on this axis.
    return -np.log(np.maximum(100.0 - np.asarray(sparsity, float), 1e-3) / 100.0)


def _position_to_density(position: Any) -> Any:
    import numpy as np

    return 100.0 * (1.0 - np.exp(-np.asarray(position, float)))
