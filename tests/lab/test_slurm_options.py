"""What ``--slurm`` takes, and what it refuses before Slurm is asked."""

import pytest

from tombola.errors import ExperimentError
from tombola.lab.slurm_options import parse_slurm_options


def test_options_get_the_names_of_sbatch_in_their_order() -> None:
    options = parse_slurm_options("partition=gpu,gpus=4,time=24:00:00,account=lab,qos=long,cpus=8,mem=64G")
    assert (options.nodes, list(options.named.items())) == (
        1,
        [
            ("partition", "gpu"),
            ("gpus", "4"),
            ("time", "24:00:00"),
            ("account", "lab"),
            ("qos", "long"),
            ("cpus-per-task", "8"),
            ("mem", "64G"),
        ],
    )


def test_commas_belong_to_a_value_unless_an_option_begins() -> None:
    options = parse_slurm_options("mail-type=END,FAIL,exclude=n1,n[3-5],exclusive=,comment=a = b")
    assert options.named == {
        "mail-type": "END,FAIL",
        "exclude": "n1,n[3-5]",
        "exclusive": "",
        "comment": "a = b",
    }


@pytest.mark.parametrize(
    ("gpus", "each"), [("4", "2"), ("a100:4", "a100:2"), ("nvidia_h100.80gb:2", "nvidia_h100.80gb:1")]
)
def test_gpus_are_shared_by_the_machines(gpus: str, each: str) -> None:
    options = parse_slurm_options(f"nodes=2,gpus={gpus}")
    assert (options.nodes, options.named) == (2, {"gpus": each})


def test_a_driver_asks_for_nothing_that_computes() -> None:
    options = parse_slurm_options("partition=gpu,nodes=2,gpus=2,mem=9G,cpus=4,time=10,gres=shard:1,qos=low")
    assert options.of_driver() == {"partition": "gpu", "time": "10", "qos": "low"}


@pytest.mark.parametrize("time", ["90", "90:00", "24:00:00", "2-12", "2-12:30", "2-12:30:00", "UNLIMITED"])
def test_times_are_written_as_slurm_writes_them(time: str) -> None:
    assert parse_slurm_options(f"time={time}").named == {"time": time}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "--slurm has ''; give names of sbatch's options, such as partition=gpu,gpus=4,time=24:00:00"),
        ("gpu", "--slurm has 'gpu'; give names of sbatch's options, such as partition=gpu,"),
        ("--partition=gpu", "--slurm has '--partition=gpu'; give names"),
        ("partitoin=gpu", "--slurm has no option 'partitoin'; did you mean 'partition'?"),
        ("gpu=4", "--slurm has no option 'gpu'; did you mean 'gpus'?"),
        ("partition=", "--slurm has partition=; name one, such as partition=gpu"),
        ("gpus=0", "--slurm has gpus=0; give the GPUs of all machines together, such as gpus=4"),
        ("gpus=3,nodes=2", "--slurm has gpus=3 for nodes=2; give each machine equally many"),
        ("nodes=1-2", "--slurm has nodes=1-2; give a number of machines, such as nodes=2"),
        ("time=1d", "--slurm has time=1d; give minutes, hours:minutes:seconds or days-hours"),
        ("cpus=4,cpus-per-task=4", "--slurm has cpus-per-task twice; give it once"),
        ("output=/tmp/log", "--slurm has output, but the log of a job lies beside its scripts; leave it out"),
        ("comment=a\nb", "--slurm is 'comment=a\\nb'; line breaks and control"),
        ("comment=a\x1b[2J", "--slurm is 'comment=a\\x1b[2J'; line breaks"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_do(text: str, line: str) -> None:
    with pytest.raises(ExperimentError) as refusal:
        parse_slurm_options(text)
    assert str(refusal.value).startswith(line)
