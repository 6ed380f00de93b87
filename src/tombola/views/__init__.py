"""Views of the table as data: which key stands where in a table, and what a figure shows; report/ draws it."""
