import subprocess
import sys
from typing import get_args

import pytest

import tombola


def test_names_recipes_and_augmentation_are_there_without_importing_torch() -> None:
    program = """
import sys
import tombola, tombola.training.recipe, tombola.data.augmentation, tombola.registry, tombola.search
tombola.Recipe(augmentation=tombola.Augmentation()), dir(tombola), tombola.imp, tombola.declare
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_listed_and_there() -> None:
    assert {"train", "pretrain", "imp", "barrier", "Ticket", "Recipe", "load_data"} <= set(dir(tombola))
    assert tombola.__version__
    assert get_args(tombola.DataLike)[:2] == (tombola.Data, str)
    for name in set(tombola.__all__) - {"__version__", "DataLike"}:
        # A name from before is the same class.
        assert getattr(tombola, name).__name__ == {"OwnStudy": "Experiment"}.get(name, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="trian"):
        _ = tombola.trian
