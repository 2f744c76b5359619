"""Labelling heads: the labels of a folder of pictures on disk, proposals of a model, the local page."""
