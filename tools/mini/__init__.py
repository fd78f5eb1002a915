"""The recipe of the embedded base: renders captioned scenes, trains the models, checks and packs them."""
