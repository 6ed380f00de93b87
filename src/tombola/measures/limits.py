"""The limit that measures judge by and pictures show. No torch here: pictures are drawn without it."""

STABLE_BELOW = 2.0
"""Mean error barrier in percentage points under which a ticket counts as stable (Frankle et al., 2020)."""
