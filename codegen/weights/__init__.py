"""How weights are encoded, ordered and stored."""
