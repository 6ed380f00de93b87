"""The rows that tables and figures share, a function for each kind of experiment."""
