import torch

import tombola as tb
from tombola.experiments.paper.stand_ins import stand_in


def test_a_stand_in_has_the_same_pixels_every_time() -> None:
    first, again = (stand_in.__wrapped__("a set", 5) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != stand_in("another set", 5).fingerprint


def test_one_percent_of_a_stand_in_is_an_image_of_each_class() -> None:
    data = stand_in("a set", 5)
    assert (data.size, data.channels, data.classes, data.mirrored) == ((8, 8), 1, 5, False)
    assert torch.bincount(data.train.labels).tolist() == [60] * 5
    assert torch.bincount(data.test.labels).tolist() == [20] * 5
    assert len(tb.subset(data, share=0.01).train) == 5


def test_a_small_network_learns_a_stand_in() -> None:
    data = stand_in("a set", 5)
    recipe = tb.Recipe(epochs=8, batch_size=20, lr=0.1)
    run = tb.train(tb.initialize("convnet", data), data, recipe)
    assert run.accuracy > 60  # chance is 20
