"""`python -m layerwright`."""

from layerwright.cli.main import main

main()
