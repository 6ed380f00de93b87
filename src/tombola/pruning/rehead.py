"""Tickets for another data set: the network for its classes, under a new head (Morcos et al., 2019).

Mask and start of the body move, the output layer does not (Morcos, Yu, Paganini & Tian, "One ticket to win
them all"; Mehta, "Sparse transfer learning via winning lottery tickets"; Desai, Zhan & Aly, "Evaluating
lottery tickets under distributional shifts", all 2019). What comes out is an ordinary ticket, to be trained,
pruned on and controlled like any other; :func:`tombola.transfer` keeps the body frozen instead.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tombola import files
from tombola.cost import Cost, Outline
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import NetworkError
from tombola.networks.blocks import block_names
from tombola.networks.fit import check_fits
from tombola.networks.network import Network
from tombola.networks.prunable import tied_names
from tombola.pruning.subject import ticket_of
from tombola.registry import declare
from tombola.ticket import State, Ticket, apply_mask
from tombola.training.run import Run

HEAD_STREAM = "new head"
"""Not the stream of first weights: no seed draws the head again that the mask was found with."""


def _rehead_cost(subject: Outline) -> Cost:
    """No training; the ticket is at epoch 0."""
    return Cost(result=replace(subject, epoch=0))


@declare("rehead", stored=False, cost=_rehead_cost)
def rehead(subject: Ticket | Run, data: DataLike, *, head: str | None = None, seed: int = 0) -> Ticket:
    """The ticket for another data set: its start and mask under a new, dense head for the classes there.

    subject: a ticket, or a run, whose trained weights then go along in place of the start (fine-tuning). So
        do the weights of a ticket of learning-rate rewinding.
    data: says how many classes there are; its images must have the size and channels that the body takes (see
        :func:`tombola.fit_images`).
    head: name of the layer that is replaced, for a network of one's own: its final linear layer.
    seed: number of the stream ``("new head", seed)`` that the head is drawn from, by the network's own
        initialisation or the scheme of the ticket.

    The new head is not masked, as in Morcos et al. (2019), so that the sparsity of the whole is a little
    lower than that of what moved; it is drawn anew also where there are as many classes as before. Batch-norm
    parameters and running statistics move with the body. The ticket is at epoch 0, for no step on the new
    data was taken, and its round stays, which numbers the noise. Of the controls :func:`tombola.permute` and
    ``tombola.randomize(..., scope="layerwise")`` leave the new head dense.

    Raises :class:`~tombola.errors.TicketError` for a ticket without its dense start, and
    :class:`~tombola.errors.NetworkError` for a head that is not there or is tied to another layer, a built
    module, which has its number of classes, and a body that does not fit the data.
    """
    data = load_data(data)
    ticket = ticket_of(subject)
    dense = ticket.dense_start()
    network = replace(
        ticket.network, channels=data.channels, size=data.size, classes=data.classes,
        vocabulary=data.vocabulary,
    )  # fmt: skip
    module = network.initialized(seed, HEAD_STREAM)
    state = module.state_dict()
    head = block_names(network.name, module, (), head).head
    own = {name: value.detach().clone() for name, value in state.items() if name.startswith(f"{head}.")}
    _check_body(ticket.network, data, state, dense, f"{head}.")
    check_fits(module, network)
    tied = tied_names(module)
    if tied_head := own.keys() & {*tied, *tied.values()}:
        raise NetworkError(
            f"head {head!r} of {network.name} shares {sorted(tied_head)[0]} with another layer, so it cannot "
            "be drawn anew by itself"
        )
    mask = {
        name: torch.ones(own[name].shape, dtype=torch.bool) if name in own else keep
        for name, keep in ticket.mask.items()
    }
    trained = subject.weights if isinstance(subject, Run) else ticket.trained
    start = _under_head(state, dense, own)
    kept = sum(int(keep.sum()) for keep in mask.values())
    return replace(
        ticket, network=network, start=start, start_fingerprint=files.fingerprint(start), mask=mask,
        density=kept / sum(keep.numel() for keep in mask.values()), epoch=0, step=0, steps=1,
        trained=None if trained is None else apply_mask(_under_head(state, trained, own), mask),
    )  # fmt: skip


def _under_head(network: State, body: State, head: State) -> dict[str, Tensor]:
    """The tensors of a body with those of a head, in the order of the network."""
    return {name: head[name] if name in head else body[name] for name in network}


def _check_body(network: Network, data: Data, state: State, body: State, head: str) -> None:
    """Raises NetworkError for a body of other tensors than the network for this data has."""
    expected, present = (
        {name: tuple(value.shape) for name, value in tensors.items() if not name.startswith(head)}
        for tensors in (state, body)
    )
    differing = [name for name in {**expected, **present} if expected.get(name) != present.get(name)]
    if not differing:
        return
    remedy = "give data of the same shape"
    if data.kind == "images" and len(network.size) == 2:
        remedy = f"fit them first: fit_images(data, size={network.size}, channels={network.channels})"
    raise NetworkError(
        f"{network.name} for {network.inputs} does not fit {data.name}: {differing[0]} is "
        f"{present.get(differing[0])}, and would be {expected.get(differing[0])}; {remedy}"
    )
