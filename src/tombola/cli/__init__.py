"""The command line: reads arguments, calls the floors below and prints. No torch before work is asked for."""

from tombola.cli.main import main as main
