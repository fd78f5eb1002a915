"""Merging, exporting and importing concepts."""
