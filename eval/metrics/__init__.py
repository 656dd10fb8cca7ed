"""Metrics, written from their definitions: arrays in, numbers out."""
