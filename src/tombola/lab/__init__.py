"""The lab: the same functions with memory. Jobs, their store, and the driver that runs them."""
