"""Pictures, tables and HTML pages of results, and the claims board."""
