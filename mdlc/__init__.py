"""mdlc: compiles a trained network to a self-contained C++ class and one weights file."""
