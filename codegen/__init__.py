"""Graph -> Plan -> text: instruction sets, kernels, memory, weights, emitters, build and run."""
