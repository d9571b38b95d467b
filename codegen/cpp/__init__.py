"""Plan to the text of a C++ class."""
