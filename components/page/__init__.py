"""Base of the HTML pages: template, style, script and plots."""
