"""The order of things: what happens in a learn, a generate, a demo. No mathematics, no printing."""
