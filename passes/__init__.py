"""Graph -> Graph, one file a pass; mdlc/pipeline.py puts them in order."""
