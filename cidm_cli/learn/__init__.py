"""Learning a concept: what is checked, prepared, trained and kept."""
