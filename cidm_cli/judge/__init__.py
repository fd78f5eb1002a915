"""Evaluating concepts and layouts, and reporting it."""
