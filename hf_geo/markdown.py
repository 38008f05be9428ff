"""Markdown tables and replaceable sections, for every report this package writes.

A module of its own because rooms that do not import each other write reports: evaluation, experiments, hub and runs.
"""

import re
from collections.abc import Iterable, Sequence


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Formats a Markdown table.

    Args:
        columns: Titles of the columns.
        rows: Cells of each row, one a column; bars and line breaks in them are made harmless.
    """
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[" ".join(str(cell).replace("|", "\\|").splitlines()) for cell in line] for line in lines]
    text = [f"| {' | '.join(line)} |" for line in cells]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text)


def replace_section(text: str, name: str, section: str, *, before: str | None = None) -> str:
    """Puts a section between marker comments, in place of the earlier one of that name; the rest of the text stays.

    Args:
        text: The whole document.
        name: Name of the section, in its markers `<!-- name -->` and `<!-- end of name -->`.
        section: Markdown.
        before: Heading in front of which a new section goes; the end of the document where it is missing or not given.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    marked = f"{start}\n{section.strip()}\n{end}"
    earlier = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if earlier.search(text):
        return earlier.sub(lambda _: marked, text, count=1)
    head, heading, tail = text.partition(before) if before else (text, "", "")
    if heading:
        return f"{head}{marked}\n\n{heading}{tail}"
    return f"{text.rstrip()}\n\n{marked}\n"
