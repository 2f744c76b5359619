"""Errors on data sets: metrics, inference over a data set, trivial counters to compare with, NWPU-Crowd's submission file."""
