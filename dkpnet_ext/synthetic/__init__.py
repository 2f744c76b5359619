"""Rendered scenes with known positions of every person's head, and drawn pictures without people: data without a download."""
