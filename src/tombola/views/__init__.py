"""Views of the table as data: which key stands where in a table, and what figures show; report/ draws it."""
