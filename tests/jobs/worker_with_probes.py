"""The product's worker, told of the tests' kinds of jobs; arguments as `python -m geofix_workers`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import probes  # noqa: F401

from geofix.log import configure
from geofix_workers import supervise

if __name__ == "__main__":
    configure("INFO", json=True)
    if sys.argv[1] == "all":
        _, _, queues, concurrency, beat = sys.argv
        command = [sys.executable, __file__, "one"]
        supervise.supervise(queues.split(","), int(concurrency), beat=beat == "beat", command=command)
    else:
        supervise.main(sys.argv[1:])
