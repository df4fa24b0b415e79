"""`python -m geofix.cli`: the same as `geofix`."""

from geofix.cli.main import main

main()
