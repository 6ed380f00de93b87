"""Images and labels as plain tensors: built-in, from the Hugging Face hub, from a folder, or one's own."""
