"""Drawing images from prompts and layouts, and over given images."""
