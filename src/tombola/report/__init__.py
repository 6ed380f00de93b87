"""Pictures, terminal tables and the HTML page of a summary."""
