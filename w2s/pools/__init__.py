"""Recorded answers of other models: reading, label models, stacking, routing, cascades."""
