"""How much each weight matters: the lowest scores are pruned first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

Scores = npt.NDArray[np.float32]


def magnitude(weights: Tensor) -> Scores:
    """Absolute values as a flat float32 array; a non-finite weight ranks below every finite one, at -1."""
    values = np.abs(weights.detach().cpu().numpy().reshape(-1))
    return np.where(np.isfinite(values), values, np.float32(-1))
