"""Recognition of actions: one vector a video, text or a logistic regression to tell classes apart."""
