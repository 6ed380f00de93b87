"""Studies: which jobs a table or figure needs, and how their results become its cells."""
