"""Rendered crowd scenes with exact head positions: data without a download."""
