"""Label propagation: one kernel, the protocols as presets, masks and joints on their way in and out."""
