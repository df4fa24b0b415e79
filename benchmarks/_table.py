"""All promises of a run of `make bench` in one table, from the figures that its scripts wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from _bench import Goal


def main() -> None:
    folder, *scripts = sys.argv[1:]
    print("\n| script | promise | measured | goal | |\n| --- | --- | --- | --- | --- |")
    reached = total = 0
    for name in scripts:
        path = Path(folder) / f"{name}.json"
        if not path.exists():
            print(f"| {name} | left no figures | | | **missed** |")
            continue
        for item in json.loads(path.read_text())["goals"]:
            reached, total = reached + item.pop("reached"), total + 1
            print(f"| {name} {Goal(**item).row()}")
    print(f"\n{reached} of {total} promises reached; what they are, and why some are not: RESULTS.md")


if __name__ == "__main__":
    main()
