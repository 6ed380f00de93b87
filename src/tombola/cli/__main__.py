"""``python -m tombola.cli``."""

from tombola.cli.main import main

main()
