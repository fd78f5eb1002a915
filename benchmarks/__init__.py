"""Measurements of the product, each printing one JSON object. Nothing in the product imports them."""
