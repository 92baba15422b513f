"""Measurements of a trained model, one class a measurement: check, cost, run. No trainer, no callback. Source: own."""
