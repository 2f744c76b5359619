"""Counting in pictures, folders and videos: overlays, regions, export, the local web page."""
