"""The Jinja2 text of everything that mdlc emits."""
