"""What was measured, as a table."""

from benchmarks.figures import met, ratios, spread


def text(row):
    """For the terminal."""
    lines = [f"{row.measure} ({row.unit})"]
    for name, values in row.values.items():
        middle, low, high = spread(values)
        lines.append(f"    {name:28} {middle:10.3f}  {low:.3f} - {high:.3f}")
    for check in row.checks:
        middle, low, high = spread(ratios(row, check))
        by = f" / {check.by}" if check.by else ""
        said = {True: "kept", False: "MISSED", None: ""}[met(row, check)]
        lines.append(f"  {check.of}{by}: {middle:.3f}  {low:.3f} - {high:.3f} {said}")
    return "\n".join(lines)
