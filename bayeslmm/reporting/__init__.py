"""The report in HTML: its parts, checks, pages, live figures."""
