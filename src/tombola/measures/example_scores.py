"""Scores of examples: one number an image that says how hard it is, of one run or a mean over several.

EL2N and GraNd are those of Paul et al. (2021, "Deep Learning on a Data Diet"), who average both over ten runs
(:func:`mean_scores`); least confidence, entropy and margin are the uncertainties of active learning;
forgetting is that of Toneva et al. (2019). What is made of scores is in :mod:`tombola.measures.selection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError, unknown
from tombola.files import checksum
from tombola.measures.gradient_norms import Layers, gradient_norms
from tombola.measures.parts import Split
from tombola.measures.predictions import logits_of, pass_cost
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.run import Run

ExampleScore = Literal["el2n", "grand", "grand-last-layer", "least-confidence", "entropy", "margin"]
End = Literal["high", "low"]


@dataclass(frozen=True, eq=False, repr=False)
class ExampleScores(OneLine):
    """A number for each image of a split, in its order.

    score: what they are, such as ``"el2n"``.
    values: float64 ``(N,)``. Infinite for an image that was never learned, where forgetting is counted so,
        and NaN where nothing is known of an image, as by :func:`~tombola.memorization`.
    hard: which end is that of hard images, ``"high"`` or ``"low"``.
    runs: how many runs they are the mean of.
    labels_checksum: SHA-256 over the labels of the images, by which scores of other images are told apart;
        None where they are not known, as by :func:`~tombola.forgetting_scores`.
    """

    score: str
    values: Tensor
    hard: End = "high"
    runs: int = 1
    labels_checksum: str | None = None

    def _in_one_line(self) -> str:
        gaps = f", {self.unknown:,} unknown" if self.unknown else ""
        return (
            f"<{self.score} of {len(self.values):,} images, {self.runs} run{'s' * (self.runs != 1)}: "
            f"mean {self.mean:.4g}, {self.hard} is hard{gaps}>"
        )

    def _facts(self) -> dict[str, object]:
        return {
            "score": self.score, "images": f"{len(self.values):,}", "runs": self.runs, "mean": self.mean,
            "standard deviation": self.std, "hard are": self.hard, "unknown": f"{self.unknown:,}",
        }  # fmt: skip

    def _finite(self) -> Tensor:
        return self.values[self.values.isfinite()]

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN if there is none."""
        return float(self._finite().mean())

    @property
    def std(self) -> float:
        """Sample standard deviation of the finite values over images; 0 for one."""
        finite = self._finite()
        return float(finite.std()) if len(finite) > 1 else 0.0

    @property
    def unknown(self) -> int:
        """How many images have no score."""
        return int(self.values.isnan().sum())

    @property
    def infinite(self) -> int:
        """How many images have an infinite score."""
        return int(self.values.isinf().sum())

    def csv(self) -> str:
        """The scores as CSV: a line for each image with its index in the split and its score, to all digits.

        A score that is not known is empty.
        """
        rows = (
            f"{index},{'' if value != value else repr(value)}"
            for index, value in enumerate(self.values.tolist())
        )
        return "\n".join(("image,score", *rows)) + "\n"


def _el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """Euclidean norm of the probabilities minus the one-hot label."""
    errors = logits.softmax(1) - one_hot(labels, logits.shape[1])
    norms: Tensor = errors.norm(dim=1)
    return norms


def _least_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the largest probability."""
    return 1 - logits.softmax(1).amax(1)


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Entropy of the probabilities in nats."""
    logarithms = logits.log_softmax(1)
    return -(logarithms.exp() * logarithms).sum(1)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest probability minus the second."""
    first, second = logits.softmax(1).topk(2).values.unbind(1)
    return first - second


_OF_LOGITS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "el2n": _el2n,
    "least-confidence": _least_confidence,
    "entropy": _entropy,
    "margin": _margin,
}
_OF_GRADIENTS: Mapping[str, Layers] = {"grand": "all", "grand-last-layer": "last"}
_LOW_IS_HARD = ("margin",)


def _scores_cost(subject: Outline, data: Size, score: str, split: str) -> Cost:
    """A pass over the split; gradients of single images cost about ten."""
    cost = pass_cost(subject, data, split)
    return replace(cost, images=cost.images * (10 if score in _OF_GRADIENTS else 1))


@declare("example-scores", cost=_scores_cost)
def example_scores(
    subject: Ticket | Run,
    data: DataLike,
    *,
    score: ExampleScore = "el2n",
    split: Split = "train",
    head: str | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> ExampleScores:
    """How hard each image is for a run, or for a ticket as it is.

    With p the probabilities (softmax of the logits) of an image and y its label as a one-hot vector:

    ==================== ===================================================================== ============
    score                value                                                                 hard images
    ==================== ===================================================================== ============
    ``el2n``             Euclidean norm of p - y, 0 to sqrt 2 (Paul et al., 2021)              high
    ``grand``            norm of the gradient of its cross-entropy by all parameters (same)    high
    ``grand-last-layer`` the same by weights and bias of the last layer (DeepCore's "GraNd")   high
    ``least-confidence`` 1 - max p                                                             high
    ``entropy``          -sum p log p, in nats                                                 high
    ``margin``           largest p minus the second largest, of any label                    low
    ==================== ===================================================================== ============

    subject: a run with its final weights, or a ticket with those that it has: for EL2N at epoch 20, the
        ticket that :func:`~tombola.pretrain` takes there. Paul et al. average ten runs: :func:`mean_scores`.
    split: ``"train"`` or ``"test"``.
    head: name of the last layer for ``grand-last-layer``, in a network of one's own.

    In evaluation mode (batch norm with its running statistics), without augmentation, each image by itself,
    in float32. Of a sparse network the gradient is by the weights that its mask keeps, biases and batch norm
    included. GraNd at initialisation is known not to find hard images (Kirsch, 2023). No class counts as
    another: for balance see :func:`~tombola.select_by_score`. Public code differs: DeepCore takes the
    gradient of a batch's mean, so that images of a short last batch score higher, by the last layer alone;
    and stores entropy, margin and confidence with low as uncertain.

    Raises :class:`~tombola.errors.Undefined` for a run that diverged, and
    :class:`~tombola.errors.RecipeError` for another score.
    """
    data = load_data(data)
    if score not in get_args(ExampleScore):
        raise RecipeError(unknown("score of examples", str(score), get_args(ExampleScore)))
    if score in _OF_GRADIENTS:
        values = gradient_norms(
            subject, data, layers=_OF_GRADIENTS[score], split=split, head=head, device=device, watch=watch
        )
    else:
        logits, labels = logits_of(subject, data, what=score, split=split, device=device, watch=watch)
        values = _OF_LOGITS[score](logits, labels)
    labelled = data.train if split == "train" else data.test
    return ExampleScores(
        score,
        values,
        "low" if score in _LOW_IS_HARD else "high",
        labels_checksum=checksum(labelled.labels),
    )


NeverLearned = Literal["infinite", "presentations"]


@declare("forgetting-scores")
def forgetting_scores(run: Run, *, never_learned: NeverLearned = "infinite") -> ExampleScores:
    """How often a run forgot each training image, high for hard ones (Toneva et al., 2019).

    never_learned: what an image counts that was never right in training: ``"infinite"`` (reading D9, and the
        code of Paul et al., 2021), or as many as it had ``"presentations"``, one an epoch, as in Toneva's
        code, where a mean over runs tells an image that one of them never learned from one that none did.
        DeepCore counts 0, as if it were the easiest.

    Counted in training mode, at each presentation before that batch's update, with the training's
    augmentation, as in Toneva's code. A mean over several runs is :func:`mean_scores`; Toneva sums them.

    Raises :class:`~tombola.errors.TicketError` for a run without a forgetting record, and
    :class:`~tombola.errors.RecipeError` for another count.
    """
    if never_learned not in get_args(NeverLearned):
        raise RecipeError(
            unknown("count of what was never learned", str(never_learned), get_args(NeverLearned))
        )
    record = run.forgetting
    most = torch.inf if never_learned == "infinite" else float(len(run.history[1:]))
    return ExampleScores("forgetting", torch.where(record.learned, record.events.double(), most))


@declare("mean-scores")
def mean_scores(scores: Sequence[ExampleScores]) -> ExampleScores:
    """The mean score of each image over runs, every run weighing the same.

    scores: one score of the same images by different runs.

    Raises :class:`~tombola.errors.RecipeError` for none, and :class:`~tombola.errors.TicketError` for
    different scores, or images of other number or labels.
    """
    if not scores:
        raise RecipeError("no scores to take the mean of; give those of one run or more")
    names = sorted({one.score for one in scores})
    counts = sorted({len(one.values) for one in scores})
    if len(names) > 1 or len(counts) > 1:
        raise TicketError(
            f"scores are {', '.join(names)} of {', '.join(map(str, counts))} images; a mean is of one score "
            "of the same images"
        )
    checksums = sorted({one.labels_checksum for one in scores if one.labels_checksum is not None})
    if len(checksums) > 1:
        raise TicketError(
            "scores are of images whose labels differ; a mean is of one score of the same images"
        )
    runs = sum(one.runs for one in scores)
    total = torch.stack([one.runs * one.values for one in scores]).sum(0)
    return ExampleScores(names[0], total / runs, scores[0].hard, runs, checksums[0] if checksums else None)
