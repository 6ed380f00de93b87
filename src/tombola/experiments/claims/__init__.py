"""The 61 testable claims of the paper, and two things that it supposes, as checks over cells."""
