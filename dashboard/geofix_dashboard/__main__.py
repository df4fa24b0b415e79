"""`python -m geofix_dashboard run APP ...`: Streamlit's command line, ended by Ctrl-C with status 130."""

from __future__ import annotations

import os
import signal
import sys
import threading

from geofix.errors import EXIT_INTERRUPT


def main(arguments: list[str]) -> int:
    """Serve until a signal comes, and return the exit status.

    Streamlit ends with status 0 whatever stopped it. So SIGINT is kept from it and waited for in a thread,
    which notes it and passes it on as SIGTERM: the server ends in good order, as it does for SIGTERM itself.
    """
    interrupted = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # before any thread: all inherit it
    threading.Thread(target=_wait_for_interrupt, args=(interrupted,), daemon=True).start()
    from streamlit.web.cli import main as streamlit

    try:
        streamlit(arguments, prog_name="geofix dashboard")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return EXIT_INTERRUPT if interrupted.is_set() else status


def _wait_for_interrupt(interrupted: threading.Event) -> None:
    signal.sigwait({signal.SIGINT})
    interrupted.set()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        os._exit(EXIT_INTERRUPT)  # not serving yet; SIGTERM would end this process without a status
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
