"""The networks of the paper, and the description by which any network is named, stored and rebuilt."""
