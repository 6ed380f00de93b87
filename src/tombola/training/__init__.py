"""Training: the recipe, the loop and what a training leaves behind."""
