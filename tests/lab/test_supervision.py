import threading
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola.lab import lease as leases
from tombola.lab.execute import LeaseHeld, Settings, execute
from tombola.lab.lease import Lease, LeaseLost
from tombola.lab.store import Store, write_json
from tombola.lab.supervision import LabWatch, end_hung, last_lines
from tombola.training.checkpoint import Checkpoint


def the_lease(store: Store, function: object) -> Lease:
    """The lease of a job that runs in this process."""
    path = store.workplace(tb.job(function).name) / "lease"
    (lease,) = (lease for lease in leases._held._leases if lease.path == path)
    return lease


def test_signs_of_life_are_expected_while_the_function_runs_and_not_while_its_needs_are_loaded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @tb.declare("telling")
    def telling(data: tb.Data, watch: tb.Watch | None = None) -> int:
        (lease,) = leases._held._leases
        seen.append(lease.patience)
        return 1

    def load(source: str) -> tb.Data:
        seen.extend(lease.patience for lease in leases._held._leases)
        return digits

    digits = tb.load_data("digits")
    monkeypatch.setattr("tombola.lab.objects.load_data", load)
    tb.Lab(store.root, settings=Settings(hung_after=5.0)).run(tb.job(telling, "digits")).raise_failures()
    assert seen == [None, 5.0]


def test_every_sign_of_life_puts_off_that_a_job_counts_as_hung(store: Store) -> None:
    seen = []

    @tb.declare("slow but alive")
    def slow(watch: tb.Watch | None = None) -> int:
        assert watch is not None
        lease = the_lease(store, slow)
        for sign in (watch.beat, lambda: watch.advanced(lambda: Checkpoint({}, {}), epoch_end=False)):
            lease.alive -= 100
            seen.append(lease.is_hung())
            sign()
            seen.append(lease.is_hung())
        return 1

    execute(store, tb.job(slow).description(), Settings(hung_after=60.0))
    assert seen == [True, False, True, False]


def test_a_job_that_hangs_says_where_before_its_process_ends(tmp_path: Path) -> None:
    inside, over = threading.Event(), threading.Event()

    def waits_for_ever() -> None:
        inside.set()
        over.wait()

    ended = []
    thread = threading.Thread(target=waits_for_ever)
    thread.start()
    inside.wait()
    assert thread.ident is not None
    end_hung(tmp_path, thread.ident, lambda: ended.append(last_lines(tmp_path)))
    over.set()
    thread.join()
    (told,) = ended
    assert "no sign of life for too long, in wait (threading.py:" in told
    assert "in waits_for_ever (test_supervision.py:" in told


def test_a_checkpoint_that_was_written_while_the_lease_was_lost_leaves_nothing(store: Store) -> None:
    workplace = store.root / "work" / "x"
    lease = leases.acquire(workplace)
    assert lease is not None
    watch = LabWatch(workplace, lease, every=0.0, hung_after=60.0)
    watch.keep(Checkpoint({"number": 1}, {"t": torch.ones(1)}))
    before = (workplace / "checkpoint").read_bytes()
    lease.path.unlink()
    assert leases.acquire(workplace) is not None
    write_json(workplace / "attempts.json", {"begun": 1})
    with pytest.raises(LeaseLost):
        watch.keep(Checkpoint({"number": 2}, {"t": torch.ones(1)}))
    assert (workplace / "checkpoint").read_bytes() == before
    assert sorted(path.name for path in workplace.iterdir()) == ["attempts.json", "checkpoint", "lease"]


def test_the_heartbeat_that_finds_its_lease_gone_stops_the_work_at_its_next_sign(store: Store) -> None:
    @tb.declare("overtaken")
    def overtaken(watch: tb.Watch | None = None) -> int:
        assert watch is not None
        lease = the_lease(store, overtaken)
        lease.path.unlink()
        leases._beat_for(lease)
        watch.beat()
        return 1

    with pytest.raises(LeaseHeld):
        execute(store, tb.job(overtaken).description(), Settings())
    assert not store.has(tb.job(overtaken).name)
