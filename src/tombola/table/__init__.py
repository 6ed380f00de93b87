"""The one typed table: what was measured, on what, and how surely; every view is drawn from it."""
