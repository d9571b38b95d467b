"""The Metal target: kernels in the Metal shading language and a host class over metal-cpp."""
