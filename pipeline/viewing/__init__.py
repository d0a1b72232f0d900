"""Pages and sheets that show what a cache holds."""
