"""Data sets as tensors of images and labels: built in, from the Hugging Face hub, from a folder, or own."""
