"""A page of which a part is written by a tool, between two marks."""

BEGIN, END = "<!-- written by make bench -->\n", "<!-- end -->\n"


def fill(path, text):
    """Put `text` between the marks."""
    head, _, rest = path.read_text().partition(BEGIN)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
