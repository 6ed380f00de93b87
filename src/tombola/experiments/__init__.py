"""Experiments: what is trained and measured, as items, and how their numbers are shown.

An :class:`~tombola.experiments.experiment.Experiment` of a user's file and a
:class:`~tombola.experiments.study.Study` of the paper both become a
:class:`~tombola.experiments.bound.Bound`, which is planned, run and reported.
"""
