"""Reports to look at: figures gathered from a compiled network, as JSON and as a page."""
