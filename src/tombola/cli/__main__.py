"""``python -m tombola.cli``."""

from tombola.cli.entry import main

main()
