"""Classification losses for long-tailed data, under one contract."""
