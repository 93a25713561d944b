"""`python -m broker.cli`: the `broker` command."""

from broker.cli.main import main

main()
