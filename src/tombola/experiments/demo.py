"""The paper in miniature, an experiment like any other: ``tombola run my_demo.py`` runs a copy of this file.

Eight configurations of a small network on real handwritten digits: momentum 0.0 and 0.9 at two batch sizes,
with and without late rewinding. The learning rate is higher than the paper's, so that every configuration
learns the digits in eight epochs.
"""

from tombola.experiments.experiment import Experiment

demo = Experiment(
    name="demo",
    title="Lottery tickets and the noise of SGD: the paper in miniature",
    networks=["convnet"],
    data=["digits"],
    recipe={"epochs": 8, "lr": 0.5, "momentum": [0.0, 0.9], "batch_size": [32, 128]},
    rewind=[0, 2],
    rounds=10,
    fraction=0.2,
    seeds=2,
    measures={
        "learning.forgetting.events_mean": {},
        "learning.forgetting.events_std": {},
        "learning.forgetting.unforgettable": {},
        "learning.convergence": {},
        "untrained.accuracy": {"recalibrate": True},
    },
    between={"copies": {"barrier.height": [{}, {"recalibrate": True}]}},
    copies=2,
    copies_at=[0, 10],
    own_pretraining_noise=True,
)
