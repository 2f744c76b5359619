"""Metrics, whole-image and tiled inference, baselines, plots, regions, video, submission file."""
