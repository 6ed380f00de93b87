"""In and out: runs of weights that were trained elsewhere, and runs in the forms of other libraries."""
