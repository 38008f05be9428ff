"""`--campaign N`: how many kills the campaign makes."""


def pytest_addoption(parser) -> None:
    parser.addoption("--campaign", type=int, default=12, metavar="N", help="kills of the campaign (12 by default)")
