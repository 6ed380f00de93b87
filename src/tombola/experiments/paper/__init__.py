"""The numbers the paper prints, one CSV file a table, and how they are read."""
