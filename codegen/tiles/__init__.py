"""Register tiles and what stands around them: epilogues, padding, formulas."""
