"""Selections by where images lie among each other in the features before the head: herding and k-center.

Both are greedy. Features are what goes into the last layer, of a run or a ticket, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.measures.frozen import FrozenBody, network_of
from tombola.measures.parts import batches
from tombola.measures.predictions import check_finite, check_trained, pass_cost
from tombola.measures.selection import Selection, check_share, chosen_places
from tombola.registry import declare
from tombola.seeds import generator
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import EVALUATION_BATCH
from tombola.training.preflight import check_images
from tombola.training.run import Run


def _features_cost(subject: Outline, data: Size, share: float) -> Cost:
    """One pass over the train images; choosing costs little beside it."""
    return replace(pass_cost(subject, data, "train"), result=data.part(share))


@declare("herding", cost=_features_cost)
def herding(
    subject: Ticket | Run,
    data: DataLike,
    *,
    share: float,
    balanced: bool = False,
    head: str | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Selection:
    """Train images whose mean feature stays closest to that of all (Welling, 2009; Chen et al., 2010).

    With mu the mean feature and S what is chosen so far, i images: next is the image, not chosen yet, with
    the least norm of (i + 1) mu - sum over S - x; the first of equal ones. DeepCore's code takes the
    greatest.

    subject: whose features; a run, or a ticket as it is.
    share: how many are chosen, as for :func:`~tombola.select_by_score`.
    balanced: choose within each class by itself, to its own mean.
    head: name of the last layer, in a network of one's own.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged,
    :class:`~tombola.errors.NetworkError` for a head that must be named, and
    :class:`~tombola.errors.DataError` for a share out of range.
    """
    data = load_data(data)
    watch = watch or Watch()
    points = _features("herding", subject, data, share, head, device, watch)

    def choose(members: Tensor, count: int) -> Tensor:
        return members[nearest_to_mean(points[members.to(points.device)], count, watch)]

    return _by(choose, "herding", data, share, balanced)


@declare("k-center", cost=_features_cost)
def k_center(
    subject: Ticket | Run,
    data: DataLike,
    *,
    share: float,
    balanced: bool = False,
    seed: int = 0,
    head: str | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Selection:
    """Train images such that all others are close to one: greedy k-center (Sener & Savarese, 2018).

    Next is the image that is farthest, in the Euclidean distance of features, from the nearest one chosen;
    the first of equal ones. So the largest distance that is left is at most twice the least possible.

    seed: number of the draw of the first image (of each class, where balanced).
    The other arguments and errors are as for :func:`herding`. DeepCore's default features are of another
    network, trained on ImageNet; these are of the subject.
    """
    data = load_data(data)
    watch = watch or Watch()
    points = _features("k-center", subject, data, share, head, device, watch)

    def choose(members: Tensor, count: int) -> Tensor:
        label = int(data.train.labels[members[0]]) if balanced else -1
        first = int(generator("k-center", seed, label).bit_generator.random_raw() % len(members))
        return members[farthest_first(points[members.to(points.device)], count, first, watch)]

    return _by(choose, "k-center", data, share, balanced)


def nearest_to_mean(points: Tensor, count: int, watch: Watch | None = None) -> Tensor:
    """Herding: the indices of ``count`` of the points, float64 ``(N, d)``, in the order of their choice."""
    watch = watch or Watch()
    mean = points.mean(0)
    squares = points.square().sum(1)
    is_chosen = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    total = torch.zeros_like(mean)
    chosen = []
    for place in range(count):
        target = (place + 1) * mean - total
        distances = (squares - 2 * (points @ target)).masked_fill_(is_chosen, torch.inf)
        index = distances.argmin()
        total += points[index]
        is_chosen[index] = True
        chosen.append(index)
        watch.beat()
    return torch.stack(chosen).cpu()


def farthest_first(points: Tensor, count: int, first: int, watch: Watch | None = None) -> Tensor:
    """Greedy k-center: indices of ``count`` points, float64 ``(N, d)``, the first of them ``first``."""
    watch = watch or Watch()
    index = torch.tensor(first, device=points.device)
    nearest = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    chosen = [index]
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (points - points[index]).square().sum(1))
        nearest[index] = -1  # chosen: equal to another point or not, not again
        index = nearest.argmax()
        chosen.append(index)
        watch.beat()
    return torch.stack(chosen).cpu()


def _features(
    what: str,
    subject: Ticket | Run,
    data: Data,
    share: float,
    head: str | None,
    device: str | torch.device | None,
    watch: Watch,
) -> Tensor:
    """The features of all train images before the head, float64 ``(N, d)`` on the device."""
    check_share(share)
    check_images(network_of(subject), data)
    check_trained(subject, what)
    where = resolve_device(device)
    parts = []
    with repeatable(where):
        body = FrozenBody(subject, (), head, where, "float32")
        (width,) = body.begin(data, EVALUATION_BATCH, "frozen")
        for images, _ in batches(data, "train", device=where):
            parts.append(body.features(images)[0, :, 1 : 1 + width].double())
            watch.beat()
        points = torch.cat(parts)
    check_finite(points, what, f"its features of the train images of {data.name}", subject)
    return points


def _by(
    choose: Callable[[Tensor, int], Tensor], method: str, data: Data, share: float, balanced: bool
) -> Selection:
    """What is chosen of all images, or of each class, class by class."""
    chosen: list[Tensor] = []

    def note(members: Tensor, count: int) -> Tensor:
        chosen.append(choose(members, count))
        return chosen[-1]

    chosen_places(data.train.labels, data, share, balanced, note)
    return Selection(method + ", balanced" * balanced, torch.cat(chosen), len(data.train))
