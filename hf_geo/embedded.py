"""Names of the data sets that come with the libraries and need no network. No heavy import."""

DIGITS, DOCS, GLOSSES = EMBEDDED = ("digits", "docs", "glosses")
