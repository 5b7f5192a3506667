"""Arrays and tables in, figures with alt text out."""
