"""The text-to-image bases, behind functions that know nothing of the method."""
