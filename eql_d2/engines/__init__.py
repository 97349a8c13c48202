"""The two training engines; they never import each other."""
