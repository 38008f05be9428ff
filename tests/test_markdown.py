"""Markdown tables and sections."""

from hf_geo.markdown import format_table, replace_section


def test_a_table_keeps_its_cells_apart() -> None:
    table = format_table(["a", "b"], [[1, "x|y"], ["two\nlines", ""]])
    assert table == "| a | b |\n|---|---|\n| 1 | x\\|y |\n| two lines |  |"


def test_a_section_is_put_once_and_the_rest_stays() -> None:
    first = replace_section("# Title\n", "one", "text \\1\n")
    assert first == "# Title\n\n<!-- one -->\ntext \\1\n<!-- end of one -->\n"
    both = replace_section(first, "two", "other") + "Mine.\n"
    assert replace_section(both, "one", "new") == both.replace("text \\1", "new")
    inserted = "a\n<!-- one -->\nx\n<!-- end of one -->\n\n## b\nc"
    assert replace_section("a\n## b\nc", "one", "x", before="## b") == inserted
    assert replace_section("a", "one", "x", before="## b") == "a\n\n<!-- one -->\nx\n<!-- end of one -->\n"
