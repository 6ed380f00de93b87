"""The 61 testable claims of the paper, as checks over cells."""
