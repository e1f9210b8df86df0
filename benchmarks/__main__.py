"""`python -m benchmarks [--quick] [NAME ...]`: measure, and write it down.

What was measured whole is kept in results.json, and the README's table and plots are
made from that; what was measured quickly is only printed.
"""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

from benchmarks import machine, model, plots, table

RESULTS = Path(__file__).with_name("results.json")
MEASURES = (
    *("step", "commands", "message", "latency", "start", "empty"),
    *("viewers", "many", "reconnect", "memory"),
)


def main():
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="small, rough, not kept")
    parser.add_argument("--report", action="store_true", help="write the report again")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASURES):
        parser.error(
            f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}"
        )
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    failed = []
    for name in [] if options.report else options.names or MEASURES:
        try:
            found = measure(name, options.quick)
        except Exception:  # the others are measured all the same
            traceback.print_exc()
            failed.append(name)
            continue
        if not options.quick:
            results |= {"machine": machine.described()}
            results.setdefault("measures", {})[name] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if not options.quick and results:
        plots.draw(results)
        table.write(results)
        if set(results["measures"]) == set(MEASURES):
            model.write(results)
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}")


def measure(name, quick):
    """The rows of one measure, and how busy the machine was before."""
    load, begin = os.getloadavg()[0], time.monotonic()
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    rows = []
    for row in importlib.import_module(f"benchmarks.measures.{name}").measure(quick):
        rows.append(row.as_dict())
        print(table.text(row), flush=True)
    seconds = round(time.monotonic() - begin)
    print(f"({name}: {seconds} s, load before {load:.1f})\n", flush=True)
    return {"when": when, "seconds": seconds, "load": round(load, 2), "rows": rows}


if __name__ == "__main__":
    main()
