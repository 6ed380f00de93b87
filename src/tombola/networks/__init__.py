"""The networks of the paper, and the description under which any network is known."""
