"""What is pruned: a trained run, or a ticket as it is."""

from __future__ import annotations

from tombola.ticket import Ticket
from tombola.training.run import Run

Subject = Run | Ticket


def ticket_of(subject: Subject) -> Ticket:
    """The ticket itself, or the one that was trained."""
    return subject.ticket if isinstance(subject, Run) else subject


def stream_of(subject: Subject) -> tuple[int, int, int]:
    """The numbers of the stream that a score of this run or ticket may draw from."""
    ticket = ticket_of(subject)
    noise = subject.noise if isinstance(subject, Run) else 0
    return int(ticket.start_fingerprint[:12], 16), ticket.round, noise
