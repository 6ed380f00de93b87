"""Trackers that finished jobs are entered into, a file each; see :mod:`tombola.lab.tracker`."""
