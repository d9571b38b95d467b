"""Graph -> Plan -> text: instruction sets, kernels, memory, weights file, emitters, build and run."""
