"""Results for people: text on a terminal, pages for a browser."""
