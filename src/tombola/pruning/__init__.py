"""Pruning: which score, spread how over layers, made into a mask; and the controls a mask is held against."""
