"""The lab: the same functions with memory. Jobs, their store, and the engine that runs them."""
