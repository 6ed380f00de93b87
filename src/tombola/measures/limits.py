"""The barrier below which a ticket is stable, as measures judge it and figures draw it (without torch)."""

STABLE_BELOW = 2.0
"""Mean error barrier in percentage points under which a ticket counts as stable (Frankle et al., 2020)."""
