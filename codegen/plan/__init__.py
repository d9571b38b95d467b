"""Graph to Plan: kernels chosen, views, row fusion, the arena."""
