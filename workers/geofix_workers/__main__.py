"""`python -m geofix_workers`: what `geofix worker` starts."""

from __future__ import annotations

import sys

from geofix.errors import EXIT_INTERRUPT, GeofixError
from geofix.log import configure
from geofix.settings import get_settings
from geofix_workers.supervise import main

if __name__ == "__main__":
    configure(get_settings().log_level, json=get_settings().log_json)
    try:
        main(sys.argv[1:])
    except GeofixError as error:
        sys.stderr.write(f"error {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPT)
