"""`python -m geofix_dashboard run APP ...`: Streamlit's command line, ended by Ctrl-C with status 130."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

from geofix.errors import EXIT_INTERRUPT
from geofix_dashboard.memory import give_back

# Between threads: one that waits for the server has its turn after half a millisecond, whatever others count.
# Rows come one by one, and Python's own 5 ms add up on a page that reads beside a comparison.
SWITCH_S = 0.0005
# Objects made before young ones are looked through, and how often older ones are with them: a map is made of
# tens of thousands, for which everything there is would be looked through again and again.
COLLECT = (20_000, 20, 20)


def main(arguments: list[str]) -> int:
    """Serve until a signal comes, and return the exit status.

    Streamlit ends with status 0 whatever stopped it. So SIGINT is kept from it and waited for in a thread,
    which notes it and passes it on as SIGTERM: the server ends in good order, as it does for SIGTERM itself.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*COLLECT)
    interrupted = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # before any thread: all inherit it
    give_back()
    threading.Thread(target=_wait_for_interrupt, args=(interrupted,), daemon=True).start()
    from streamlit.web.cli import main as streamlit

    import geofix_dashboard.app  # noqa: F401  # before the first visitor, not at the first page

    gc.collect()
    gc.freeze()  # what was loaded stays; it need not be looked through
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
