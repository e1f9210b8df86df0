"""`python -m benchmarks [--quick] [NAME ...]`: measure, and write it down."""

import argparse
import importlib
import time

from benchmarks import report

MEASURES = (
    "step",
    "commands",
    "message",
    "latency",
    "start",
    "empty",
    "viewers",
    "many",
    "reconnect",
    "memory",
)


def main():
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASURES, []], default=MEASURES)
    parser.add_argument("--quick", action="store_true", help="small and rough")
    options = parser.parse_args()
    rows = []
    for name in options.names:
        start = time.monotonic()
        module = importlib.import_module(f"benchmarks.measures.{name}")
        for row in module.measure(options.quick):
            rows.append(row)
            print(report.text(row), flush=True)
        print(f"({name}: {time.monotonic() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
