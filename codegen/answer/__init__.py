"""Answers: what the emitted class makes of a network's last tensors, such as labels and boxes."""
