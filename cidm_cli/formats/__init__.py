"""Files of weights: how a concept is stored, and what other tools read."""
